"""What the service answers, as /openapi.json describes it. Answers are made by `LinkResult.to_dict`
and its like, and not checked again on their way out."""

from pydantic import BaseModel, ConfigDict

from drin_jax.linking.result import LinkedEntity


class Answer(BaseModel):
    """A JSON object."""

    model_config = ConfigDict(extra="forbid")


class ErrorAnswer(Answer):
    """What is wrong, in one line."""

    error: str


class ReasonsAnswer(Answer):
    """Why a candidate is ranked where it is: its edges by layer and relation, null where there is
    none, and what each relation of evidence says and adds."""

    id: str
    edges: list[list[float | None]] | None
    reasons: dict[str, str]
    contributions: dict[str, float]


class ExplanationAnswer(Answer):
    """Why the candidates are ranked as they are; `gains` is what each relation of evidence adds to
    the lead of the first over the second."""

    layers: int
    relations: list[str]
    gains: dict[str, float]
    candidates: list[ReasonsAnswer]


class LinkAnswer(Answer):
    """What a mention means. `explanation` is there where it was asked for."""

    text: str
    mention: str
    span: list[int] | None
    is_nil: bool
    nil_probability: float
    nil_threshold: float
    candidates: list[LinkedEntity]
    model: str
    kb: str
    explanation: ExplanationAnswer | None = None


class BatchAnswer(Answer):
    """Answers in the order of the items."""

    results: list[LinkAnswer]


class AnnotateAnswer(Answer):
    """The mentions of a text."""

    text: str
    mentions: list[LinkAnswer]


class EntityAnswer(Answer):
    """An entity of the knowledge base."""

    id: str
    name: str
    aliases: list[str]
    description: str
    type: str
    popularity: float | None
    has_image: bool


class FoundAnswer(Answer):
    """Entities, best first."""

    entities: list[LinkedEntity]


class ChangeAnswer(Answer):
    """How many entities were written, and the knowledge base's state since."""

    entities: int
    kb: str


class Example(Answer):
    """A mention to try."""

    title: str
    text: str
    span: tuple[int, int]


class BaseAnswer(Answer):
    """The knowledge base."""

    name: str
    entities: int
    generation: int
    version: str
    writable: bool
    examples: list[Example]


class HealthAnswer(Answer):
    """Which model and which state of the knowledge base answer."""

    status: str
    model: str
    kb: str
