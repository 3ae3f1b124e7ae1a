"""Tokens and regions of the mentions from the authors' release, streamed into a store."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from data_pipeline import schema
from data_pipeline.release import inventory
from data_pipeline.release.inventory import Release
from data_pipeline.store.arrays import watch
from data_pipeline.store.reader import Store
from data_pipeline.store.split_arrays import offsets_of
from data_pipeline.store.writer import StoreWriter

ROWS = 64  # mentions read at once


def write(root: str | Path, store: Store, extension: StoreWriter, needs: Collection[str]) -> None:
    """Writes the arrays of `needs`, "tokens" and "regions", of the release at `root`.

    Padding behind a text is left out; a span that the release lost is CLS.
    """
    release, _ = inventory.inspect(root)
    if "tokens" in needs:
        _tokens(release, extension)
    if "regions" in needs:
        _regions(release, store, extension)


def _of_splits(release: Release, name: str) -> np.ndarray:
    return np.concatenate([release.rows(f"{name}_{split}") for split in schema.SPLITS])


def _tokens(release: Release, extension: StoreWriter) -> None:
    sizes = release.sizes
    counts = _of_splits(release, "mention-text-mask").astype(bool).sum(1)
    kept = np.clip(counts, 1, schema.MAX_TOKENS)
    offsets = offsets_of(kept)
    # Stored without CLS, which comes first (MATH.md, section 1).
    span = np.stack([_of_splits(release, f"{end}-pos") for end in ("start", "end")], 1) + 1
    lost = (span[:, 0] < 1) | (span[:, 0] >= span[:, 1]) | (span[:, 1] > kept)
    span[lost] = 0, 1
    extension.write("mention_token_offsets", offsets)
    extension.write("mention_span", span.astype(np.int32))
    table = extension.shards("mention_tokens", (int(offsets[-1]), sizes["t"]), "float32", ROWS * 64)
    names = [f"mention-text-feature_{split}" for split in schema.SPLITS]
    mentions = [row for name in names for row in release.mapped(name)]
    with watch("reading the mentions' tokens", release.nbytes(*names)) as advance:
        for shard in table.missing():
            low, high = shard * ROWS * 64, min((shard + 1) * ROWS * 64, int(offsets[-1]))
            first = int(np.searchsorted(offsets, low, "right")) - 1
            last = int(np.searchsorted(offsets, high, "left"))
            parts = [mentions[i][: kept[i]] for i in range(first, last)]
            joined = np.concatenate(parts).astype(np.float32, copy=False)
            begin = low - int(offsets[first])
            table.write(shard, joined[begin : begin + high - low])
            advance(joined.nbytes)
    table.finish()


def _regions(release: Release, store: Store, extension: StoreWriter) -> None:
    has = np.asarray(store.array("mention_has_image"))
    extension.write(
        "mention_region_row", np.where(has, np.cumsum(has) - 1, schema.PADDING).astype(np.int32)
    )
    names = [f"mention-image-feature_{split}" for split in schema.SPLITS]
    shape = release.headers[names[0]].shape[1:]
    table = extension.shards("mention_regions", (int(has.sum()), *shape), "float32", ROWS)
    mentions = [row for name in names for row in release.mapped(name)]
    shown = np.flatnonzero(has)
    with watch("reading the mentions' regions", release.nbytes(*names)) as advance:
        for shard in table.missing():
            own = shown[shard * ROWS : (shard + 1) * ROWS]
            joined = np.stack([mentions[i] for i in own]).astype(np.float32, copy=False)
            table.write(shard, joined)
            advance(joined.nbytes)
    table.finish()
