"""Stage one by everything that finds an entity: the best of several stages, in one untrained order.

    names    the mention's surface form, among names and aliases
    forms    the fullest form in which its text names it (`retrieval.forms`), among the same
    words    the words of its text, among descriptions
    vectors  its frozen vector, among the entities' (where the knowledge base has them)

What any of them finds is scored by all that can be said of a pair,

    score(m, e) = 3 cos(m, e) + name(surface, e) + name(form, e) + words(m, e) / 2 + early(m, e)
    name(q, e) = (BM25(q, e) / max_e' BM25(q, e') + WRatio(q, e) / 100) / 2
    words(m, e) = BM25(m, e) / max_e' BM25(m, e')
    early(m, e) = max over stages of 2 / (1 + rank(m, e) / 20)

Ranks begin with 0. BM25 and early are 0 for what a stage did not find, WRatio is the best of an
entity's names. Nothing of it is trained and nothing reads a gold; weights and pools were chosen
once, on WikiMEL's valid split, and early on its train and valid.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
from rapidfuzz.utils import default_process

from data_pipeline.kb.folded_names import bare
from data_pipeline.kb.knowledge_base import Finder, Found, KnowledgeBase
from data_pipeline.output import Progress
from data_pipeline.retrieval.forms import fullest
from data_pipeline.retrieval.names import likeness
from data_pipeline.schema import PADDING, STAGES, Mention, UserError

# Stage -> entities that it finds, and what it counts.
POOLS = dict(zip(STAGES, (100, 100, 50, 50), strict=True))
WEIGHTS = {"names": 1.0, "forms": 1.0, "words": 0.5, "vectors": 3.0}
EARLY, HALVED = 2.0, 20  # what the first of a stage counts more, and the rank of half of it
Among = Sequence[np.ndarray | None]  # of each mention, the rows that it may mean; None: any
BLOCK = 512  # mentions scored at once
QUIET_MENTIONS = 5_000


@dataclasses.dataclass(frozen=True)
class Candidates:
    """The union's candidates of N mentions, best first; r of each.

    Attributes:
        rows: [N,r] int32, PADDING behind the last.
        scores: [N,r] float32, falling, 0 at padding.
        ranks: [N,r,4] int32: place in each of STAGES from 0, PADDING where it did not find it.
        evidence: [N,r,4] float32: score by each of STAGES, before its weight.
    """

    rows: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    evidence: np.ndarray


@dataclasses.dataclass(frozen=True)
class Vectors:
    """What vectors find: `nearest` [N,p] rows, best first, PADDING for none, and the `cosine` [n]
    of pairs of a mention's number [n] and a row [n]."""

    nearest: np.ndarray
    cosine: Callable[[np.ndarray, np.ndarray], np.ndarray]


def by_union(
    kb: KnowledgeBase,
    index: Finder,
    mentions: Sequence[Mention],
    r: int,
    vectors: Vectors | None = None,
    among: Among = (),
) -> Candidates:
    """The r best entities of each mention by the sum above; ties in the order of the rows.

    Args:
        among: rows [k] that a mention's candidates are, found by a stage or not; empty: nobody
            says so of any.

    Raises:
        UserError: r < 1.
    """
    if r < 1:
        raise UserError(f"retrieval.r = {r} must be at least 1")
    n, stages = len(mentions), len(STAGES)
    out = Candidates(
        rows=np.full((n, r), PADDING, np.int32),
        scores=np.zeros((n, r), np.float32),
        ranks=np.full((n, r, stages), PADDING, np.int32),
        evidence=np.zeros((n, r, stages), np.float32),
    )
    with Progress("candidates", n, unit="mentions", loud=n > QUIET_MENTIONS) as bar:
        for begin in range(0, n, BLOCK):
            block = range(begin, min(begin + BLOCK, n))
            _score(out, block, mentions, kb, index, vectors, among)
            bar.advance(len(block))
    return out


def _score(
    out: Candidates,
    block: range,
    mentions: Sequence[Mention],
    kb: KnowledgeBase,
    index: Finder,
    vectors: Vectors | None,
    among: Among,
) -> None:
    """Fills the rows of a block."""
    queries, pools = [], []
    names = functools.cache(index.names)  # many mentions are their own fullest form
    for i in block:
        own = mentions[i]
        form = fullest(own.text, own.name, own.start, index.knows)
        found = [
            names(own.name, POOLS["names"]),
            names(form, POOLS["forms"]),
            index.words(own.text, POOLS["words"]),
        ]
        if vectors is not None:
            near = vectors.nearest[i]
            found.append((near[near != PADDING].astype(np.int64), np.zeros(0, np.float32)))
        queries.append((own.name, form))
        pools.append(_pool(found, among[i] if among else None))
    sizes = [len(rows) for rows, _, _ in pools]
    owner = np.repeat(np.arange(len(block)), sizes)
    rows, ranks, values = (np.concatenate([pool[j] for pool in pools]) for j in range(3))
    values[:, :2] = (values[:, :2] + best_ratios(kb, queries, owner, rows)) / 2
    if vectors is not None:
        values[:, 3] = vectors.cosine(block.start + owner, rows)
    early = np.where(ranks == PADDING, 0, EARLY / (1 + ranks / HALVED)).max(axis=1)
    scores = values @ np.array([*WEIGHTS.values()], np.float32) + early.astype(np.float32)
    order = np.lexsort((rows, -scores, owner))
    place = np.arange(len(rows)) - np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    kept = place < out.rows.shape[1]
    order, at = order[kept], (block.start + owner[kept], place[kept])
    out.rows[at], out.scores[at] = rows[order], scores[order]
    out.ranks[at], out.evidence[at] = ranks[order], values[order]


def _pool(
    found: Sequence[Found], wanted: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows [k] that any stage found, or those that are wanted, their places in each [k,4], and
    their scores by each of those that have any, relative to the best [k,4]."""
    rows = np.unique(np.concatenate([own for own, _ in found]) if wanted is None else wanted)
    ranks = np.full((len(rows), len(STAGES)), PADDING, np.int32)
    values = np.zeros((len(rows), len(STAGES)), np.float32)
    for stage, (own, scores) in enumerate(found):
        there = np.flatnonzero(np.isin(own, rows)) if wanted is not None else np.arange(len(own))
        at = np.searchsorted(rows, own[there])
        ranks[at, stage] = there
        if len(scores):
            values[at, stage] = scores[there] / scores[0]
    return rows, ranks, values


def best_ratios(
    kb: KnowledgeBase, queries: Sequence[Sequence[str]], owner: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """WRatio of each pair's queries, `queries[owner]` of s names, with the best of its row's
    names: [n,s] float32, 0 to 1."""
    asked = np.array([[default_process(name) for name in some] for some in queries], object)
    unique, place = np.unique(rows, return_inverse=True)
    names = np.array([_compared_as(name) for name in kb.taken("name", unique)], object)
    out = _compared(asked[owner], names[place])
    lists = kb.taken("aliases", unique)
    counts = np.array([len(one) for one in lists])[place]
    if counts.any():
        pair = np.repeat(np.arange(len(rows)), counts)
        others = [_processed(name) for i in place[counts > 0].tolist() for name in lists[i]]
        np.maximum.at(out, pair, _compared(asked[owner[pair]], np.array(others, object)))
    return out


@functools.lru_cache(maxsize=1 << 17)  # candidates come again and again
def _compared_as(name: str) -> str:
    return str(default_process(bare(name)))


_processed = functools.lru_cache(maxsize=1 << 17)(default_process)


def _compared(asked: np.ndarray, names: np.ndarray) -> np.ndarray:
    """WRatio of queries [n,s] with names [n], [n,s] between 0 and 1."""
    first, *others = (asked[:, i] for i in range(asked.shape[1]))
    out = np.repeat(likeness(first, names, "WRatio")[:, None], asked.shape[1], axis=1)
    for i, query in enumerate(others, 1):
        differ = np.flatnonzero(query != first)
        out[differ, i] = likeness(query[differ], names[differ], "WRatio")
    return out / 100
