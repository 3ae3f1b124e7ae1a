"""Stage one by everything that finds an entity: the best of several stages, in one untrained order.

    names    the mention's surface form, among names and aliases
    forms    the fullest form in which its text names it (`retrieval.forms`), among the same
    words    the words of its text, among descriptions
    vectors  its frozen vector, among the entities' (where the knowledge base has them)

What any of them finds is scored by all that can be said of a pair,

    score(m, e) = 3 cos(m, e) + name(surface, e) + name(form, e) + words(m, e) / 2
    name(q, e) = (BM25(q, e) / max_e' BM25(q, e') + WRatio(q, e) / 100) / 2
    words(m, e) = BM25(m, e) / max_e' BM25(m, e')

BM25 is 0 for what its stage did not find, WRatio is the best of an entity's names. Nothing of it is
trained and nothing reads a gold; weights and pools were chosen once, on WikiMEL's valid split.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from rapidfuzz import fuzz, process
from rapidfuzz.utils import default_process

from data_pipeline.kb.knowledge_base import Finder, Found, KnowledgeBase
from data_pipeline.kb.text_index import bare
from data_pipeline.output import Progress
from data_pipeline.retrieval.forms import fullest
from data_pipeline.schema import PADDING, Mention, UserError

# Stage -> entities that it finds, and what it counts.
POOLS = {"names": 100, "forms": 100, "words": 50, "vectors": 50}
WEIGHTS = {"names": 1.0, "forms": 1.0, "words": 0.5, "vectors": 3.0}
STAGES = tuple(POOLS)
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
) -> Candidates:
    """The r best entities of each mention by the sum above; ties in the order of the rows.

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
            _score(out, block, mentions, kb, index, vectors)
            bar.advance(len(block))
    return out


def _score(
    out: Candidates,
    block: range,
    mentions: Sequence[Mention],
    kb: KnowledgeBase,
    index: Finder,
    vectors: Vectors | None,
) -> None:
    """Fills the rows of a block."""
    queries, pools = [], []
    for i in block:
        own = mentions[i]
        form = fullest(own.text, own.name, own.start, index.knows)
        found = [
            index.names(own.name, POOLS["names"]),
            index.names(form, POOLS["forms"]),
            index.words(own.text, POOLS["words"]),
        ]
        if vectors is not None:
            near = vectors.nearest[i]
            found.append((near[near != PADDING].astype(np.int64), np.zeros(0, np.float32)))
        queries.append((own.name, form))
        pools.append(_pool(found))
    sizes = [len(rows) for rows, _, _ in pools]
    owner = np.repeat(np.arange(len(block)), sizes)
    rows, ranks, values = (np.concatenate([pool[j] for pool in pools]) for j in range(3))
    for stage in (0, 1):
        asked = [default_process(query[stage]) for query in queries]
        values[:, stage] = (values[:, stage] + likeness(kb, asked, owner, rows)) / 2
    if vectors is not None:
        values[:, 3] = vectors.cosine(block.start + owner, rows)
    scores = values @ np.array([*WEIGHTS.values()], np.float32)
    order = np.lexsort((rows, -scores, owner))
    place = np.arange(len(rows)) - np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    kept = place < out.rows.shape[1]
    order, at = order[kept], (block.start + owner[kept], place[kept])
    out.rows[at], out.scores[at] = rows[order], scores[order]
    out.ranks[at], out.evidence[at] = ranks[order], values[order]


def _pool(found: Sequence[Found]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows [k] that any stage found, their places in each [k,4], and their scores by each of
    those that have any, relative to the best [k,4]."""
    rows = np.unique(np.concatenate([own for own, _ in found]))
    ranks = np.full((len(rows), len(STAGES)), PADDING, np.int32)
    values = np.zeros((len(rows), len(STAGES)), np.float32)
    for stage, (own, scores) in enumerate(found):
        at = np.searchsorted(rows, own)
        ranks[at, stage] = np.arange(len(own))
        if len(scores):
            values[at, stage] = scores / scores[0]
    return rows, ranks, values


def likeness(
    kb: KnowledgeBase, asked: Sequence[str], owner: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """How like each pair's query, `asked[owner]`, is to the best of its row's names: [n] float32,
    0 to 1."""
    names = [bare(name) for name in kb.taken("name", rows)]
    out = _compared([asked[i] for i in owner.tolist()], names)
    lists = kb.taken("aliases", rows)
    pair = np.repeat(np.arange(len(rows)), [len(one) for one in lists])
    if len(pair):
        others = [alias for one in lists for alias in one]
        np.maximum.at(out, pair, _compared([asked[i] for i in owner[pair].tolist()], others))
    return out


def _compared(queries: Sequence[str], names: Sequence[str]) -> np.ndarray:
    names = [default_process(name) for name in names]
    scores = process.cpdist(queries, names, scorer=fuzz.WRatio, dtype=np.float32, workers=-1)
    return scores / 100
