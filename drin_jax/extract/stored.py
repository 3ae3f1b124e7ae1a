"""The store of a config where it is there already: opened, or refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipeline.files import sha256
from data_pipeline.release import inventory
from data_pipeline.store.reader import Store
from drin_jax.config import RENAMED, store_settings

# Keys of what a store was made from, beside its settings.
SOURCES = "data files"
WEIGHTS = "encoder files"
RELEASE = "release"  # the reader whose features are there already
METHOD = "retrieval.method"


def store_path(config: ConfigDict, workdir: Path) -> Path:
    """Where the features of this config are kept."""
    return Path(config.data.store) if config.data.store else workdir / "store"


def settings(config: ConfigDict) -> dict[str, Any]:
    """The config fields that decide what is in a store."""
    encoded = () if config.data.reader == RELEASE else ("retrieval", "text", "encoders", "image")
    return store_settings(config, ("data", *encoded))


def open_store(config: ConfigDict, path: Path) -> Store:
    """The store that is there, if it was made from these settings and these raw files. Raw files
    and encoders that are gone are no change: a store may travel without them.

    Raises:
        UserError: it was made with other settings or from other files, or is damaged.
    """
    made_from = Store.open(path).made_from
    root = Path(config.data.root)
    now: Mapping[str, str] = made_from.get(SOURCES, {})
    if config.data.reader != RELEASE:
        now = {
            name: sha256(root / name) if (root / name).is_file() else digest
            for name, digest in now.items()
        }
    elif root.is_dir():
        now = {RELEASE: inventory.fingerprint(root)}
    kept = {WEIGHTS: made_from[WEIGHTS]} if WEIGHTS in made_from else {}
    expected = settings(config) | {SOURCES: now} | kept
    method = str(made_from.get(METHOD))  # a release has none
    if method in RENAMED[METHOD] and expected.get(METHOD) == RENAMED[METHOD][method]:
        expected[METHOD] = method
    store = Store.open(path, made_from=expected)
    if config.data.verify:
        store.verify()
    return store
