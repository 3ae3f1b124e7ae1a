"""What a linker answers."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_pipeline.output import console
from data_pipeline.schema import RELATIONS, Span, check_known
from drin_jax.explain import terminal
from drin_jax.explain.cases import Candidate, Case
from drin_jax.explain.sources import Sources


@dataclasses.dataclass(frozen=True, slots=True)
class LinkedEntity:
    """An entity that a mention may mean. `rank` counts from 1; `probability` is calibrated, and so
    that those of all candidates and of none add up to 1; `score` is the model's own."""

    id: str
    name: str
    description: str
    rank: int
    probability: float
    score: float
    has_image: bool

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True)
class LinkResult:
    """What a mention means.

    Attributes:
        text: that the mention stands in.
        mention: its surface form.
        span: its first and last+1 character; None: it is not in the text.
        candidates: the k likeliest, best first.
        is_nil: whether no entity of the knowledge base is meant: `nil_probability` is at least the
            model's threshold, which was chosen on its valid split.
        nil_probability: of that; 0 where the model was calibrated without such mentions.
        nil_threshold: above 1 where that is never the answer.
        model: which model this is from.
        kb: which state of which knowledge base, "GENERATION-FINGERPRINT".
    """

    text: str
    mention: str
    span: Span
    candidates: tuple[LinkedEntity, ...]
    is_nil: bool
    nil_probability: float
    nil_threshold: float
    model: str
    kb: str
    _case: Callable[[], tuple[Case, Sources]] = dataclasses.field(repr=False, compare=False)

    @property
    def best(self) -> LinkedEntity | None:
        """The likeliest candidate, also where `is_nil`; None: there is none."""
        return self.candidates[0] if self.candidates else None

    @property
    def entity(self) -> LinkedEntity | None:
        """What the mention is linked to: the best candidate, or None where `is_nil`."""
        return None if self.is_nil else self.best

    def to_dict(self, explain: bool = False) -> dict[str, Any]:
        """As JSON has it.

        Args:
            explain: with "explanation" too, why the candidates are ranked so.
        """
        found: dict[str, Any] = {
            "text": self.text,
            "mention": self.mention,
            "span": list(self.span) if self.span else None,
            "is_nil": self.is_nil,
            "nil_probability": self.nil_probability,
            "nil_threshold": self.nil_threshold,
            "candidates": [one.to_dict() for one in self.candidates],
            "model": self.model,
            "kb": self.kb,
        }
        return found | ({"explanation": self._explanation()} if explain else {})

    def explain(self, form: str = "text") -> str:
        """Why the candidates are ranked so: what each relation knows of them, and the weights of
        the graph's edges before and after each layer.

        Args:
            form: "text", or "svg" for a picture.

        Raises:
            UserError: another form.
        """
        check_known("the form of an explanation", form, ("text", "svg"))
        case, sources = self._case()
        if form == "text":
            out = console()
            with out.capture() as shown:
                terminal.show_case(out, case, sources, len(self.candidates), None)
            return shown.get()
        from drin_jax.explain import figure

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "case.svg"
            figure.draw(path, case, sources, len(self.candidates), None)
            return path.read_text()

    def _explanation(self) -> dict[str, Any]:
        case, _ = self._case()
        shown = {one.id: one for one in case.candidates}
        return {
            "layers": case.layers,
            "relations": list(RELATIONS),
            "gains": dict(case.gains),
            "candidates": [_reasons(shown[one.id]) for one in self.candidates],
        }


def _reasons(candidate: Candidate) -> Mapping[str, Any]:
    edges = candidate.edges
    weights = None
    if edges is not None:  # NaN, where there is no such edge, is no JSON
        weights = [[None if w != w else float(w) for w in layer] for layer in edges]
    return {
        "id": candidate.id,
        "edges": weights,
        "reasons": dict(candidate.reasons),
        "contributions": dict(candidate.contributions),
    }
