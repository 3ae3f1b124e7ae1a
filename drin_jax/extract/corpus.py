"""The raw files of a config: downloaded, generated and read; and what text encoders read of them:
the config's templates, filled."""

from pathlib import Path

from ml_collections import ConfigDict

from data_pipeline.readers import read
from data_pipeline.schema import Corpus, Entity, Mention, Span, UserError

_SENTENCE = "{sentence}"
_FIELDS = {"mention": ("mention",), "entity": ("name", "description")}


def read_corpus(config: ConfigDict) -> Corpus:
    """The corpus of this config, downloaded or generated first where the config says so."""
    data = config.data
    fetch(config)
    return read(
        data.reader,
        Path(data.root),
        name=data.name,
        split=data.split,
        valid_fraction=data.valid_fraction,
        source=data.hint,
    )


def fetch(config: ConfigDict) -> None:
    """Download or generate the raw files where the config says so. UserError."""
    data = config.data
    if data.source and not data.root:
        raise UserError("data.source is set, but data.root, the folder to download to, is not")
    if data.reader == "sample":
        from data_pipeline.sample import world

        world.generate(Path(data.root))
    elif data.source:
        from data_pipeline import hub

        hub.fetch(data.source, Path(data.root))


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
