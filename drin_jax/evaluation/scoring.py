"""A trained system, and its scores of a split, over all devices."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from data_pipeline.loader import EvalLoader
from data_pipeline.schema import GraphSpec
from data_pipeline.store.reader import Store
from drin_jax.evaluation.reordering import Reordering
from drin_jax.models.graph import blind
from drin_jax.parallel.data_parallel import AXIS, DataParallel
from drin_jax.training.device_tables import DeviceTables, Placement
from drin_jax.types import GraphBatch


@dataclasses.dataclass(frozen=True)
class Setup:
    """Everything of a config but the data that flows through. `protocol` is what a score has to be
    read with: how many candidates, from where, and whether the gold leaks."""

    graphdef: nnx.GraphDef
    params: Any
    parallel: DataParallel
    spec: GraphSpec
    protocol: str
    pictures: bool = True  # whether mentions are scored with theirs


@dataclasses.dataclass(frozen=True)
class Trained:
    """A config's system with trained parameters over a store. `system` is its name with what sets
    it apart, as reports have it, `reordering` what a reranker said of the store's mentions."""

    config: ConfigDict
    store: Store
    setup: Setup
    params: Any
    system: str
    reordering: Reordering | None = None

    @property
    def protocol(self) -> str:
        """What the scores have to be read with."""
        return self.setup.protocol

    def scores(self, split: str) -> np.ndarray:
        """Scores [n, r] of the split's mentions in file order, a reranker's included."""
        scorer = SplitScorer(self.setup, batch=self.config.eval.batch)
        scores = scorer.scores(self.params, self.store, split)
        return self.reordering.scores(split, scores) if self.reordering else scores


class SplitScorer:
    """Scores splits of a store with a model over all devices; compiles once for a split's size.

    Args:
        batch: mentions scored at once, over all devices.
        tables: of any split, whose features are then read on the devices; else from the store.
        placement: of the tables.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        batch: int,
        tables: DeviceTables | None = None,
        placement: Placement = Placement(),
    ):
        def step(params: Any, arrays: Any) -> Float[Array, "b r"]:
            graphs = GraphBatch.from_host(arrays, setup.spec.gold_slot)
            if not setup.pictures:
                graphs = blind(graphs, jnp.zeros_like(graphs.mention_has_image))
            return nnx.merge(setup.graphdef, params)(graphs)[0]

        self._parallel, self._batch, self._spec = setup.parallel, batch, setup.spec
        self._shared = shared = tables and tables.shared_part()
        if tables is None:
            self._step = setup.parallel.eval_step(step)
        else:
            self._step = setup.parallel.eval_step(
                lambda params, tables, rows: step(params, tables.batch(rows)), tables.partitions()
            )
        self._split = functools.lru_cache(maxsize=2)(
            lambda store, split: DeviceTables.of(
                store, split, setup.spec, like=shared, placement=placement
            )
        )

    def scores(self, params: Any, store: Store, split: str) -> np.ndarray:
        """Scores [n, r] of the split's mentions in file order, on every process."""
        scored = self._from_store if self._shared is None else self._from_tables
        parts = zip(*scored(params, store, split), strict=True)
        rows, scores = (np.concatenate(part) for part in parts)
        out = np.zeros((store.splits[split], scores.shape[1]), np.float32)
        out[rows[rows >= 0]] = scores[rows >= 0]
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            # Each row is written by one process and zero on the others.
            out = np.asarray(multihost_utils.process_allgather(jnp.asarray(out))).sum(0)
        return out

    def _from_store(self, params: Any, store: Store, split: str) -> Iterator[tuple]:
        """Rows of the split, -1 at padding, and this process's scores of each batch."""
        process = jax.process_index(), jax.process_count()
        for rows, arrays in EvalLoader(store, split, self._batch, spec=self._spec, process=process):
            yield rows, self._parallel.local(self._step(params, self._parallel.shard(arrays)))

    def _from_tables(self, params: Any, store: Store, split: str) -> list[tuple]:
        """The same; every batch is started before the first is waited for."""
        tables = self._split(store, split)
        rows = np.full(-(-tables.mentions // self._batch) * self._batch, -1, np.int32)
        rows[: tables.mentions] = np.arange(tables.mentions)
        share = self._batch // jax.process_count()
        own = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
        batches = rows.reshape(-1, self._batch)
        out = [
            self._step(params, tables, self._parallel.put(batch, PartitionSpec(AXIS)))
            for batch in batches
        ]
        return [
            (batch[own], self._parallel.local(x)) for batch, x in zip(batches, out, strict=True)
        ]
