"""Reference files in the form of `tests/golden`, made by the independent PyTorch model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.torch_drin import TorchDRIN, upstream_loss
from drin_jax.parity import torch_weights

Arrays = dict[str, np.ndarray]
DIMS = {"bert": 10, "resnet": 12, "gcn": 8}
MARGIN, LEARNING_RATE = 0.25, 1e-3
VERTICES, EDGES = ("mt", "mi", "et", "ei"), ("tt", "ti", "it", "ii")


def release_arrays(rng: np.random.Generator, dataset: str, b: int, r: int) -> Arrays:
    """Random inputs in the form of the authors' release; the last mention lacks its gold."""
    t, v, k, length, slots = DIMS["bert"], DIMS["resnet"], 3, 6, r + 1

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    x = {
        "mention_text_feature": normal(b, length, t),
        "mention_start": rng.integers(1, 3, b),
        "mention_end": rng.integers(3, length, b),
        "mention_image_feature": normal(b, 49, v),
        "mention_object_feature": normal(b, k, 1, v),
        "mention_object_score": rng.random((b, k), dtype=np.float32),
        "entity_image_feature": normal(b, slots, 1, v),
        "entity_object_feature": normal(b, slots, 1, 1, v),
        "entity_object_score": rng.random((b, slots, 1), dtype=np.float32),
        "similarity_mtei": 100 * np.tanh(normal(b, slots)),
        "similarity_miet": 100 * np.tanh(normal(b, slots)),
        "answer": np.append(rng.integers(0, r, b - 1), r),
    }
    if dataset == "wikimel":
        x["entity_text_feature"] = normal(b, slots, 5, t)
        lengths = rng.integers(3, 6, (b, slots, 1))
        x["entity_text_mask"] = (np.arange(5) < lengths).astype(np.int64)
    else:
        x["entity_text_feature"] = normal(b, slots, t)
    return x


def graph_of(x: Arrays) -> dict[str, torch.Tensor]:
    """The model's inputs, written out mention by mention, candidate by candidate."""
    b, slots = x["similarity_mtei"].shape
    mention_text = np.zeros((b, DIMS["bert"]), np.float32)
    entity_text = np.zeros((b, slots, DIMS["bert"]), np.float32)
    edges = np.zeros((b, 4, slots), np.float32)
    for i in range(b):
        span = x["mention_text_feature"][i, x["mention_start"][i] : x["mention_end"][i]]
        mention_text[i] = span.mean(0)
        for j in range(slots):
            whole = edge = x["entity_text_feature"][i, j]
            if "entity_text_mask" in x:
                tokens = x["entity_text_feature"][i, j, : x["entity_text_mask"][i, j].sum()]
                whole, edge = tokens[1:-1].mean(0), tokens[0]
            entity_text[i, j] = whole
            theirs = x["entity_object_feature"][i, j].reshape(-1)
            scores = x["mention_object_score"][i] * x["entity_object_score"][i, j, 0]
            similar = [cosine(ours.reshape(-1), theirs) for ours in x["mention_object_feature"][i]]
            edges[i, :, j] = (
                cosine(mention_text[i], edge),
                x["similarity_mtei"][i, j] / 100,
                x["similarity_miet"][i, j] / 100,
                np.dot(scores, similar) / (scores.sum() + 1e-9),
            )
    arrays = {
        "mention_text": mention_text,
        "mention_image": x["mention_image_feature"].mean(1),
        "entity_text": entity_text,
        "entity_image": x["entity_image_feature"].reshape(b, slots, -1),
        "edges": edges,
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def make_reference(
    path: Path,
    *,
    dataset: str = "wikidiverse",
    layers: int = 2,
    b: int = 3,
    r: int = 4,
    enabled: tuple[int, int, int, int] = (1, 1, 1, 1),
    dynamic: bool = True,
) -> Path:
    """Write a reference file of a random model; see `tests/golden/README.md`."""
    rng = np.random.default_rng(layers + 10 * r)
    torch.manual_seed(layers)
    x = release_arrays(rng, dataset, b, r)
    graph = graph_of(x)
    gold = torch.from_numpy(np.where(x["answer"] < r, x["answer"], -1))
    model = TorchDRIN(DIMS["bert"], DIMS["resnet"], DIMS["gcn"], layers, dynamic)
    out: dict[str, Any] = {f"in/{name}": array for name, array in x.items()}
    out |= {f"w/{name}": array for name, array in model.under_torch_names().items()}

    def loss_and_scores() -> tuple[torch.Tensor, torch.Tensor]:
        scores = model(graph, enabled)
        return upstream_loss(scores[:, :r], gold, MARGIN), scores

    loss, scores = loss_and_scores()
    loss.backward()
    out |= {f"grad/{n}": a for n, a in model.under_torch_names(gradients=True).items()}
    out |= {"out/score": scores, "out/loss": loss}
    for place, layer in (("0", 0), ("L", -1)):
        out |= {f"vertex{place}/{n}": model.vertices[layer][i] for i, n in enumerate(VERTICES)}
        edges = model.edges[layer].reshape(b, 4, r + 1)
        out |= {f"edge{place}/{name}": edges[:, i] for i, name in enumerate(EDGES)}
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss, _ = loss_and_scores()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    out |= {
        "out/adam_losses": np.array(losses, np.float32),
        "out/score_after_adam": loss_and_scores()[1],
    }
    meta = {"dataset": dataset, "num_candidates": r, "batch": b, "seed": 0, "dims": DIMS}
    meta |= {"margin": MARGIN, "lr": LEARNING_RATE, "layers": layers, "enabled": enabled}
    meta["edge_type"] = "dynamic" if dynamic else "static"
    arrays: dict[str, Any] = {
        name: value.detach().numpy() if torch.is_tensor(value) else value
        for name, value in out.items()
    }
    np.savez(path, meta=json.dumps(meta), **arrays)
    return path


def torch_model(arrays: Arrays, meta: dict[str, Any], each_edge: bool = False) -> TorchDRIN:
    """The PyTorch model of a golden file, with the file's parameters."""
    dims = meta["dims"]
    dynamic = meta.get("edge_type", "dynamic") == "dynamic"
    widths = dims["bert"], dims["resnet"], dims["gcn"]
    model = TorchDRIN(*widths, meta.get("layers", 2), dynamic, each_edge)
    model.load({n.removeprefix("w/"): a for n, a in arrays.items() if n.startswith("w/")})
    return model


def golden_graph(arrays: Arrays, meta: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A golden file's inputs as the PyTorch model takes them."""
    inputs = {n.removeprefix("in/"): a for n, a in arrays.items() if n.startswith("in/")}
    batch = torch_weights.from_release(inputs, meta["dataset"])
    names = ("mention_text", "mention_image", "entity_text", "entity_image", "edges")
    return {name: torch.from_numpy(np.array(getattr(batch, name))) for name in names}
