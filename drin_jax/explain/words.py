"""What relations know of a candidate, in words a person understands."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from data_pipeline.schema import BEYOND, EVIDENCE, LIFE, NEAR, STAGES

Beyond = Mapping[str, int]  # name of a value that was cut -> 1 from above, -1 from below
Values = Mapping[str, float]  # name of a value -> it, NaN where it is not known
RERANKER = "reranker"
MOSTLY = 0.6  # so much of a name, by what its words weigh
ALIKE = 0.05  # a smaller likeness is none worth a word
# Values that are 1 or 0.
FLAGS = frozenset(
    [f"{form} is {what}" for form in ("surface", "form") for what in ("the name", "first", "last")]
    + ["year named", "year known", "last year known", "beside it: is named"]
)
BEST = -1e-3  # below the best candidate's: so little is the best


def told(relation: str, values: Values, beyond: Beyond = MappingProxyType({})) -> str:
    """One line on what a relation knows of a candidate, "" where it knows nothing worth telling.

    Args:
        values: those of the relation, by the names that `EVIDENCE` has.
        beyond: of those that a store cut, 1 where they are at least so much, -1 where at most.
    """
    known = {name: value for name, value in values.items() if not np.isnan(value)}
    tell = _TELL[relation]
    if not known:
        return ""
    return tell(known, beyond) if relation in _COUNTS else tell(known)


def read_again(score: float) -> dict[str, str]:
    """What a reranker says of a candidate; NaN: it has not read that."""
    if np.isnan(score):
        return {}
    return {RERANKER: f"the two texts, read together, score {score:+.2f}"}


def _names(v: Values) -> str:
    if v.get("form is the name", 0) > 0.5:
        same = v.get("surface is the name", 0) > 0.5
        return f"{'its name' if same else 'full name in the sentence'} equals this name"
    if v.get("surface is the name", 0) > 0.5:
        return "the mention equals this name, the sentence has a fuller one"
    parts = [part for part in ("first", "last") if v.get(f"surface is {part}", 0) > 0.5]
    shared = f", {' and '.join(parts)} word the same" if parts else ""
    return f"the name is {_percent(v.get('form ratio', 0))} alike{shared}"


def _words(v: Values) -> str:
    share, title = v.get("words shared", 0), v.get("title in the text", 0)
    out = []
    if share > ALIKE:
        best = " more than any other" if v.get("words shared, best", -1) > BEST else ""
        out.append(f"text and description share words{best} ({share:.2f})")
    if v.get("name around", 0) > ALIKE:
        out.append(f"{_percent(v['name around'])} of its name is elsewhere in the text")
    if title > ALIKE:
        out.append(f"{_percent(title)} of what its title adds is in the text")
    return "; ".join(out)


def _years(v: Values, beyond: Beyond) -> str:
    if "first year" not in v:
        return ""
    if "first year" in beyond:
        return "its description is of another age"
    first = round(1000 * v["first year"])
    if v.get("year named", 0) > 0.5:
        return "the text names a year of its description"
    if "age" not in v:
        return f"its description begins in {first}; the text says no year"
    if "age" in beyond or not -0.99 < v["age"] < 2.99:  # where the value ends
        return f"its description begins in {first}; the text is of another age"
    says = first + round(LIFE * v["age"])
    after = round(v.get("after its time", 0) * NEAR)
    least = "at least " * (after >= NEAR - 1 or beyond.get("after its time", 0) > 0)
    gone = f", {least}{after} years after its end" if after >= 1 else ""
    early = ", before it was there" if says < first else ""
    return f"since {first}, the text says about {says}{early}{gone}"


def _vectors(v: Values) -> str:
    best = ", the best of all" if v.get("cosine, best", -1) > BEST else ""
    return f"text and description are alike in meaning ({v.get('cosine', 0):.2f}{best})"


def _pictures(v: Values) -> str:
    ends = {
        "tv": "text and its picture",
        "vt": "the mention's picture and its text",
        "vv": "both pictures",
    }
    parts = []
    for edge, name in ends.items():
        if edge in v:
            best = ", the best of all" if v.get(f"{edge}, best", -1) > BEST else ""
            parts.append(f"{name} {v[edge]:.2f}{best}")
    return "; ".join(parts)


def _retrieval(v: Values) -> str:
    ranks = {s: np.expm1(v[f"rank by {s}"]) for s in STAGES if f"rank by {s}" in v}
    found = [f"{stage} {round(r) + 1}" for stage, r in ranks.items() if r < 0.9 * BEYOND]
    place = f"candidate {round(np.expm1(v['place'])) + 1}" if "place" in v else "a candidate"
    return f"{place}; rank by {', '.join(found)}" if found else place


def _votes(v: Values, beyond: Beyond) -> str:
    for kind, name in (("surface", "surface"), ("form", "full form")):
        counts = [f"votes of the {kind}", f"others of the {kind}"]
        mine, others = (_count(v, count) for count in counts)
        if mine + others:
            whole, own = (_bound(beyond, names) for names in (counts, counts[:1]))
            return (
                f"{whole}{mine + others} training mentions of this {name} meant a candidate, "
                f"{own}{mine} of them this one"
            )
    named = _count(v, "named in training")
    bound = _bound(beyond, ["named in training"])
    said = f"meant {bound}{named} times in training, by other names"
    return said if named else "not met in training"


def _count(v: Values, name: str) -> int:
    return round(float(np.expm1(v.get(name, 0))))


def _bound(beyond: Beyond, counts: Sequence[str]) -> str:
    """What stands before a sum of counts of which some were cut."""
    sides = {beyond[name] for name in counts if name in beyond}
    return {0: "", 1: "at least ", -1: "at most "}[sum(sides)] if len(sides) < 2 else "about "


def _exemplars(v: Values) -> str:
    alike = v.get("nearest exemplar, vectors", v.get("nearest exemplar, words", 0))
    return f"a training text about it is alike ({alike:.2f})"


def _neighbours(v: Values) -> str:
    parts = [v[name] for name in v if name.endswith(("vectors", "words"))]
    return f"alike to what texts like this one mean ({max(parts):.2f})" if parts else ""


def _association(v: Values) -> str:
    score = v.get("association", 0)
    return f"words of such a text go with words of it ({score:+.1f})"


def _context(v: Values) -> str:
    if v.get("beside it: is named", 0) > 0.5:
        return "the text names it in full elsewhere"
    out = []
    if v.get("beside it: name told", 0) > MOSTLY:
        out.append("it or another entity of the text tells of the other")
    alike = v.get("beside it: vectors", v.get("beside it: words", 0))
    out.append(f"alike to another entity of the text ({alike:.2f})")
    return "; ".join(out)


def _percent(share: float) -> str:
    return f"{round(100 * min(max(share, 0), 1))} %"


_COUNTS = ("years", "votes")  # which tell numbers that may have been cut
_TELL: Mapping[str, Callable[..., str]] = {
    "names": _names,
    "words": _words,
    "years": _years,
    "vectors": _vectors,
    "pictures": _pictures,
    "retrieval": _retrieval,
    "votes": _votes,
    "exemplars": _exemplars,
    "neighbours": _neighbours,
    "association": _association,
    "context": _context,
}
assert _TELL.keys() == EVIDENCE.keys()
