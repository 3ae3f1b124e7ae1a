"""The raw files of a config: downloaded, generated and read."""

from pathlib import Path

from ml_collections import ConfigDict

from data_pipeline.kb.knowledge_base import KnowledgeBase
from data_pipeline.readers import read
from data_pipeline.schema import Corpus, Mention, UserError
from data_pipeline.store.reader import Store


def read_corpus(config: ConfigDict, kb: KnowledgeBase | None = None) -> Corpus:
    """The corpus of this config, downloaded or generated first where the config says so.

    Args:
        kb: the knowledge base that its mentions are linked to, instead of the data set's own.
    """
    data = config.data
    fetch(config)
    return read(
        data.reader,
        Path(data.root),
        name=data.name,
        split=data.split,
        valid_fraction=data.valid_fraction,
        source=data.hint,
        outside=data.outside,
        kb=kb,
        withheld=data.withheld,
    )


def mentions_of(config: ConfigDict, store: Store) -> list[Mention]:
    """The mentions of a store in its order, read from the raw files; nothing is downloaded again.

    Raises:
        UserError: the raw files are gone, or their mentions are others.
    """
    config = config.copy_and_resolve_references()
    config.data.source = ""
    try:
        found = {
            m.id: m for m in read_corpus(config, store.kb if config.data.kb else None).mentions
        }
        return [found[one] for one in store.strings("mention_id")]
    except KeyError as error:
        raise UserError(f"{config.data.root}: there is no mention {error} any more") from None


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
