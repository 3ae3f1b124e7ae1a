"""Texts and pictures behind a store, which keeps neither: the raw files, where they still are."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict
from PIL import Image

from data_pipeline.output import shortened
from data_pipeline.pictures.images import STATUSES, open_picture
from data_pipeline.schema import Entity, Mention, UserError
from drin_jax.extract.corpus import read_corpus

Shown = Image.Image | None


@dataclasses.dataclass(frozen=True)
class Sources:
    """Mentions and entities of the raw files by id; both empty where the files are not at hand,
    and then `missing` says why."""

    mentions: Mapping[str, Mention]
    entities: Mapping[str, Entity]
    missing: str = ""

    def description(self, entity_id: str, most: int = 0) -> str:
        """An entity's description on one line of at most so many characters (0: all of it), ""
        where there is none or it is not at hand."""
        entity = self.entities.get(entity_id)
        text = entity.description if entity else ""
        return shortened(text, most or len(text))

    def parts(self, mention_id: str, surface: str) -> tuple[str, str, str]:
        """What stands before a mention in its text, the mention, and what stands after.
        Without the text the mention stands alone; not found in it, the text stands first."""
        mention = self.mentions.get(mention_id)
        if mention is None:
            return "", surface, ""
        text, start, end = mention.text, mention.start, mention.end
        if start is None or end is None:
            return text, "", f" (mention {mention.name!r}, not found in the text)"
        return text[:start], text[start:end], text[end:]

    def picture(self, item: Mention | Entity | None) -> tuple[Shown, str]:
        """The picture of a mention or entity, or None and why there is none."""
        if item is None:
            return None, "picture not at hand"
        if item.image is None:
            return None, "no picture"
        picture, status = open_picture(item.image)
        return picture, "" if picture is not None else STATUSES[status].removeprefix("masked: ")


def read(config: ConfigDict) -> Sources:
    """The raw files of a run's config. Nothing is downloaded or made again: where they are gone,
    or no reader gives texts, the result is empty and says so."""
    config = config.copy_and_resolve_references()
    root = Path(config.data.root)
    if not config.data.root or not root.is_dir():
        where = f"data.root = {root} is gone" if config.data.root else "data.root is empty"
        return Sources({}, {}, f"texts and pictures are not at hand: {where}")
    config.data.source = ""  # a folder of raw files is there; it is read as it is
    try:
        corpus = read_corpus(config)
    except UserError as error:
        return Sources({}, {}, f"texts and pictures are not at hand: {error}")
    return Sources(
        {mention.id: mention for mention in corpus.mentions},
        {entity.id: entity for entity in corpus.entities},
    )
