"""What the text encoders read of a mention and of an entity: the config's templates, filled."""

from data_pipeline.schema import Mention, UserError

Span = tuple[int, int] | None


def mention_text(template: str, mention: Mention, field: str = "text.mention") -> tuple[str, Span]:
    """The text given to the encoder for a mention, and where its span lies in it (characters).

    `field` is the template's name in the config, for errors.
    """
    head, placed, tail = template.partition("{sentence}")
    if not placed:
        raise UserError(f"{field} is {template!r}; it needs a {{sentence}}")
    try:
        before = head.format(mention=mention.name)
        text = before + mention.text + tail.format(mention=mention.name)
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{field} is {template!r}; fields are {{sentence}}, {{mention}} ({error})"
        ) from None
    if mention.start is None or mention.end is None:
        return text, None
    return text, (len(before) + mention.start, len(before) + mention.end)


def entity_text(template: str, name: str, description: str, field: str = "text.entity") -> str:
    """The text given to the encoder for an entity."""
    try:
        return template.format(name=name, description=description).strip()
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{field} is {template!r}; fields are {{name}}, {{description}} ({error})"
        ) from None
