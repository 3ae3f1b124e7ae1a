"""A corpus as TensorFlow Datasets examples: what all builders share."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from data_pipeline.readers import read
from data_pipeline.schema import SPLITS, Corpus, Entity, Mention, UserError

# The first is what a name without a config means.
CONFIGS = {
    "disjoint": "Mentions; none of train shares its sample, text or picture with valid or test.",
    "published": "Mentions, all of them, as published.",
    "entities": 'The knowledge base, one split "entities".',
}
VALID_FRACTION = 0.1  # of the training samples, where no valid split was published


class CorpusBuilder(  # type: ignore[call-arg]  # mypy takes the lazily imported base for object
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """Builds one data set; subclasses name it.

    Examples keep the reader's order: example i of the config "entities" is row i of the entity
    table, and "gold" and "candidates" of a mention are ids of entities.

    Attributes:
        reader: a key of `data_pipeline.readers.READERS`.
        description: of the data set.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=name, description=description)
        for name, description in CONFIGS.items()
    ]
    # Nothing is downloaded, so there are no checksums of URLs; looking for their file needs
    # importlib_resources, which TFDS does not require.
    url_infos = None
    reader: ClassVar[str]
    description: ClassVar[str]
    homepage: ClassVar[str]

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.description,
            features=_entity() if self.builder_config.name == "entities" else _mention(),
            homepage=self.homepage,
            disable_shuffling=True,  # keeps the order
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        config = self.builder_config.name
        corpus = self._read(dl_manager, "published" if config == "entities" else config)
        if config == "entities":
            return {"entities": map(_entity_example, range(len(corpus.entities)), corpus.entities)}
        return {
            split: map(_mention_example, range(len(own)), own)
            for split in SPLITS
            if (own := [mention for mention in corpus.mentions if mention.split == split])
        }

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        raise NotImplementedError("the generators are made with the splits, from one reading")

    def _read(self, dl_manager: tfds.download.DownloadManager, split: str) -> Corpus:
        source = " ".join(self.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        try:
            root = Path(dl_manager.manual_dir)
        except AssertionError:  # what TFDS raises where the folder is empty or not there
            raise UserError(f"manual_dir is empty or does not exist. {source}") from None
        return read(
            self.reader,
            root,
            name=self.name,
            split=split,
            valid_fraction=VALID_FRACTION,
            source=source,
        )


def build(
    builder: type[CorpusBuilder],
    config: str,
    manual_dir: Path,
    data_dir: Path,
    *,
    overwrite: bool = False,
) -> tuple[Path, dict[str, int]]:
    """Build one config; one that is there already stays, unless it is to be overwritten.

    Returns:
        its folder, and the number of examples of each split.

    Raises:
        UserError: unknown config, missing or broken raw files, a folder that cannot be written or
            does not hold what it should.
    """
    if config not in CONFIGS:
        raise UserError(f"config {config!r} is unknown; known: {', '.join(CONFIGS)}")
    if not manual_dir.is_dir():
        source = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise UserError(f"manual_dir = {manual_dir} is not a folder. {source}")
    modes = tfds.download.GenerateMode
    settings = tfds.download.DownloadConfig(
        manual_dir=manual_dir,
        try_download_gcs=False,
        download_mode=modes.REUSE_CACHE_IF_EXISTS if overwrite else modes.REUSE_DATASET_IF_EXISTS,
    )
    try:
        with contextlib.redirect_stdout(sys.stderr):  # TFDS tells there what it does
            made = builder(config=config, data_dir=data_dir, file_format="array_record")
            made.download_and_prepare(download_config=settings)
    except OSError as error:
        where = error.filename or data_dir
        raise UserError(
            f"{where}: {error.strerror or error}; is data_dir writable and manual_dir whole?"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # TFDS's cache of downloads, of which there are none
            (data_dir / "downloads" / "extracted").rmdir()
            (data_dir / "downloads").rmdir()
    return Path(made.data_dir), {name: s.num_examples for name, s in made.info.splits.items()}


def _mention() -> tfds.features.FeaturesDict:
    text, whole = tfds.features.Text, tfds.features.Scalar
    return tfds.features.FeaturesDict(
        {
            "id": text(),
            "sentence": text(),
            "surface": text(doc="The mention as it is written."),
            "start": whole(np.int32, doc="Of the span, in characters; -1: not in the sentence."),
            "end": whole(np.int32, doc="Exclusive; -1: not in the sentence."),
            "gold": text(doc="Entity id; empty: NIL."),
            "sample": text(doc="The same for mentions of one sentence and picture."),
            "candidates": tfds.features.Sequence(text(), doc="Given entity ids; may be empty."),
            "image": _picture(),
            "kind": text(doc="A label by which results are told apart; may be empty."),
            "clean": whole(np.bool_, doc="Shares nothing with a mention of another split."),
        }
    )


def _entity() -> tfds.features.FeaturesDict:
    text = tfds.features.Text
    return tfds.features.FeaturesDict(
        {"id": text(), "name": text(), "description": text(), "image": _picture()}
    )


def _picture() -> tfds.features.Tensor:
    """The file's bytes, as `pictures.images` decodes them. Not `tfds.features.Image`, which
    without TensorFlow has no missing picture, stops at a damaged one and misreads palettes."""
    return tfds.features.Tensor(shape=(), dtype=np.object_, doc="Bytes of the file; empty: none.")


def _picture_bytes(path: str | None) -> bytes:
    return b"" if path is None else Path(path).read_bytes()


def _mention_example(row: int, mention: Mention) -> tuple[int, dict[str, Any]]:
    return row, {
        "id": mention.id,
        "sentence": mention.text,
        "surface": mention.name,
        "start": -1 if mention.start is None else mention.start,
        "end": -1 if mention.end is None else mention.end,
        "gold": mention.gold or "",
        "sample": mention.sample,
        "candidates": list(mention.candidates or ()),
        "image": _picture_bytes(mention.image),
        "kind": mention.kind,
        "clean": mention.clean,
    }


def _entity_example(row: int, entity: Entity) -> tuple[int, dict[str, Any]]:
    return row, {
        "id": entity.id,
        "name": entity.name,
        "description": entity.description,
        "image": _picture_bytes(entity.image),
    }
