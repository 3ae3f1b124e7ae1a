"""Relations between a mention and a candidate themselves: what either of them says.

None of these reads a training gold.
"""

from typing import Any

import numpy as np
from rapidfuzz import fuzz, process

from data_pipeline.relations import hashed
from data_pipeline.relations.sides import Columns, EntitySide, MentionSide, Pairs
from data_pipeline.schema import BEYOND, LIFE, NEAR, STAGES

FEW = 10_000  # pairs that are compared sooner than threads begin


def names(m: MentionSide, e: EntitySide, p: Pairs) -> Columns:
    """How the surface form and the fullest form of it in the text are like the candidate's name, or
    an alias that is more like: cosine of trigrams, characters in order, whole, first and last word,
    and how many words more.
    """
    out: Columns = {}
    lengths = np.array([len(name.split()) for name in e.folded], np.float32)
    first, last = (_ends(e.folded, at) for at in (0, -1))
    for side, (asked, grams) in enumerate(zip(m.folded, m.trigrams, strict=True)):
        kind = ("surface", "form")[side]
        mine = asked[p.mention]
        at = _likest(mine, e, p)
        theirs = e.folded[at]
        out[f"{kind} trigrams"] = hashed.products(grams, p.mention, e.trigrams, at)
        for scorer in (fuzz.ratio, fuzz.token_set_ratio):
            out[f"{kind} {scorer.__name__}"] = _alike(mine, theirs, scorer) / 100
        out[f"{kind} is the name"] = (mine == theirs) & (mine != "")
        out[f"{kind} is first"] = (_ends(asked, 0)[p.mention] == first[at]) & (mine != "")
        out[f"{kind} is last"] = (_ends(asked, -1)[p.mention] == last[at]) & (mine != "")
        counts = np.array([len(form.split()) for form in asked], np.float32)
        out[f"{kind} words fewer"] = np.clip(lengths[at] - counts[p.mention], -3, 4)
    return out


def _alike(mine: np.ndarray, theirs: np.ndarray, scorer: Any) -> np.ndarray:
    workers = -1 if len(mine) > FEW else 1
    return np.asarray(
        process.cpdist(mine, theirs, scorer=scorer, dtype=np.float32, workers=workers)
    )


def _likest(mine: np.ndarray, e: EntitySide, p: Pairs) -> np.ndarray:
    """Which of the candidate's forms is most like what is asked for [n]: [n] of `EntitySide.forms`;
    the name where no alias is more like."""
    owner = e.forms[1]
    if not len(owner):
        return p.entity
    begin = np.searchsorted(owner, p.entity)
    pair, place = hashed.ranges(begin, np.searchsorted(owner, p.entity, "right") - begin)
    place += len(e.names)
    likeness = np.append(
        _alike(mine, e.folded[p.entity], fuzz.ratio),
        _alike(mine[pair], e.folded[place], fuzz.ratio),
    )
    pair, place = np.append(np.arange(len(p)), pair), np.append(p.entity, place)
    order = np.lexsort((place, -likeness, pair))  # of each pair the likest first, of two the name
    return place[order][np.searchsorted(pair[order], np.arange(len(p)))]


def words(m: MentionSide, e: EntitySide, p: Pairs) -> Columns:
    """Words that text and candidate share: cosine with its description, and how much of its name,
    and of what its title says beside, the text has."""
    shared = hashed.products(m.words, p.mention, e.words, p.entity)
    return {
        "words shared": shared,
        "words shared, best": shared - p.best(shared),
        "name in the text": hashed.products(m.text_words, p.mention, e.name_words, p.entity),
        "name around": hashed.products(m.around_words, p.mention, e.name_words, p.entity),
        "title in the text": hashed.products(m.text_words, p.mention, e.extra_words, p.entity),
    }


def years(m: MentionSide, e: EntitySide, p: Pairs) -> Columns:
    """Years of the text against the first and the last of the candidate's: how old it was, whether
    it was there, and whether the text names one of them."""
    text, own = m.years[p.mention], e.years[p.entity]
    first, last = own[:, :1], own[:, 1:]
    with np.errstate(invalid="ignore"):
        age, beyond = text - first, text - last
        early, late = _largest(-age), _largest(beyond)
        nearest = _least(np.abs(np.concatenate([age, beyond], 1)))
        return {
            "age": np.clip(_mean(age), -LIFE, 3 * LIFE) / LIFE,
            "age, squared": np.square(np.clip(_mean(age) - 40, -LIFE, LIFE) / LIFE),
            "before its time": np.clip(early, -1, NEAR) / NEAR,
            "after its time": np.clip(late, -1, NEAR) / NEAR,
            "older than a life": np.clip(_largest(age) - LIFE, 0, LIFE) / LIFE,
            "year named": np.where(np.isnan(nearest), np.nan, nearest == 0),
            "first year": own[:, 0] / 1000,
            "year known": ~np.isnan(own[:, 0]),
            "last year known": ~np.isnan(own[:, 1]),
        }


def vectors(m: MentionSide, e: EntitySide, p: Pairs) -> Columns:
    """Cosine of the frozen vectors, and what it is below the best candidate's."""
    if not m.vectors.shape[1] or not e.vectors.shape[1]:
        nothing = np.full(len(p), np.nan, np.float32)
        return {"cosine": nothing, "cosine, best": nothing}
    cosine = np.einsum("nd,nd->n", m.vectors[p.mention], e.vectors[p.entity])
    return {"cosine": cosine, "cosine, best": cosine - p.best(cosine)}


def pictures(p: Pairs, edges: np.ndarray, there: np.ndarray) -> Columns:
    """The paper's relations over pictures, and what each is below the best candidate's.

    Args:
        edges: [n,3] tv, vt, vv.
        there: [n,3] whether both ends are.
    """
    out: Columns = {}
    for i, name in enumerate(("tv", "vt", "vv")):
        best = p.best(np.where(there[:, i], edges[:, i], -np.inf))
        out[name] = np.where(there[:, i], edges[:, i], np.nan)
        out[f"{name}, best"] = out[name] - np.where(np.isinf(best), 0, best)
    return out


def retrieval(
    p: Pairs, score: np.ndarray, ranks: np.ndarray | None, scores: np.ndarray | None
) -> Columns:
    """What found the candidate, as which, and its place among all.

    Args:
        score: [n] by which candidates are ordered.
        ranks, scores: [n,s] by each stage of the union, PADDING for what it did not find; None
            where candidates come from elsewhere.
    """
    out: Columns = {}
    unknown = np.full(len(p), np.nan, np.float32)
    for i, stage in enumerate(STAGES):
        found = unknown if ranks is None else np.where(ranks[:, i] < 0, BEYOND, ranks[:, i])
        out[f"rank by {stage}"] = np.log1p(found)
        out[f"score by {stage}"] = unknown if scores is None else scores[:, i]
    return out | {
        "score": score,
        "score, best": score - p.best(score),
        "place": np.log1p(p.slot),
    }


def _ends(forms: np.ndarray, at: int) -> np.ndarray:
    return np.array([form.split()[at] if form else "" for form in forms], object)


def _mean(x: np.ndarray) -> np.ndarray:
    known = ~np.isnan(x)
    total, count = np.where(known, x, 0).sum(1), known.sum(1)
    return np.where(count, total / np.maximum(count, 1), np.nan)


def _largest(x: np.ndarray) -> np.ndarray:
    found = np.where(np.isnan(x), -np.inf, x).max(1)
    return np.where(np.isinf(found), np.nan, found)


def _least(x: np.ndarray) -> np.ndarray:
    return -_largest(-x)
