"""The public data sets as TensorFlow Datasets, in ArrayRecord files, without TensorFlow.

    python -m data_pipeline.tfds_builders --dataset=wikimel --manual_dir=DIR --data_dir=OUT

makes OUT/wikimel/{disjoint,published,entities}/1.0.0; after that

    import tensorflow_datasets as tfds
    source = tfds.builder_from_directory("OUT/wikimel/disjoint/1.0.0").as_data_source("test")

is a random access source of examples, as `grain.MapDataset.source` takes it. Importing this package
registers the names, so that tfds.data_source("wikimel/disjoint", split="test", data_dir="OUT")
does the same.
"""

import contextlib
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from data_pipeline.readers import read
from data_pipeline.schema import SPLITS, UserError, check_known

# Name -> feature, and its value of a mention or an entity.
Fields = dict[str, tuple[Any, Callable[[Any], Any]]]

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
        features = {name: feature for name, (feature, _) in self._fields().items()}
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.description,
            features=tfds.features.FeaturesDict(features),
            homepage=self.homepage,
            disable_shuffling=True,  # keeps the order
        )

    def _fields(self) -> Fields:
        return _entity() if self.builder_config.name == "entities" else _mention()

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        config = self.builder_config.name
        source = " ".join(self.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        try:
            root = Path(dl_manager.manual_dir)
        except AssertionError:  # what TFDS raises where the folder is empty or not there
            raise UserError(f"manual_dir is empty or does not exist. {source}") from None
        corpus = read(
            self.reader,
            root,
            name=self.name,
            split="published" if config == "entities" else config,
            valid_fraction=VALID_FRACTION,
            source=source,
        )
        if config == "entities":
            return {"entities": self._generate_examples(corpus.entities)}
        parts = {split: [m for m in corpus.mentions if m.split == split] for split in SPLITS}
        return {split: self._generate_examples(own) for split, own in parts.items() if own}

    def _generate_examples(self, items: Sequence[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        fields = self._fields()
        for row, item in enumerate(items):
            yield row, {name: value(item) for name, (_, value) in fields.items()}


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
    check_known("config", config, CONFIGS)
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


def _mention() -> Fields:
    whole = tfds.features.Scalar
    start = whole(np.int32, doc="Of the span, in characters; -1: not in the sentence.")
    end = whole(np.int32, doc="Exclusive; -1: not in the sentence.")
    gold = tfds.features.Text(doc="Entity id; empty: NIL.")
    given = tfds.features.Sequence(tfds.features.Text(), doc="Given entity ids; may be empty.")
    clean = whole(np.bool_, doc="Shares nothing with a mention of another split.")
    return {
        "id": _text("id"),
        "sentence": _text("text"),
        "surface": _text("name", "The mention as it is written."),
        "start": (start, lambda mention: -1 if mention.start is None else mention.start),
        "end": (end, lambda mention: -1 if mention.end is None else mention.end),
        "gold": (gold, lambda mention: mention.gold or ""),
        "sample": _text("sample", "The same for mentions of one sentence and picture."),
        "candidates": (given, lambda mention: list(mention.candidates or ())),
        "image": _picture(),
        "kind": _text("kind", "A label by which results are told apart; may be empty."),
        "clean": (clean, operator.attrgetter("clean")),
    }


def _entity() -> Fields:
    return {name: _text(name) for name in ("id", "name", "description")} | {"image": _picture()}


def _text(attribute: str, doc: str | None = None) -> tuple[Any, Callable[[Any], str]]:
    return tfds.features.Text(doc=doc), operator.attrgetter(attribute)


def _picture() -> tuple[Any, Callable[[Any], bytes]]:
    """The file's bytes, as `pictures.images` decodes them. Not `tfds.features.Image`, which
    without TensorFlow has no missing picture, stops at a damaged one and misreads palettes."""
    held = tfds.features.Tensor(shape=(), dtype=np.object_, doc="Bytes of the file; empty: none.")
    return held, lambda item: b"" if item.image is None else Path(item.image).read_bytes()


class WikiMEL(CorpusBuilder):
    """WikiMEL, in any form that `data_pipeline.readers.wikimel` reads."""

    name = reader = "wikimel"
    description = "WikiMEL: sentences and pictures about people, linked to Wikidata."
    homepage = "https://github.com/seukgcode/MELBench"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Download WikiMEL (WIKIMEL_{train,valid,test}.json with qid2ne.json and qid2abs.json, or
    MELBench's Wikidata-MEL.json with them) from github.com/seukgcode/MELBench and
    github.com/seukgcode/MEL-GHMFC, pictures in its folder images/, and pass the folder as
    manual_dir
    """


class WikiDiverse(CorpusBuilder):
    """WikiDiverse, in any form that its reader reads."""

    name = reader = "wikidiverse"
    description = "WikiDiverse: captions and pictures of news, linked to Wikipedia."
    homepage = "https://github.com/wangxw5/wikiDiverse"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Download WikiDiverse ({train,valid,test}_w_10cands.json with its entity texts) from
    github.com/wangxw5/wikiDiverse and pass the folder as manual_dir
    """


class RichpediaMEL(CorpusBuilder):
    """RichpediaMEL, in any form that its reader reads."""

    name = reader = "richpedia"
    description = "RichpediaMEL: sentences and pictures of Richpedia, linked to Wikidata."
    homepage = "https://github.com/seukgcode/MELBench"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Download RichpediaMEL (a JSON file a split, with qid2ne.json and qid2abs.json) from
    github.com/seukgcode/MELBench and github.com/seukgcode/MEL-GHMFC and pass the folder as
    manual_dir
    """


BUILDERS: dict[str, type[CorpusBuilder]] = {
    builder.reader: builder for builder in (WikiMEL, WikiDiverse, RichpediaMEL)
}
