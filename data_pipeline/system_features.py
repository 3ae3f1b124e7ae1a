"""What some systems read of a mention beside its vertex features: tokens, regions, characters."""

from collections.abc import Collection
from itertools import repeat

import numpy as np

from data_pipeline import schema
from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store

NAMES = ("mention_surface", "entity_name")
FLAGS = {"tokens": "--config.encoders.tokens=True", "regions": "--config.encoders.regions=True"}


def check(store: Store, needs: Collection[str]) -> None:
    """UserError, with the command that adds it, where the store lacks what is needed."""
    for need in needs:
        if need not in schema.NEEDS:
            raise UserError(f"{need!r} is nothing a system can need; known are {schema.NEEDS}")
    if lacking := store.lacks(needs):
        flags = " ".join(FLAGS[need] for need in lacking)
        raise UserError(
            f"{store.path}: holds no {' and no '.join(lacking)} of the mentions, which this system "
            f"needs; python -m drin_jax.extract with the same --config and --workdir and {flags} "
            "adds them"
        )


class SystemFeatures:
    """Looks up what the systems of these needs read, for rows of the mention and entity tables.

    Raises:
        UserError: the store lacks some of it.
    """

    def __init__(self, store: Store, needs: Collection[str]):
        check(store, needs)

        def table(name: str) -> np.ndarray:
            return store.array(name).view(np.ndarray)

        self.needs = tuple(needs)
        if "tokens" in needs:
            self._tokens, self._offsets = table("mention_tokens"), table("mention_token_offsets")
            self._spans = table("mention_span")
            self.longest = longest(store)
        if "regions" in needs:
            self._regions, self._region = table("mention_regions"), table("mention_region_row")
        if "characters" in needs:
            self._mention_names = characters(store, "mention_surface")
            self._entity_names = characters(store, "entity_name")

    def of(
        self, mention: np.ndarray, candidates: np.ndarray, mask: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Arrays as in `schema.batch_shapes`, zeros where `mask` [b] is False.

        Args:
            mention: [b] rows of the mention table.
            candidates: [b, r] rows of the entity table, PADDING where there is none.
        """
        out: dict[str, np.ndarray] = {}
        if "tokens" in self.needs:
            begin, count = self._offsets[mention], np.diff(self._offsets)[mention]
            at = np.arange(self.longest)
            there = (at < count[:, None]) & mask[:, None]
            tokens = np.take(self._tokens, begin[:, None] + at, axis=0, mode="clip")
            tokens[~there] = 0
            out["mention_tokens"], out["mention_token_mask"] = tokens, there
            out["mention_span"] = np.where(mask[:, None], self._spans[mention], 0)
        if "regions" in self.needs:
            rows = self._region[mention]
            shape = (len(rows), *self._regions.shape[1:])
            regions = np.zeros(shape, np.float32)
            seen = mask & (rows >= 0)
            regions[seen] = self._regions[rows[seen]]
            out["mention_regions"] = regions
        if "characters" in self.needs:
            known = (candidates != schema.PADDING)[..., None]
            out["mention_characters"] = np.where(mask[:, None], self._mention_names[mention], 0)
            out["entity_characters"] = np.where(
                known, self._entity_names[np.maximum(candidates, 0)], 0
            )
        return out


def _longest(store: Store, table: str) -> int:
    return int(np.diff(np.asarray(store.array(f"{table}_offsets"))).max(initial=1))


def longest(store: Store) -> int:
    """Tokens of the store's longest mention text."""
    return _longest(store, "mention_token")


def characters(store: Store, table: str) -> np.ndarray:
    """A table of names as [n, c] int32: UTF-8 bytes plus 1, 0 where there is none. c is the length
    of the longest name on either side, or CHARACTERS where that is less."""
    offsets = np.asarray(store.array(f"{table}_offsets"))
    content = np.append(np.asarray(store.array(f"{table}_bytes")), np.uint8(0))
    at = np.arange(min(max(map(_longest, repeat(store), NAMES)), schema.CHARACTERS))
    there = at < np.diff(offsets)[:, None]
    rows = np.minimum(offsets[:-1, None] + at, len(content) - 1)
    return np.where(there, content[rows].astype(np.int32) + 1, 0)
