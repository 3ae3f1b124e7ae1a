"""The authors' preprocessed release -> feature store, with bounded memory, at the disk's speed.

The release holds token and region sequences (the authors ask for 100 GB of memory for it). Each is
reduced to the vertex that upstream makes of it, entities are kept once, and the gold slot of every
mention leaves the candidates: its edges go to `gold_edges`, which only the leaking protocol reads.
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline import schema, splits
from data_pipeline.arrays.array_file import watch
from data_pipeline.release import inventory, upstream_features, vertices
from data_pipeline.release.inventory import WIKIMEL, Release
from data_pipeline.release.vertices import CHUNK, Entities, find_entities
from data_pipeline.schema import SPLITS, Entity, Mention, UserError
from data_pipeline.store import split_arrays
from data_pipeline.store.reader import Store
from data_pipeline.store.split_arrays import offsets_of
from data_pipeline.store.writer import StoreWriter

TOKENS_PER_SHARD, PICTURES_PER_SHARD = 4096, 64
_NO_PATH = ("", "None", "nan")  # a missing path, as NumPy writes it among strings
_KINDS = {"t": "text", "v": "image"}  # of the ends of schema.RELATIONS


def check(root: str | Path) -> list[str]:
    """Everything that is wrong with the release at `root`, a line each; reads no features."""
    problems: list[str] = []
    try:
        release, problems = inventory.inspect(root)
        if problems:
            return problems
        last = release.sizes["S"] - 1
        for split in SPLITS:
            answer = release.rows(f"answer_{split}")
            wrong = np.flatnonzero((answer < 0) | (answer > last))
            if len(wrong):
                problems.append(
                    f"{release.path(f'answer_{split}')}: row {wrong[0]} holds {answer[wrong[0]]}; "
                    f"allowed are 0 to {last}"
                )
        if release.dataset == WIKIMEL:
            find_entities(release)
    except UserError as error:
        return [*problems, str(error)]
    return problems


def write(root: str | Path, writer: StoreWriter, *, name: str) -> dict[str, Any]:
    """Makes the store of a release, going on with what a killed import left.

    Args:
        root: the wikidiverse or wikimel folder, or the one that holds one of them.
        writer: made with the `fingerprint` of `root` among its settings.
        name: of the data set, for reports.

    Returns:
        the report that is kept in the store: `release` (which form), `counts`, `notes`.

    Raises:
        UserError: files are missing, cut, of another shape or type, or contradict each other.
    """
    if problems := check(root):
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise UserError(problems[0] + more)
    release, _ = inventory.inspect(root)
    entities = find_entities(release)
    counts = dict(entities.counts) | {"entities": len(entities.ids)}
    known = zip(entities.ids, entities.names, strict=True)
    rows = [Entity(identifier, named, "") for identifier, named in known]
    writer.build_kb(
        rows, lambda segment, _: vertices.write_entities(segment, release, entities), name=name
    )
    vertices.write_mentions(writer, release)
    has = {
        f"{side}_has_{kind}": np.asarray(writer.array(f"{side}_has_{kind}"))
        for side in ("entity", "mention")
        for kind in ("text", "image")
    }
    mentions = list(_mentions(release, entities))
    # A picture that gave no features is no picture: it cannot be shared either.
    mentions = splits.mark_clean(
        [
            mention if has["mention_has_image"][i] else dataclasses.replace(mention, image=None)
            for i, mention in enumerate(mentions)
        ]
    )
    writer.write_strings("mention_id", [mention.id for mention in mentions])
    writer.write_strings("mention_surface", ["" for _ in mentions])
    groups, bits = split_arrays.groups(mentions)
    counts["gold slots that differ from their candidate"] = 0
    for split in SPLITS:
        own = [mention.split == split for mention in mentions]
        writer.write(f"{split}_groups", bits[own])
        differing = _write_slots(writer, release, entities, split)
        counts["gold slots that differ from their candidate"] += differing
        _write_edges(writer, release, entities, split, has)
        counts[split] = sum(own)
    counts |= {
        "mentions": len(mentions),
        "span_not_found": sum(mention.start is None for mention in mentions),
        "clean_test": sum(mention.split == "test" and mention.clean for mention in mentions),
        **{f"without {key}": int((~flags).sum()) for key, flags in has.items()},
    }
    names = "QIDs" if release.dataset == WIKIMEL else "texts"
    notes = [
        "a row of zeros is a missing text or picture",
        "a mention without a span is represented by CLS",
        f"entities are named by their {names}; mentions have no surface forms",
        "candidates score by their order; CLIP vectors are not in the release, its cosines are",
    ]
    report = {"release": release.dataset, "counts": counts, "notes": notes}
    writer.finish(name, groups, report)
    return report


def _mentions(release: Release, entities: Entities) -> Iterator[Mention]:
    """What is known of the mentions but their features."""
    for split in SPLITS:
        golds = _gold_entities(release, entities, split)
        start, end = (release.rows(f"{side}-pos_{split}") for side in ("start", "end"))
        lost = upstream_features.lost_spans(start, end, release.sizes["L"])
        texts = release.rows(f"mention-text-raw_{split}").tolist()
        paths = release.rows(f"mention-image-path_{split}").tolist()
        for i, (text, path) in enumerate(zip(texts, paths, strict=True)):
            place = None if lost[i] else 0
            yield Mention(
                id=f"{split}/{i}",
                text=text,
                name="",
                start=place,
                end=place,
                split=split,
                sample=f"{split}/{i}",
                gold=entities.ids[golds[i]],
                image=None if path in _NO_PATH else path,
            )


def _gold_entities(release: Release, entities: Entities, split: str) -> np.ndarray:
    """Row of each mention's gold: its candidate's, else the gold slot's (answer r)."""
    slots = entities.slots[split]
    return slots[np.arange(len(slots)), release.rows(f"answer_{split}")]


def _write_slots(writer: StoreWriter, release: Release, entities: Entities, split: str) -> int:
    """Writes candidates and golds; returns how many gold slots differ from their candidate."""
    begin = release.begins[split]
    slots = entities.slots[split]
    n, r = len(slots), slots.shape[1] - 1
    answer = release.rows(f"answer_{split}").astype(np.int32)
    found = answer < r
    golds = _gold_entities(release, entities, split)
    arrays = {
        "mention": np.arange(begin, begin + n, dtype=np.int32),
        "candidates": slots[:, :r],
        "retrieval_score": np.tile(np.arange(r, 0, -1, dtype=np.float32), (n, 1)),
        "gold": np.where(found, answer, np.int32(schema.NOT_RETRIEVED)),
        "gold_entity": golds,
    }
    for name, array in arrays.items():
        writer.write(f"{split}_{name}", array)
    return int((found & (golds != slots[:, r])).sum())


def _write_edges(
    writer: StoreWriter,
    release: Release,
    entities: Entities,
    split: str,
    has: Mapping[str, np.ndarray],
) -> None:
    """Writes `edges` of the candidates and `gold_edges` of the gold slot; `has`: the flags."""
    if writer.has(f"{split}_edges") and writer.has(f"{split}_gold_edges"):
        return
    slots, begin = entities.slots[split], release.begins[split]
    mention_text, entity_text, objects, entity_objects = (
        writer.array(name).view(np.ndarray)
        for name in ("mention_text", "entity_text_edge", "mention_objects", "entity_objects")
    )
    weight = release.rows(f"mention-object-score_{split}").sum(1)
    eimt, miet = (release.rows(f"similarity-{way}_{split}") for way in ("eimt", "miet"))
    for way, values in (("eimt", eimt), ("miet", miet)):
        if not (finite := np.isfinite(values).all(1)).all():
            where = release.path(f"similarity-{way}_{split}")
            raise UserError(f"{where}: row {int(np.argmin(finite))} is not finite; copy it again")
    out = np.empty((len(slots), 4, slots.shape[1]), np.float32)
    row_bytes = 4 * slots.shape[1] * (release.sizes["t"] + release.sizes["o"])
    step = max(1, CHUNK // row_bytes)
    with watch(f"edges of {split}", row_bytes * len(slots)) as bar:
        for at in range(0, len(slots), step):
            part = slice(at, min(at + step, len(slots)))
            own = slice(begin + part.start, begin + part.stop)
            chosen = slots[part]
            made = upstream_features.edges(
                mention_text[own],
                entity_text[chosen],
                (eimt[part], miet[part]),
                objects[own],
                entity_objects[chosen],
                weight[part, None] * entities.weight[chosen],
            )
            for i, relation in enumerate(schema.RELATIONS):
                mine = has[f"mention_has_{_KINDS[relation[0]]}"][own, None]
                made[:, i] *= mine & has[f"entity_has_{_KINDS[relation[1]]}"][chosen]
            out[part] = made
            bar.advance(row_bytes * len(chosen))
    writer.write(f"{split}_edges", out[:, :, :-1])
    writer.write(f"{split}_gold_edges", out[:, :, -1])


def write_sequences(
    root: str | Path, store: Store, extension: StoreWriter, needs: Collection[str]
) -> None:
    """Writes the arrays of `needs`, "tokens" and "regions", of the release's mentions, streamed.

    Padding behind a text is left out; a span that the release lost is CLS.
    """
    release, _ = inventory.inspect(root)
    if "tokens" in needs:
        _write_tokens(release, extension)
    if "regions" in needs:
        _write_regions(release, store, extension)


def _of_splits(release: Release, name: str) -> np.ndarray:
    return np.concatenate([release.rows(f"{name}_{split}") for split in SPLITS])


def _sequences(release: Release, name: str) -> tuple[list[np.ndarray], int]:
    """That of each mention, still on disk, and the bytes of all."""
    names = [f"{name}_{split}" for split in SPLITS]
    return [row for name in names for row in release.mapped(name)], release.nbytes(*names)


def _write_tokens(release: Release, extension: StoreWriter) -> None:
    counts = _of_splits(release, "mention-text-mask").astype(bool).sum(1)
    kept = np.clip(counts, 1, schema.MAX_TOKENS)
    offsets = offsets_of(kept)
    # Stored without CLS, which comes first (MATH.md, section 1).
    span = np.stack([_of_splits(release, f"{end}-pos") for end in ("start", "end")], 1) + 1
    lost = (span[:, 0] < 1) | (span[:, 0] >= span[:, 1]) | (span[:, 1] > kept)
    span[lost] = 0, 1
    extension.write("mention_token_offsets", offsets)
    extension.write("mention_span", span.astype(np.int32))
    shape = (int(offsets[-1]), release.sizes["t"])
    table = extension.shards("mention_tokens", shape, "float32", TOKENS_PER_SHARD)
    texts, size = _sequences(release, "mention-text-feature")
    with watch("reading the mentions' tokens", size) as bar:
        for shard in table.missing():
            low, high = shard * TOKENS_PER_SHARD, min((shard + 1) * TOKENS_PER_SHARD, shape[0])
            first = int(np.searchsorted(offsets, low, "right")) - 1
            last = int(np.searchsorted(offsets, high, "left"))
            parts = [texts[i][: kept[i]] for i in range(first, last)]
            joined = np.concatenate(parts).astype(np.float32, copy=False)
            begin = low - int(offsets[first])
            table.write(shard, joined[begin : begin + high - low])
            bar.advance(joined.nbytes)
    table.finish()


def _write_regions(release: Release, store: Store, extension: StoreWriter) -> None:
    has = np.asarray(store.array("mention_has_image"))
    row = np.where(has, np.cumsum(has) - 1, schema.PADDING)
    extension.write("mention_region_row", row.astype(np.int32))
    pictures, size = _sequences(release, "mention-image-feature")
    shown = np.flatnonzero(has)
    shape = (len(shown), *pictures[0].shape)
    table = extension.shards("mention_regions", shape, "float32", PICTURES_PER_SHARD)
    with watch("reading the mentions' regions", size) as bar:
        for shard in table.missing():
            own = shown[shard * PICTURES_PER_SHARD : (shard + 1) * PICTURES_PER_SHARD]
            joined = np.stack([pictures[i] for i in own]).astype(np.float32, copy=False)
            table.write(shard, joined)
            bar.advance(joined.nbytes)
    table.finish()
