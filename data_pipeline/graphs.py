"""From rows of a split to a host batch: features, edges, masks and gold of each mention's graph."""

from collections.abc import Collection

import numpy as np

from data_pipeline import schema
from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from data_pipeline.system_features import SystemFeatures

Batch = dict[str, np.ndarray]


class GraphTables:
    """Looks batches of a split up in an open store.

    Args:
        store: an open store.
        split: "train", "valid" or "test".
        r: candidates in the graph, the first of those retrieved; 0: all.
        gold_slot: append the gold entity as slot r of every graph (the leaking protocol); a mention
            without a gold entity has padding there. `gold` indexes the first r slots all the same.
        needs: of `schema.NEEDS`, what the batch holds beside the vertex features.

    Raises:
        UserError: the split is unknown or empty, or the store holds fewer candidates than r or
            lacks what is needed.
    """

    def __init__(
        self,
        store: Store,
        split: str,
        *,
        r: int = 0,
        gold_slot: bool = False,
        needs: Collection[str] = (),
    ):
        self.mentions = store.check_split(split)
        if not 0 <= r <= store.sizes["r"]:
            raise UserError(
                f"graph.r is {r}, but {store.path} holds {store.sizes['r']} candidates of a mention"
            )
        self.r = r or store.sizes["r"]
        self.gold_slot = gold_slot
        self._extra = SystemFeatures(store, needs)

        # Plain views: a memmap pays for its class at each look-up.
        def table(name: str) -> np.ndarray:
            return store.array(name).view(np.ndarray)

        self._entity = {
            name: table(f"entity_{name}") for name in ("text", "image", "has_text", "has_image")
        }
        self._mention = {
            name: table(f"mention_{name}") for name in ("text", "image", "has_text", "has_image")
        }
        self._split = {name: table(f"{split}_{name}") for name in schema.SPLIT_ARRAYS}

    @property
    def slots(self) -> int:
        """Candidate slots of a batch's arrays: r, and one more with `gold_slot`."""
        return self.r + int(self.gold_slot)

    def batch(self, rows: np.ndarray) -> Batch:
        """The batch of these rows of the split; a row below 0 is padding.

        Args:
            rows: [b] integers.

        Returns:
            C-contiguous arrays of the names, shapes and dtypes of `schema.batch_shapes`, with
            `slots` candidates. Where a mask is False the features and edges are zero.
        """
        mask = rows >= 0
        rows = np.maximum(rows, 0)
        candidates = self._split["candidates"][rows, : self.r]
        edges = self._split["edges"][rows, :, : self.r]
        if self.gold_slot:
            golds = np.maximum(self._split["gold_entity"][rows], schema.PADDING)
            candidates = np.concatenate([candidates, golds[:, None]], axis=1)
            edges = np.concatenate([edges, self._split["gold_edges"][rows][:, :, None]], axis=2)
        gold = self._split["gold"][rows]
        mention = self._split["mention"][rows]
        candidate_mask = (candidates != schema.PADDING) & mask[:, None]
        edges = np.where(candidate_mask[:, None], edges, np.float32(0))
        return {
            **_look_up(self._mention, "mention", mention, mask),
            **_look_up(self._entity, "entity", candidates, candidate_mask),
            **self._extra.of(mention, np.where(mask[:, None], candidates, schema.PADDING), mask),
            "edges": np.ascontiguousarray(edges, np.float32),
            "candidate_mask": candidate_mask,
            "gold": np.where(mask & (gold < self.r), gold, schema.NOT_RETRIEVED).astype(np.int32),
            "mask": mask,
        }


def _look_up(tables: Batch, side: str, rows: np.ndarray, there: np.ndarray) -> Batch:
    """Features of one side's vertices and whether they exist; zero where they do not."""
    out = {}
    for kind in ("text", "image"):
        # "clip" reads row 0 for padding, which is put to zero just below.
        has = np.take(tables[f"has_{kind}"], rows, axis=0, mode="clip") & there
        features = np.take(tables[kind], rows, axis=0, mode="clip")
        features[~has] = 0
        out[f"{side}_{kind}"] = features
        out[f"{side}_has_{kind}"] = has
    return out
