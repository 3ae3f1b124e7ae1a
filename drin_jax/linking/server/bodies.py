"""What requests may hold. A body is checked whole before anything is done with it, and the first
thing that is wrong with it is told."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from drin_jax.linking.server import uploads
from drin_jax.linking.server.bounds import MOST_CANDIDATES, MOST_ITEMS, MOST_K

LONGEST_NAME = 1000
SHOWN = 40  # characters of a stranger's field name in an error


def _short_enough(text: str, info: Any) -> str:
    most = info.context.text
    if len(text) > most:
        raise ValueError(f"has {len(text):,} characters; at most {most:,} are taken")
    return text


def _few_enough(items: list[Any], info: Any) -> list[Any]:
    if len(items) > info.context.items:
        raise ValueError(f"has {len(items):,} items; at most {info.context.items:,} are taken")
    return items


def _picture(given: Any, info: Any) -> bytes | None:
    if isinstance(given, str):
        given = uploads.from_base64(given)
    if not isinstance(given, bytes | None):
        raise ValueError("has to be a string, base64 of a picture")
    return given if given is None else uploads.checked(given, info.context.pixels)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("has to be finite")
    return value


Text = Annotated[str, AfterValidator(_short_enough)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME)]
K = Annotated[int, Field(ge=1, le=MOST_K, description="How many candidates to answer with.")]
Span = Annotated[
    list[Annotated[int, Field(ge=0)]],
    Field(min_length=2, max_length=2, description="First and last+1 character of the mention."),
]
Candidates = Annotated[
    list[Annotated[Name, Field(description="An entity's id.")]],
    Field(
        min_length=1,
        max_length=MOST_CANDIDATES,
        fail_fast=True,
        description="The only ones to choose from.",
    ),
]
Explain = Annotated[bool, Field(description="Whether to tell why.")]
_BASE64 = {"type": "string", "contentEncoding": "base64", "description": "A picture, in base64."}
Picture = Annotated[
    bytes | None,
    PlainValidator(_picture),
    WithJsonSchema({"anyOf": [_BASE64, {"type": "null"}]}),
]


class Body(BaseModel):
    """A JSON object of known fields. Bounds are the validation's context."""

    model_config = ConfigDict(strict=True, json_schema_extra={"additionalProperties": False})

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        """Stops at the first field that is unknown, where pydantic would list a million of them."""
        for name in given if isinstance(given, dict) else ():
            if name not in cls.model_fields:
                known = ", ".join(cls.model_fields)
                raise ValueError(f"{name[:SHOWN]!r} is no field; there are {known}")
        return given


class _Mention(Body):
    text: Text
    span: Span | None = None
    mention: Name | None = None
    candidates: Candidates | None = None

    @model_validator(mode="after")
    def _stands_in_its_text(self) -> "_Mention":
        if self.span is None and self.mention is None:
            raise ValueError("give span or mention")
        if self.span and not self.span[0] < self.span[1] <= len(self.text):
            a, b = self.span
            raise ValueError(f"span {a}:{b} is not in the text of {len(self.text)} characters")
        return self


class LinkItem(_Mention):
    """A mention of a batch: where it stands in the text, what it says, or both; k and explain are
    the batch's where they are left out."""

    k: K | None = None
    explain: Explain | None = None


class LinkBody(_Mention):
    """A mention to link: where it stands in the text, what it says, or both."""

    image: Picture = None
    k: K = 5
    explain: Explain = False


class BatchBody(Body):
    """Mentions to link together."""

    items: Annotated[
        list[LinkItem], Field(max_length=MOST_ITEMS, fail_fast=True), AfterValidator(_few_enough)
    ]
    k: K = 5
    explain: Explain = False


class AnnotateBody(Body):
    """A text whose mentions are to be found and linked."""

    text: Text
    image: Picture = None
    k: K = 5
    explain: Explain = False


class EntityBody(Body):
    """An entity; its id stands in the address."""

    name: Name
    aliases: Annotated[list[Name], Field(max_length=MOST_ITEMS, fail_fast=True)] = []
    description: Text = ""
    type: Annotated[str, StringConstraints(max_length=LONGEST_NAME)] = ""
    popularity: Annotated[float, AfterValidator(_finite)] | None = None
    image: Picture = None


class EntityRow(EntityBody):
    """An entity with its id."""

    id: Name


class EntitiesBody(Body):
    """Entities to add, all or none; with update, those that are there are replaced."""

    entities: Annotated[list[EntityRow], Field(min_length=1, max_length=MOST_ITEMS, fail_fast=True)]
    update: bool = False


class AnnotateForm(BaseModel):
    """The same as multipart/form-data."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    text: str
    k: K = 5
    explain: Explain = False
    image: Annotated[Any, WithJsonSchema({"type": "string", "format": "binary"})] = None


class LinkForm(AnnotateForm):
    """The same as multipart/form-data: span as "13:20", candidates as "Q1,Q2"."""

    span: Annotated[str, StringConstraints(pattern=r"^\d{1,9}:\d{1,9}$")] | None = None
    mention: str | None = None
    candidates: str | None = None


def from_form(form: AnnotateForm) -> Mapping[str, Any]:
    """A form's fields, as JSON would have them."""
    fields = form.model_dump(exclude_none=True)
    if "span" in fields:
        fields["span"] = [int(end) for end in fields["span"].split(":")]
    if "candidates" in fields:
        fields["candidates"] = re.split(r"\s*,\s*", fields["candidates"].strip())
    return fields
