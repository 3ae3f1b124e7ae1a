"""Evaluation of a split: every mention is counted."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline import schema
from data_pipeline.kb.folded_names import bare, fold
from data_pipeline.retrieval.names import of_pairs
from data_pipeline.store.reader import Store
from drin_jax.evaluation.ranks import TIES, RankCounts, slot_counts, summarize

_INITIALS = re.compile(r"(?:[^\W\d_]\.?){2,5}")
RECALL_AT = (1, 5, 10, 20, 50, 100)
# Rows of the first stage alone, where it is not the comparison of names.
FIRST_STAGES = {"given": "order of the given candidates", "dense": "first stage (vectors)"}


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
