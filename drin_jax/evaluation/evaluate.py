"""Evaluation of a split: every mention is counted."""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from data_pipeline import schema
from data_pipeline.kb.text_index import bare, fold
from data_pipeline.loader import EvalLoader
from data_pipeline.retrieval.names import of_pairs
from data_pipeline.schema import GraphSpec
from data_pipeline.store.reader import Store
from drin_jax.evaluation.ranks import TIES, RankCounts, slot_counts, summarize
from drin_jax.parallel.data_parallel import AXIS, DataParallel
from drin_jax.training.device_tables import DeviceTables, Placement
from drin_jax.types import GraphBatch

_INITIALS = re.compile(r"(?:[^\W\d_]\.?){2,5}")
RECALL_AT = (1, 5, 10, 20, 50, 100)
# Rows of the first stage alone, where it is not the comparison of names.
FIRST_STAGES = {"given": "order of the given candidates", "dense": "first stage (vectors)"}


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
    it apart, as reports have it."""

    config: ConfigDict
    store: Store
    setup: Setup
    params: Any
    system: str

    @property
    def protocol(self) -> str:
        """What the scores have to be read with."""
        return self.setup.protocol

    def scores(self, split: str) -> np.ndarray:
        """Scores [n, r] of the split's mentions in file order."""
        scorer = SplitScorer(self.setup, batch=self.config.eval.batch)
        return scorer.scores(self.params, self.store, split)


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
                graphs = graphs.blind(jnp.zeros_like(graphs.mention_has_image))
            return nnx.merge(setup.graphdef, params)(graphs)[0]

        self._parallel, self._batch, self._spec = setup.parallel, batch, setup.spec
        self._tables = tables
        if tables is None:
            self._step = setup.parallel.eval_step(step)
        else:
            self._step = setup.parallel.eval_step(
                lambda params, tables, rows: step(params, tables.batch(rows)), tables.partitions()
            )
        self._split = functools.lru_cache(maxsize=2)(
            lambda store, split: DeviceTables.of(
                store, split, setup.spec, like=tables, placement=placement
            )
        )

    def scores(self, params: Any, store: Store, split: str) -> np.ndarray:
        """Scores [n, r] of the split's mentions in file order, on every process."""
        scored = self._from_store if self._tables is None else self._from_tables
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


@dataclasses.dataclass(frozen=True)
class SplitView:
    """What a ranking of a split is held against. `gold` counts only the graph's r slots."""

    split: str
    candidates: np.ndarray  # [n, r] bool: the slot holds a candidate
    retrieval_score: np.ndarray  # [n, r]
    text_edge: np.ndarray  # [n, r], R_tt
    gold: np.ndarray  # [n]
    gold_any: np.ndarray  # [n], slot among everything retrieved
    retrieved: int  # candidates retrieved for a mention, at least r
    gold_entity: np.ndarray  # [n]
    groups: dict[str, np.ndarray]  # name -> [n] bool

    @classmethod
    def of(cls, store: Store, split: str, r: int = 0) -> "SplitView":
        """The view of a split with the first `r` candidates (0: all)."""

        def array(name: str) -> np.ndarray:
            return np.asarray(store.array(f"{split}_{name}"))

        r = r or store.sizes["r"]
        gold_any, bits = array("gold"), array("groups")
        return cls(
            split=split,
            candidates=array("candidates")[:, :r] != schema.PADDING,
            retrieval_score=array("retrieval_score")[:, :r],
            text_edge=array("edges")[:, 0, :r],
            gold=np.where(gold_any < r, gold_any, schema.NOT_RETRIEVED),
            gold_any=gold_any,
            retrieved=store.sizes["r"],
            gold_entity=array("gold_entity"),
            groups={
                **{name: (bits >> i) & 1 == 1 for i, name in enumerate(store.groups)},
                **kinds(store, split),
            },
        )

    def counts(self) -> dict[str, int]:
        """Mentions by what can become of them; the four kinds add up to `mentions`."""
        in_kb = self.gold_entity >= 0
        return {
            "mentions": len(self.gold),
            "answerable": int(np.sum(self.gold >= 0)),
            "gold not retrieved": int(np.sum(in_kb & (self.gold < 0))),
            "gold outside the knowledge base": int(np.sum(self.gold_entity == schema.OUTSIDE_KB)),
            "NIL": int(np.sum(self.gold_entity == schema.NIL)),
        }

    def recall(self) -> dict[str, float]:
        """Retrieval recall@k: share of the mentions that are not NIL whose gold is among the first
        k retrieved, up to all that were retrieved, whatever the graph takes of them."""
        known = max(int(np.sum(self.gold_entity != schema.NIL)), 1)
        found = {
            k: int(np.sum((self.gold_any >= 0) & (self.gold_any < k)))
            for k in sorted({*(k for k in RECALL_AT if k < self.retrieved), self.retrieved})
        }
        return {f"recall@{k}": n / known for k, n in found.items()}


def kinds(store: Store, split: str) -> dict[str, np.ndarray]:
    """What makes a mention easy or hard, [n] bool each: its surface form is the gold's name, is one
    word, or is initials."""
    gold = np.asarray(store.array(f"{split}_gold_entity"))
    surfaces, names = store.strings("mention_surface"), store.strings("entity_name")
    own = [surfaces[i] for i in np.asarray(store.array(f"{split}_mention"))]
    same = [
        entity >= 0 and fold(bare(names[entity])) == fold(form)
        for form, entity in zip(own, gold.tolist(), strict=True)
    ]
    return {
        "exact_name": np.array(same, bool),
        "one_word": np.array([len(form.split()) == 1 for form in own], bool),
        "initials": np.array(
            [form.isupper() and _INITIALS.fullmatch(form) is not None for form in own], bool
        ),
    }


def evaluate_split(
    view: SplitView,
    systems: Mapping[str, np.ndarray],
    ks: Sequence[int],
    whole_base: Mapping[str, RankCounts] | None = None,
) -> dict[str, Any]:
    """The whole result of a split as JSON: counts, recall, and every system on every subset.

    Args:
        systems: name -> scores [n, r], higher is better.
        whole_base: system -> its counts over every entity of the knowledge base; None: the scope
            "kb" is left out.

    Returns:
        `subsets[subset][scope][system][ties]` with scope "answerable" (the gold is among the
        candidates), "end_to_end" (every mention of the subset; what was not ranked is a miss) or
        "kb" (every mention whose gold is in the knowledge base, ranked among all its entities;
        what was not retrieved is a miss).

    Raises:
        NotFinite: a system has scores that are not finite.
    """
    counts = {
        name: slot_counts(scores, view.gold, view.candidates, f"{name} on {view.split}")
        for name, scores in systems.items()
    }
    scopes = {
        "answerable": (view.gold >= 0, counts),
        "end_to_end": (np.ones(len(view.gold), bool), counts),
    }
    if whole_base is not None:
        scopes["kb"] = view.gold_entity >= 0, {**whole_base, **counts}
    subsets = {"all": np.ones(len(view.gold), bool)} | {
        name: chosen for name, chosen in view.groups.items() if chosen.any()
    }
    return {
        "split": view.split,
        "counts": view.counts(),
        "group_sizes": {name: int(chosen.sum()) for name, chosen in view.groups.items()},
        "retrieval": view.recall(),
        "subsets": {
            name: {
                scope: {
                    system: {t: summarize(c.ranks(t)[chosen & within], ks) for t in TIES}
                    for system, c in ranked.items()
                }
                for scope, (within, ranked) in scopes.items()
            }
            for name, chosen in subsets.items()
        },
    }


def baseline_scores(store: Store, view: SplitView) -> dict[str, np.ndarray]:
    """Systems that need no training: likeness of names, the first stage where it is another, and
    the raw text edge R_tt.

    Args:
        view: of a split of the store.
    """
    settings = store.made_from
    method = settings.get("retrieval.method", "given")  # as in a release
    out = {"name matching": view.retrieval_score}
    if method != "names":
        names, surfaces = store.strings("entity_name"), store.strings("mention_surface")
        rows = np.asarray(store.array(f"{view.split}_candidates"))[:, : view.candidates.shape[1]]
        queries = [surfaces[i] for i in np.asarray(store.array(f"{view.split}_mention"))]
        scorer = settings.get("retrieval.scorer", "WRatio")
        likeness = of_pairs([*names], queries, rows, scorer)
        # Without one likeness there are no names.
        out = {"name matching": likeness} if likeness.any() else {}
        out[FIRST_STAGES.get(method, f"first stage ({method})")] = view.retrieval_score
    return out | {"raw text edge R_tt": view.text_edge}


def valid_score(view: SplitView, scores: np.ndarray, select_by: str) -> float:
    """The tie-aware score over answerable mentions that picks the best checkpoint."""
    counts = slot_counts(scores, view.gold, view.candidates, f"the model on {view.split}")
    ranks = counts.ranks("mean")[view.gold >= 0]
    k = int(select_by.removeprefix("hits@")) if select_by.startswith("hits@") else 1
    return summarize(ranks, (k,))["mrr" if select_by == "mrr" else f"hits@{k}"]
