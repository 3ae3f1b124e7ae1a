"""Batches of graphs in a fixed order, read ahead by grain.

The order, which any other implementation has to reproduce: epoch e visits the mentions of the
split as `np.random.default_rng([seed, e]).permutation(N)` lists their rows, in consecutive batches
of `batch`; the last batch of an epoch is padded, never dropped. With `max_mentions` = m > 0 only
the first m rows of epoch 0's permutation take part, in each epoch in that epoch's order. Of a
batch, process p of P gets the p-th of P equal consecutive parts.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from data_pipeline.graphs import HostArrays, look_up
from data_pipeline.schema import GraphSpec, UserError, check_least
from data_pipeline.store.reader import Store

THREADS = 2


class TrainOrder:
    """Which rows of a split each step visits: a pure function of (seed, step).

    Args:
        mentions: of the split.
        batch: mentions in a step, over all processes.
        seed: of the order.
        max_mentions: how many mentions take part; 0: all.
        split: its name, kept in saved positions.

    Raises:
        UserError: a number out of range.
    """

    def __init__(
        self, mentions: int, *, batch: int, seed: int, max_mentions: int = 0, split: str = "train"
    ):
        check_least("train.batch", batch, 1)
        check_least("seed", seed, 0)
        check_least("train.max_mentions", max_mentions, 0)
        self.split, self.split_size = split, mentions
        self.mentions = min(max_mentions or mentions, mentions)
        self.batch, self.seed = batch, seed
        self.steps_per_epoch = -(-self.mentions // batch)
        self._chosen = np.zeros(mentions, bool)
        self._chosen[self._permutation(0)[: self.mentions]] = True
        # Threads read ahead over the end of an epoch, so two epochs are alive at once.
        self.epoch = functools.lru_cache(maxsize=3)(self._epoch)

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(self.split_size)

    def _epoch(self, epoch: int) -> np.ndarray:
        order = self._permutation(epoch)
        return order[self._chosen[order]]

    def rows(self, step: int) -> np.ndarray:
        """Rows of the split in the batch of `step` (from 0), at most `batch`, without padding."""
        epoch, within = divmod(step, self.steps_per_epoch)
        return self.epoch(epoch)[within * self.batch : (within + 1) * self.batch]

    def position(self, step: int) -> dict[str, Any]:
        """A position as JSON: the next step, and what the order depends on. It says nothing of
        processes, threads or where the tables lie, so that a run may go on with others."""
        return {"step": step, **self._fixed()}

    def step_at(self, position: dict[str, Any]) -> int:
        """The next step of a position that `position` gave.

        Raises:
            UserError: the order there was another: another seed, batch or number of mentions.
        """
        for name, value in self._fixed().items():
            if position.get(name) != value:
                raise UserError(
                    f"the saved data position has {name} = {position.get(name)}, this run {value}; "
                    "go on with the old value or start in another --workdir"
                )
        step = position.get("step")
        if not isinstance(step, int) or step < 0:
            raise UserError(f"the saved data position has step = {step!r}; it must be at least 0")
        return step

    def _fixed(self) -> dict[str, Any]:
        names = ("split", "split_size", "mentions", "batch", "seed")
        return {name: getattr(self, name) for name in names}


class GraphTables:
    """Looks batches of a split up in an open store.

    Args:
        store: an open store.
        split: "train", "valid" or "test".
        spec: of the graphs.

    Raises:
        UserError: the split is unknown or empty, or as `Store.fitted`.
    """

    def __init__(self, store: Store, split: str, spec: GraphSpec = GraphSpec()):
        self.mentions = store.check_split(split)
        self.spec = store.fitted(spec)
        self._longest = store.longest_text(spec.needs)
        tables = store.shared_tables(spec.needs) | store.split_tables(split, spec)
        # Plain views: a memmap pays for its class at each look-up.
        self._tables = {
            name: table.view(np.ndarray) if isinstance(table, np.ndarray) else table
            for name, table in tables.items()
        }

    def batch(self, rows: np.ndarray) -> HostArrays:
        """The batch of these rows of the split, C-contiguous, as `look_up` gives it."""
        return look_up(np, self._fetch, rows, self.spec, self._longest)

    def _fetch(self, name: str, rows: np.ndarray, there: np.ndarray) -> np.ndarray:
        table = self._tables[name]
        if not len(table):
            return np.zeros((*rows.shape, *table.shape[1:]), table.dtype)
        if isinstance(table, np.ndarray):
            found = np.take(table, rows, axis=0, mode="clip")
        else:  # of several segments, or in a database
            found = table[np.clip(rows, 0, len(table) - 1)]
        found[~there] = 0
        return found


class TrainLoader:
    """An iterator over the batches of all epochs: item i is this process's part of step i.

    Args:
        store: an open store.
        split: the split to train on.
        batch: mentions in a step, over all processes.
        epochs: passes over the mentions.
        seed: of the order.
        spec: of the graphs.
        process: (number, of how many), which says what part of each batch it gets.
        max_mentions: how many mentions take part; 0: all.
        threads: that read ahead, threads + 1 batches at most; 0: none. They change no batch.

    Raises:
        UserError: an empty split, a batch that does not divide over the processes, or a number out
            of range.
    """

    def __init__(
        self,
        store: Store,
        *,
        split: str = "train",
        batch: int,
        epochs: int,
        seed: int,
        spec: GraphSpec = GraphSpec(),
        process: tuple[int, int] = (0, 1),
        max_mentions: int = 0,
        threads: int = THREADS,
    ):
        tables = GraphTables(store, split, spec)
        order = TrainOrder(
            tables.mentions, batch=batch, seed=seed, max_mentions=max_mentions, split=split
        )
        check_least("train.epochs", epochs, 1)
        share = _share(batch, *process, "train.batch")
        self.order = order
        self.steps_per_epoch = order.steps_per_epoch
        self.total_steps = epochs * self.steps_per_epoch

        def part(step: int) -> HostArrays:
            return tables.batch(share(order.rows(int(step))))

        self._batches = _read_ahead(part, self.total_steps, threads)

    def __iter__(self) -> "TrainLoader":
        return self

    def __next__(self) -> HostArrays:
        """This process's part of the next step's batch, as in `schema.batch_shapes`."""
        return next(self._batches)

    @property
    def step(self) -> int:
        """The step whose batch is next."""
        return int(self._batches.get_state()["next_index"])

    def go_to(self, step: int) -> None:
        """Let the next batch be that of `step`."""
        # Beyond the end (fewer epochs than before): nothing is left.
        self._batches.set_state({"next_index": min(step, self.total_steps)})


class EvalLoader:
    """One pass over a split in file order; the last batch is padded. Iterating again starts anew.

    Args: as in `TrainLoader`.
    """

    def __init__(
        self,
        store: Store,
        split: str,
        batch: int,
        *,
        spec: GraphSpec = GraphSpec(),
        process: tuple[int, int] = (0, 1),
        threads: int = THREADS,
    ):
        self._tables = GraphTables(store, split, spec)
        check_least("eval.batch", batch, 1)
        self._batch = batch
        self._share = _share(batch, *process, "eval.batch")
        self._threads = threads

    def __len__(self) -> int:
        """Number of batches."""
        return -(-self._tables.mentions // self._batch)

    def __iter__(self) -> Iterator[tuple[np.ndarray, HostArrays]]:
        """Yields (rows of the split [b] int64, -1 at padding; batch as in `batch_shapes`)."""

        def part(index: int) -> tuple[np.ndarray, HostArrays]:
            begin = int(index) * self._batch
            end = min(begin + self._batch, self._tables.mentions)
            rows = self._share(np.arange(begin, end))
            return rows, self._tables.batch(rows)

        with contextlib.closing(_read_ahead(part, len(self), self._threads)) as batches:
            yield from batches


def _share(batch: int, index: int, count: int, field: str) -> Callable[[np.ndarray], np.ndarray]:
    """Gives one process's rows [b / processes] int64 of a batch's, padded with -1."""
    if batch % count:
        raise UserError(
            f"{field} is {batch}, which does not divide over {count} processes; "
            f"use a multiple of {count}"
        )
    if not 0 <= index < count:
        raise UserError(f"process {index} of {count}: count from 0")

    def of(rows: np.ndarray) -> np.ndarray:
        padded = np.full(batch, -1, np.int64)
        padded[: len(rows)] = rows
        return padded[index * (batch // count) : (index + 1) * (batch // count)]

    return of


def _read_ahead(part: Callable[[int], Any], count: int, threads: int) -> Any:
    """`part` of 0 .. count - 1, in this order."""
    import grain

    options = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=threads + 1 if threads else 0
    )
    return iter(grain.MapDataset.range(count).map(part).to_iter_dataset(options))
