"""Three mentions that a run has just linked, in plain words, for the end of its report."""

from typing import Any

import numpy as np

from data_pipeline.schema import RELATIONS
from drin_jax.evaluation.scoring import Trained
from drin_jax.explain import cases, sources
from drin_jax.explain.cases import Candidate, Case, Outcome, two_decimals

SIDES = {"t": "text", "v": "picture"}
AROUND = 120  # characters shown on either side of a mention
ROUNDING = 1e-6  # of a score


def examples(run: Trained, found: Outcome) -> dict[str, Any]:
    """`told`, a line on which mentions these are, and `mentions`, each as name -> text.

    One that is right against its text alone, one that is wrong, one that is right as its text
    alone is, as far as there are such; the seed draws among them. Never raises: a finished run is
    not lost for its examples.

    Args:
        found: the run's ranking of a whole split.
    """
    try:
        chosen = _choose(found, np.random.default_rng(int(run.config.seed)))
        split, n = found.view.split, len(chosen)
        told_cases = cases.ranked(run, split, [*chosen, *chosen], [True] * n + [False] * n)
        raw = sources.read(run.config)
        told = f"{n} mentions of {split}, drawn with seed {run.config.seed}"
        pairs = zip(chosen.values(), told_cases[:n], told_cases[n:], strict=True)
        return {
            "told": told + (f"; {raw.missing}" if raw.missing else ""),
            "mentions": [_told(kind, case, hidden, raw) for kind, case, hidden in pairs],
        }
    except Exception as error:
        return {"told": f"no mention is shown: {error!r}", "mentions": []}


def _choose(found: Outcome, rng: np.random.Generator) -> dict[int, str]:
    """Row -> what kind of mention it is, of three mentions at most."""
    view = found.view
    text = np.where(view.candidates, view.text_edge, -np.inf).argmax(1) == view.gold
    right, known = ~found.wrong, view.gold >= 0
    kinds = {
        "right, where the raw text edge alone is wrong": right & ~text,
        "wrong, with the right entity among the candidates": found.wrong & known,
        "right, as the raw text edge alone is": right & text,
    }
    chosen: dict[int, str] = {}
    for kind, which in kinds.items():
        if which.any():
            chosen[int(rng.choice(np.flatnonzero(which)))] = kind
    left = np.setdiff1d(np.flatnonzero(view.candidates.any(1)), list(chosen))
    for row in rng.permutation(left)[: 3 - len(chosen)]:
        chosen[int(row)] = "right" if right[row] else "wrong"
    return chosen


def _told(kind: str, case: Case, hidden: Case, raw: sources.Sources) -> dict[str, str]:
    mention = raw.mentions.get(case.id)
    before, span, after = raw.parts(case.id, case.surface)
    before = f"…{before[-AROUND:]}" if span and len(before) > AROUND else before[: 2 * AROUND]
    after = f"{after[:AROUND]}…" if span and len(after) > AROUND else after
    winner, *others = case.candidates
    told = {"mention": f"{case.id}: {kind}"}
    told["text"] = f"{before}[[{span}]]{after}" if span else before + after
    if mention and mention.image:
        told["picture"] = str(mention.image)
    told["linked to"] = _named(winner, raw)
    if others:
        told["runner-up"] = _named(others[0], raw)
    if not winner.gold:
        told["right is"] = case.gold
    told["why"] = "; ".join(why(case, hidden))
    return told


def _named(candidate: Candidate, raw: sources.Sources) -> str:
    told = f"{candidate}, score {candidate.score:.3f}"
    told += ", right" if candidate.gold else ", wrong" if candidate.rank == 1 else ""
    description = raw.description(candidate.id, AROUND)
    return f"{told}: {description}" if description else told


def why(case: Case, hidden: Case) -> list[str]:
    """What set the winner apart from the runner-up, and what it owes to pictures.

    Args:
        hidden: the same mention with every picture of its graph hidden.
    """
    winner = case.candidates[0]
    if len(case.candidates) == 1:
        return ["it is the only candidate"]
    if case.gains:
        edges = reasons(case)
    elif case.layers:
        edges = _edge(winner, case.candidates[1])
    else:
        edges = "the system has no edges"
    first, hidden_scores = hidden.candidates[0], {c.id: c.score for c in hidden.candidates}
    if max(abs(c.score - hidden_scores[c.id]) for c in case.candidates) < ROUNDING:
        return [edges, "no picture plays a part"]
    if first.id == winner.id:
        return [edges, "with all pictures hidden it would win as well"]
    return [edges, f"with all pictures hidden {first} would win"]


def reasons(case: Case, most: int = 3) -> str:
    """What the relations that add most to the winner's lead know of it."""
    best = sorted(case.gains, key=lambda name: -case.gains[name])[:most]
    own = case.candidates[0].reasons
    told = [own[name] for name in best if case.gains[name] > cases.MOVED and name in own]
    return "; ".join(told) or "no relation sets it apart from the runner-up"


def _edge(winner: Candidate, other: Candidate) -> str:
    """The relation by whose weight the winner leads most, in the last layer: the weights that come
    after it do not reach the score."""
    assert winner.edges is not None
    assert other.edges is not None
    own, its = winner.edges[-2], other.edges[-2]
    lead = np.nan_to_num(own) - np.nan_to_num(its)
    i = int(lead.argmax())
    if lead[i] < cases.MOVED:
        return "in the last layer no edge of the winner outweighs the runner-up's"
    mention, entity = (SIDES[side] for side in RELATIONS[i])
    shown = [two_decimals(float(w)) if np.isfinite(w) else "no edge" for w in (own[i], its[i])]
    return (
        f"in the last layer the winner leads most by the edge {RELATIONS[i]}, of the mention's "
        f"{mention} and the entity's {entity}: {shown[0]} against {shown[1]}"
    )
