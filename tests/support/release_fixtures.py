"""A small release of the authors' public form, and what it means, computed loop by loop."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.schema import SPLITS

Arrays = dict[str, np.ndarray]
SIZES = {"train": 5, "valid": 3, "test": 4}
PUBLIC = {"L": 128, "t": 768, "P": 49, "v": 2048, "A": 64}
SMALL = {"L": 9, "t": 6, "P": 4, "v": 5, "A": 7}
SLOTS = {"wikidiverse": 11, "wikimel": 101}
POOL = {"wikidiverse": 24, "wikimel": 140}  # entities
# Mentions that are out of the ordinary, and entities.
NO_SPAN = ("train", 1)
NO_PICTURE = ("test", 0)
NOT_RETRIEVED = ("test", 1)
SHARED_TEXT = (("train", 2), ("test", 2))
NO_PATH = (("train", 3), ("test", 3))
BLANK_TEXT, BLANK_PICTURE = 3, 5


def make_release(dataset: str, dims: dict[str, int] = SMALL, seed: int = 0) -> Arrays:
    """All arrays by their file's stem, and `qid2idx` for wikimel (id of each row)."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    slots, pool, t, v = SLOTS[dataset], POOL[dataset], dims["t"], dims["v"]
    entities = {
        "image": normal(pool, 1, v),
        "object": normal(pool, 1, 1, v),
        "score": rng.random((pool, 1), dtype=np.float32),
        "attr": normal(pool, t) if dataset == "wikidiverse" else normal(pool, dims["A"], t),
    }
    entities["attr"][BLANK_TEXT] = 0
    for name in ("image", "object", "score"):
        entities[name][BLANK_PICTURE] = 0
    out: Arrays = {}
    for split, n in SIZES.items():
        chosen = np.stack([rng.permutation(pool)[:slots] for _ in range(n)])
        chosen[0, :2] = BLANK_TEXT, BLANK_PICTURE
        answer = rng.integers(0, slots - 1, n)
        if split == NOT_RETRIEVED[0]:
            answer[NOT_RETRIEVED[1]] = slots - 1
        chosen[:, -1] = np.where(
            answer < slots - 1, chosen[np.arange(n), answer % slots], chosen[:, -1]
        )
        start = rng.integers(0, 3, n)
        own = {
            "mention-text-feature": normal(n, dims["L"], t),
            "mention-text-mask": np.ones((n, dims["L"]), np.int64),
            "start-pos": start,
            "end-pos": start + rng.integers(1, 4, n),
            "mention-image-feature": normal(n, dims["P"], v),
            "mention-object-feature": normal(n, 3, 1, v),
            "mention-object-score": rng.random((n, 3), dtype=np.float32),
            "answer": answer,
            "similarity-miet": 100 * np.tanh(normal(n, slots)),
            "similarity-eimt": 100 * np.tanh(normal(n, slots)),
            "mention-text-raw": np.array([f"sentence {i} of {split}" for i in range(n)]),
            "mention-image-path": np.array([f"{split}-{i}.jpg" for i in range(n)]),
        }
        if split == NO_SPAN[0]:
            own["end-pos"][NO_SPAN[1]] = own["start-pos"][NO_SPAN[1]]
        if split == NO_PICTURE[0]:
            own["mention-image-feature"][NO_PICTURE[1]] = 0
        for place in SHARED_TEXT:
            if split == place[0]:
                own["mention-text-raw"][place[1]] = "shared"
        for place in NO_PATH:
            if split == place[0]:
                own["mention-image-path"][place[1]] = "None"
        rows = chosen.reshape(-1)
        if dataset == "wikidiverse":
            own |= {
                "entity-attr-feature": entities["attr"][rows],
                "entity-image-feature": entities["image"][rows],
                "entity-object-feature": entities["object"][rows],
                "entity-object-score": entities["score"][rows],
                "entity-attr-raw": np.array([f"text of {row}" for row in rows]),
                "entity-image-path": np.array([f"{row}.jpg" for row in rows]),
            }
        else:
            own["entity-name-raw"] = np.array([f"Q{row + 100}" for row in rows])
        out |= {f"{name}_{split}": array for name, array in own.items()}
    if dataset == "wikimel":
        length = rng.integers(3, dims["A"] + 1, pool)
        out |= {
            "entity-attr-feature": entities["attr"],
            "entity-attr-mask": (np.arange(dims["A"]) < length[:, None]).astype(np.int64),
            "entity-image-feature_all": entities["image"],
            "entity-object-feature_all": entities["object"],
            "entity-object-score_all": entities["score"],
            "qid2idx": np.array([f"Q{row + 100}" for row in range(pool)]),
        }
    return out


def save_release(folder: Path, arrays: Arrays) -> Path:
    """The arrays as the authors' files."""
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        if name == "qid2idx":
            rows = {qid: row for row, qid in enumerate(array.tolist())}
            (folder / "qid2idx.json").write_text(json.dumps(rows))
        else:
            np.save(folder / f"{name}.npy", array)
    return folder


def meaning(arrays: Arrays, split: str) -> dict[str, Any]:
    """What a split's arrays mean, in float64: vertices of both sides, edges [n, 4, S], and which
    vertices there are; slots as in the release, the gold's last."""
    x = {name: arrays[f"{name}_{split}"] for name in _names(arrays)}
    n, slots = x["similarity-eimt"].shape
    out: dict[str, list[Any]] = {name: [] for name in ("mt", "mv", "et", "ev", "edges")}
    for i in range(n):
        begin, end = int(x["start-pos"][i]) + 1, int(x["end-pos"][i]) + 1
        tokens = x["mention-text-feature"][i].astype(float)
        mt = sum(tokens[begin:end]) / (end - begin) if end > begin else tokens[0]
        mv = x["mention-image-feature"][i].astype(float).mean(0)
        texts, pictures, edges = [], [], np.zeros((4, slots))
        for j in range(slots):
            et, edge_text, ev, objects, scores = _entity(arrays, x, split, i * slots + j)
            texts.append(et)
            pictures.append(ev)
            top = bottom = 0.0
            for a in range(3):
                for v, s in zip(objects, scores, strict=True):
                    weight = float(x["mention-object-score"][i, a]) * float(s)
                    top += weight * _cosine(x["mention-object-feature"][i, a, 0], v)
                    bottom += weight
            has = (mt.any(), mv.any()), (et.any(), ev.any())
            edges[:, j] = (
                _cosine(mt, edge_text) * (has[0][0] and has[1][0]),
                x["similarity-eimt"][i, j] / 100 * (has[0][0] and has[1][1]),
                x["similarity-miet"][i, j] / 100 * (has[0][1] and has[1][0]),
                top / (bottom + 1e-9) * (has[0][1] and has[1][1]),
            )
        for name, value in zip(out, (mt, mv, texts, pictures, edges), strict=True):
            out[name].append(value)
    return {name: np.array(values) for name, values in out.items()}


def _names(arrays: Arrays) -> list[str]:
    ending = f"_{SPLITS[0]}"
    return [name.removesuffix(ending) for name in arrays if name.endswith(ending)]


def _entity(arrays: Arrays, x: Arrays, split: str, row: int) -> tuple[Any, ...]:
    """Vertex and edge text, picture, objects and their scores of an entity's slot."""
    if "qid2idx" not in arrays:
        text = x["entity-attr-feature"][row].astype(float)
        parts = [x[f"entity-{name}"][row] for name in ("image-feature", "object-feature")]
        return text, text, parts[0][0], parts[1][:, 0], x["entity-object-score"][row]
    row = arrays["qid2idx"].tolist().index(x["entity-name-raw"][row])
    tokens = arrays["entity-attr-feature"][row].astype(float)
    length = int(arrays["entity-attr-mask"][row].sum())
    parts = [arrays[f"entity-{name}_all"][row] for name in ("image-feature", "object-feature")]
    scores = arrays["entity-object-score_all"][row]
    return tokens[1 : length - 1].mean(0), tokens[0], parts[0][0], parts[1][:, 0], scores


def _cosine(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(float), y.astype(float)
    return float(x @ y / (max(np.sqrt(x @ x), 1e-8) * max(np.sqrt(y @ y), 1e-8)))


def golden_files(inputs: Arrays, dataset: str) -> Arrays:
    """Golden inputs, three times, as the release's files."""
    b, slots = inputs["similarity_miet"].shape
    n, wide = b * slots, inputs["mention_image_feature"].shape[-1]
    own = {
        "mention-text-feature": inputs["mention_text_feature"],
        "mention-text-mask": inputs["mention_text_mask"],
        "start-pos": inputs["mention_start"] - 1,
        "end-pos": inputs["mention_end"] - 1,
        "mention-image-feature": inputs["mention_image_feature"],
        "mention-object-feature": inputs["mention_object_feature"],
        "mention-object-score": inputs["mention_object_score"],
        "answer": inputs["answer"],
        "similarity-miet": inputs["similarity_miet"],
        "similarity-eimt": inputs["similarity_mtei"],
        "mention-text-raw": np.array([str(i) for i in range(b)]),
        "mention-image-path": np.array([str(i) for i in range(b)]),
    }
    text = inputs["entity_text_feature"].reshape(n, *inputs["entity_text_feature"].shape[2:])
    features = {
        "entity-image-feature": inputs["entity_image_feature"].reshape(n, 1, wide),
        "entity-object-feature": inputs["entity_object_feature"].reshape(n, 1, 1, wide),
        "entity-object-score": inputs["entity_object_score"].reshape(n, 1),
    }
    rows = np.array([str(i) for i in range(n)])
    shared: Arrays = {}
    if dataset == "wikidiverse":
        own |= features | {"entity-attr-raw": rows, "entity-image-path": rows}
        own["entity-attr-feature"] = text
    else:
        own["entity-name-raw"] = rows
        shared = {f"{name}_all": array for name, array in features.items()}
        shared |= {"entity-attr-feature": text, "qid2idx": rows}
        shared["entity-attr-mask"] = inputs["entity_text_mask"].reshape(n, -1)
    return shared | {f"{name}_{split}": array for split in SPLITS for name, array in own.items()}
