"""Stage one by the config: candidates of every mention."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from data_pipeline.retrieval import names
from data_pipeline.retrieval.statistics import Weights, by_statistics
from data_pipeline.schema import Corpus
from data_pipeline.store.writer import StoreWriter
from drin_jax.config import flat

# retrieval.vectors -> tables of the mention and the entity side.
VECTORS = {
    "text": ("mention_text_edge", "entity_text_edge"),
    "clip": ("mention_clip_text", "entity_clip_text"),
}


def retrieve(
    config: ConfigDict, workdir: Path, corpus: Corpus, writer: StoreWriter
) -> tuple[np.ndarray, np.ndarray, Mapping[str, int]]:
    """Rows [M, r] of the entity table, scores [M, r], and what was counted.

    Raises:
        UserError: the data set has nothing to retrieve with.
    """
    fields, method = config.retrieval, flat(config)["retrieval.method"]
    if method != "vectors":
        return untrained(method, config, corpus, fields.r, workdir / "cache")
    from drin_jax.extract.vector_retrieval import by_vectors

    queries, keys = (writer.array(name) for name in VECTORS[fields.vectors])
    return *by_vectors(queries, keys, fields.r), {}


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
