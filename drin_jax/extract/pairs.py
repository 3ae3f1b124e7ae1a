"""Mentions and their candidates: retrieved by the config (stage one), and the graphs' initial edges
between them, R_tt [6], R_tv [7], R_vt [8], R_vv [11]."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from data_pipeline.kb.knowledge_base import Finder, KnowledgeBase
from data_pipeline.kb.text_index import text_index
from data_pipeline.kb.vector_index import Search
from data_pipeline.output import say
from data_pipeline.retrieval import names, union
from data_pipeline.retrieval.statistics import Weights, by_statistics
from data_pipeline.schema import PADDING, Corpus, Mention
from data_pipeline.store import split_arrays
from data_pipeline.store.writer import StoreWriter
from drin_jax.config import flat

# retrieval.vectors -> tables of the mention and the entity side.
VECTORS = {
    "text": ("mention_text_edge", "entity_text_edge"),
    "clip": ("mention_clip_text", "entity_clip_text"),
}
PAIRS = 1 << 14  # mention-candidate pairs at once: 270 MB of the widest tables

# Table of the mention, table of the entity; rows are of unit length, or means of such for vv.
ENDS = {
    1: ("mention_clip_text", "entity_clip_image"),
    2: ("mention_clip_image", "entity_clip_text"),
    3: ("mention_objects", "entity_objects"),
}


def retrieve(
    config: ConfigDict, workdir: Path, corpus: Corpus, writer: StoreWriter
) -> tuple[np.ndarray, np.ndarray, Mapping[str, int], Mapping[str, np.ndarray]]:
    """Rows [M, r] of the entity table, scores [M, r], what was counted, and what else is known of
    each candidate ([M, r, s] by the names of `schema.UNION_ARRAYS`); r is the config's, or less,
    with a word, where no mention can have so many.

    Raises:
        UserError: the data set has nothing to retrieve with.
    """
    fields, method = config.retrieval, flat(config)["retrieval.method"]
    r = min(fields.r, max(_most(method, corpus), 1))
    if r < fields.r:
        say(f"retrieval.r is {fields.r}, but no mention has more than {r} candidates: r is {r}")
    if method == "union":
        found = unite(corpus.mentions, writer.kb, text_index(writer.kb), r, writer.array)
        more = {"retrieval_rank": found.ranks, "retrieval_evidence": found.evidence}
        return found.rows, found.scores, {}, more
    if method == "vectors":
        from drin_jax.extract.vector_retrieval import nearest

        mine, theirs = VECTORS[fields.vectors]
        return *nearest(writer.kb, theirs, writer.array(mine), r), {}, {}
    rows, scores, counts = untrained(method, config, corpus, r, workdir / "cache")
    if isinstance(corpus.entities, KnowledgeBase):
        rows, scores = _living(rows, scores, corpus.entities.alive)
    return rows, scores, counts, {}


def unite(
    mentions: Sequence[Mention],
    kb: KnowledgeBase,
    index: Finder,
    r: int,
    table: Callable[[str], np.ndarray] | None,
    search: Search | None = None,
    among: union.Among = (),
) -> union.Candidates:
    """The union's candidates.

    Args:
        table: the store's array of a name; None: nothing is encoded, names and words alone find.
        search: of the knowledge base's vectors, where one is at hand.
        among: as `union.by_union` takes it.
    """
    if table is None:
        return union.by_union(kb, index, mentions, r, among=among)
    from drin_jax.extract.vector_retrieval import nearest

    mine, theirs = (table(name) for name in VECTORS["text"])
    search = search or functools.partial(nearest, kb, VECTORS["text"][1])
    near, _ = search(mine, union.POOLS["vectors"])

    def cosine(own: np.ndarray, rows: np.ndarray) -> np.ndarray:
        out = np.empty(len(own), np.float32)
        for begin in range(0, len(own), PAIRS):
            some = slice(begin, begin + PAIRS)
            out[some] = split_arrays.cosine(mine[own[some]], theirs[rows[some]])
        return out

    return union.by_union(kb, index, mentions, r, union.Vectors(near, cosine), among)


def _living(
    rows: np.ndarray, scores: np.ndarray, alive: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same without rows that are no more, what follows them moved up."""
    kept = (rows != PADDING) & alive[rows]
    order = np.argsort(~kept, axis=1, kind="stable")
    rows, scores = (np.take_along_axis(a, order, 1) for a in (rows, scores))
    there = np.take_along_axis(kept, order, 1)
    return np.where(there, rows, PADDING).astype(np.int32), np.where(there, scores, np.float32(0))


def _most(method: str, corpus: Corpus) -> int:
    """Candidates that a mention can have: the knowledge base's, or those of the longest list."""
    if method != "given":
        return len(corpus.entities)
    known = {entity.id for entity in corpus.entities}
    return max((len(known.intersection(m.candidates or ())) for m in corpus.mentions), default=0)


def untrained(
    stage: str, config: ConfigDict, corpus: Corpus, r: int, cache: Path
) -> tuple[np.ndarray, np.ndarray, Mapping[str, int]]:
    """The same by a method that needs no vectors: names, statistics or given.

    Args:
        cache: folder where comparisons of names are kept.
    """
    fields = config.retrieval
    shared = {"scorer": fields.scorer, "cache_dir": cache}
    if stage == "given":
        return names.given(corpus, r)
    if stage == "statistics":
        weights = Weights(fields.name_weight, fields.prior_weight, fields.word_weight)
        pools = {"names_pool": fields.names_pool, "words_pool": fields.words_pool}
        return *by_statistics(corpus, r, weights=weights, **pools, **shared), {}
    entities, mentions = ([one.name for one in some] for some in (corpus.entities, corpus.mentions))
    return *names.by_name(entities, mentions, r, **shared), {}


def edges(
    table: Callable[[str], np.ndarray], mentions: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
    """Initial edges [n, 4, r] in the order of `schema.RELATIONS`; 0 where an end is missing.

    Every text and picture was encoded once; here it is one batched product a relation.

    Args:
        table: the store's array of a name.
        mentions: [n] rows of the mention tables.
        candidates: [n, r] rows of the entity tables; below 0 for none.
    """
    n, r = candidates.shape
    out = np.zeros((n, 4, r), np.float32)
    step = max(1, PAIRS // max(r, 1))
    for begin in range(0, n, step):
        rows = slice(begin, begin + step)
        own, others = mentions[rows], np.maximum(candidates[rows], 0)
        left, right = table("mention_text_edge"), table("entity_text_edge")
        out[rows, 0] = split_arrays.cosine(left[own][:, None], right[others])
        for relation, (mine, theirs) in ENDS.items():
            left, right = table(mine), table(theirs)
            if left.shape[1] and right.shape[1]:
                out[rows, relation] = (right[others] @ left[own][:, :, None])[..., 0]
    return np.where((candidates >= 0)[:, None], out, 0)
