"""What the text encoders read of a mention and of an entity: the config's templates, filled."""

from ml_collections import ConfigDict

from data_pipeline.schema import Entity, Mention, Span, UserError

_SENTENCE = "{sentence}"
_FIELDS = {"mention": ("mention",), "entity": ("name", "description")}


def check(text: ConfigDict) -> None:
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
