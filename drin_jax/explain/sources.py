"""Texts and pictures behind a store, which keeps neither: the raw files, where they still are."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from data_pipeline.pictures.images import STATUSES, open_picture
from data_pipeline.schema import Entity, Mention, UserError
from drin_jax.extract.corpus import read_corpus
from drin_jax.workdir import FinishedRun

Picture = Image.Image | None


@dataclasses.dataclass(frozen=True)
class Sources:
    """Mentions and entities of the raw files by id; both empty where the files are not at hand,
    and then `missing` says why."""

    mentions: Mapping[str, Mention]
    entities: Mapping[str, Entity]
    missing: str = ""

    def description(self, entity_id: str) -> str:
        """An entity's description on one line, "" where there is none or it is not at hand."""
        entity = self.entities.get(entity_id)
        return " ".join(entity.description.split()) if entity else ""

    def picture(self, item: Mention | Entity | None) -> tuple[Picture, str]:
        """The picture of a mention or entity, or None and why there is none."""
        if item is None:
            return None, "picture not at hand"
        if item.image is None:
            return None, "no picture"
        picture, status = open_picture(item.image)
        return picture, "" if picture is not None else STATUSES[status].removeprefix("masked: ")


def read(run: FinishedRun) -> Sources:
    """The raw files of the run's config. Nothing is downloaded or made again: where they are gone,
    or no reader gives texts, the result is empty and says so."""
    config = run.config.copy_and_resolve_references()
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
