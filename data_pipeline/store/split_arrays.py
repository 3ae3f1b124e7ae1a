"""What a split's arrays say of its mentions: golds, groups, and the text edge."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from data_pipeline import schema
from data_pipeline.schema import Mention

Key = TypeVar("Key", bound=Hashable)


def golds(
    mentions: Sequence[Mention], rows: Mapping[str, int], candidates: np.ndarray
) -> dict[str, np.ndarray]:
    """`gold_entity` and `gold`, [n] int32, as `schema.SPLIT_ARRAYS` has them.

    Args:
        rows: entity id -> row of the entity table.
        candidates: [n, r] rows of the entity table.
    """
    entity = np.array(
        [schema.NIL if m.gold is None else rows.get(m.gold, schema.OUTSIDE_KB) for m in mentions],
        np.int32,
    )
    is_gold = (candidates == entity[:, None]) & (entity >= 0)[:, None]
    slot = np.where(is_gold.any(1), is_gold.argmax(1), schema.NOT_RETRIEVED)
    return {"gold_entity": entity, "gold": slot.astype(np.int32)}


def groups(mentions: Sequence[Mention]) -> tuple[list[str], np.ndarray]:
    """Names of the groups that results are reported by, in the order of their bits, and the groups
    of each of the data set's mentions, [n] uint32."""
    kinds = sorted({f"kind:{mention.kind}" for mention in mentions if mention.kind})
    names = [schema.GROUP_CLEAN, schema.GROUP_UNSEEN, schema.GROUP_NO_SPAN, *kinds]
    known = {mention.gold for mention in mentions if mention.split == "train"}
    bits = np.zeros(len(mentions), np.uint32)
    for i, mention in enumerate(mentions):
        belongs = {
            schema.GROUP_CLEAN: mention.clean,
            schema.GROUP_UNSEEN: mention.gold is not None and mention.gold not in known,
            schema.GROUP_NO_SPAN: mention.start is None,
            f"kind:{mention.kind}": True,
        }
        bits[i] = sum(1 << j for j, name in enumerate(names) if belongs.get(name, False))
    return names, bits


def offsets_of(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """[n+1] int64: where each of n runs of rows begins, and the end."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def distinct(keys: Iterable[Key | None]) -> tuple[list[Key], np.ndarray]:
    """The keys without repetition, in order of appearance, and the number [n] int64 of each in
    them, PADDING for None."""
    number: dict[Key, int] = {}
    rows = [schema.PADDING if k is None else number.setdefault(k, len(number)) for k in keys]
    return list(number), np.array(rows, np.int64)


def unit(x: np.ndarray, eps: float = 1e-8) -> np.ndarray:
    """Vectors at length 1 along the last axis; norms are at least `eps` (MATH: cosines)."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), eps)


def cosine(x: np.ndarray, y: np.ndarray, eps: float = 1e-8) -> np.ndarray:
    """Cosine over the last axis; norms are at least `eps` (R_tt, [6])."""
    dots = np.einsum("...d,...d->...", x, y)
    norms = [np.maximum(np.sqrt(np.einsum("...d,...d->...", a, a)), eps) for a in (x, y)]
    return dots / (norms[0] * norms[1])
