"""What the encoders are given: texts, by the config's templates, and pictures."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data_pipeline.schema import Entity, Mention, PictureFile, Span, UserError

SIDES = ("mention", "entity")
_SENTENCE = "{sentence}"
_FIELDS = {"mention": ("mention",), "entity": ("name", "description")}


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """One unique picture. `boxes` [k, 4] and `scores` [k] where they were found elsewhere; `keep`
    is how many of them any side of the graph looks at."""

    path: PictureFile
    keep: int = 0
    boxes: np.ndarray | None = None
    scores: np.ndarray | None = None

    def plain(self) -> list[Any]:
        """As JSON has it; `Picture.from_plain` is the way back."""
        found = (None if x is None else x.tolist() for x in (self.boxes, self.scores))
        return [self.path, self.keep, *found]

    @classmethod
    def from_plain(cls, row: Sequence[Any]) -> "Picture":
        """The picture of a row of a job."""
        path, keep, boxes, scores = row
        if boxes is None:
            return cls(path, keep)
        found = np.array(boxes, np.float32).reshape(-1, 4)
        return cls(path, keep, found, np.array(scores, np.float32))


def plain_items(items: Sequence[Any]) -> list[Any]:
    """A shard's items as JSON has them."""
    return [item.plain() if isinstance(item, Picture) else item for item in items]


def items_from_plain(kind: str, rows: Sequence[Any]) -> list[Any]:
    """The way back."""
    if kind == "pictures":
        return [Picture.from_plain(row) for row in rows]
    if kind == "clip_texts":
        return list(rows)
    return [(text, tuple(span) if span else None) for text, span in rows]


def objects_table(keep: int) -> str:
    """Name of the table of means over this many objects."""
    return f"objects_{keep}"


def check_templates(text: ConfigDict) -> None:
    """UserError on a template that cannot be filled."""
    for field in ("mention", "entity", "clip_mention", "clip_entity"):
        template, known = text[field], _FIELDS[field.removeprefix("clip_")]
        pieces, shown = [template], known
        if "mention" in known:
            head, placed, tail = template.partition(_SENTENCE)
            if not placed:
                raise UserError(f"text.{field} is {template!r}; it needs a {{sentence}}")
            pieces, shown = [head, tail], ("sentence", *known)
        try:
            for piece in pieces:
                piece.format(**dict.fromkeys(known, ""))
        except (AttributeError, IndexError, KeyError, ValueError) as error:
            names = ", ".join(f"{{{name}}}" for name in shown)
            raise UserError(f"text.{field} is {template!r}; fields are {names} ({error})") from None


def mention_text(template: str, mention: Mention) -> tuple[str, Span]:
    """The text given to the encoder for a mention, and where its span lies in it (characters)."""
    head, _, tail = template.partition(_SENTENCE)
    before = head.format(mention=mention.name)
    text = before + mention.text + tail.format(mention=mention.name)
    if mention.start is None or mention.end is None:
        return text, None
    return text, (len(before) + mention.start, len(before) + mention.end)


def entity_text(template: str, entity: Entity) -> str:
    """The text given to the encoder for an entity."""
    return template.format(name=entity.name, description=entity.description).strip()
