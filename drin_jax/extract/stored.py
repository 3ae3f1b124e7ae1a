"""The store of a config where it is there already: opened, or refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipeline.files import sha256
from data_pipeline.kb.knowledge_base import MEND, KnowledgeBase, open_kb
from data_pipeline.output import say
from data_pipeline.release import inventory
from data_pipeline.schema import UserError, differing
from data_pipeline.store.reader import Store
from drin_jax.config import RENAMED, card, check, flat, store_settings

# Keys of what a store was made from, beside its settings.
SOURCES = "data files"
WEIGHTS = "encoder files"
RELEASE = "release"  # the reader whose features are there already
METHOD = "retrieval.method"


def store_path(config: ConfigDict, workdir: Path) -> Path:
    """Where the features of this config are kept."""
    return Path(config.data.store) if config.data.store else workdir / "store"


# Config fields that decide what is in a knowledge base; its encoders are told by their weights.
_OF_ENTITIES = frozenset(
    (
        *("text.entity", "text.clip_entity", "encoders.dtype", "encoders.max_length"),
        *("encoders.entity_vertex", "encoders.entity_edge", "encoders.entity_objects"),
        *("encoders.text", "encoders.image", "encoders.clip", "encoders.objects"),
        *("encoders.pictures", "encoders.detector_weights", "image.preprocess"),
        *("image.max_pixels", "image.max_bytes", "image.min_side"),
    )
)
_NAMES = frozenset(("encoders.text", "encoders.image", "encoders.clip"))


def kb_settings(
    config: ConfigDict, encoders: Any, root: str | Path | None = None
) -> dict[str, Any]:
    """What a knowledge base's features are made from: fields of the config, and the encoders'
    weights.

    Args:
        root: the knowledge base's, where it is another than the data set's: folders of encoders
            are found from there too, later.
    """
    found = {name: value for name, value in flat(config).items() if name in _OF_ENTITIES}
    for name, place in encoders.names.items() if root is not None else ():
        if Path(place).is_dir() and place:
            found[f"encoders.{name}"] = str(Path(place).absolute())
    return found | {WEIGHTS: encoders.weights("text", "clip", "image", "detector")}


def weights_of(kb: KnowledgeBase) -> dict[str, str]:
    """Encoder -> digest of the weights that a knowledge base's features were made with."""
    found = kb.made_from.get(WEIGHTS, {})
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        raise UserError(f"{kb.path}: its {WEIGHTS!r} are odd; {MEND}")
    return found


def config_of(kb: KnowledgeBase) -> ConfigDict:
    """The config that encodes what is added to a knowledge base."""
    config = card("common").get_config()
    own = {name: value for name, value in kb.made_from.items() if name in _OF_ENTITIES}
    try:
        if odd := kb.made_from.keys() - {*own, WEIGHTS}:
            raise KeyError(*odd)
        config.update_from_flattened_dict(own)
    except (KeyError, TypeError, ValueError) as error:
        named = " ".join(f"{error}".split())[:99]
        raise UserError(
            f"{kb.path}: its settings are not of this program ({named}); {MEND}"
        ) from None
    config.data.root = kb.root
    check(config)
    return config


def check_encoders(config: ConfigDict, kb: KnowledgeBase, encoders: Any) -> None:
    """UserError unless a knowledge base's features are those that this config's encoders make."""
    if not kb.tables:
        raise UserError(
            f"{kb.path}: has no features; build it with the encoders: drin-jax kb build with "
            "--config=… or --model=…"
        )
    now = kb_settings(config, encoders)
    old, new = (
        {name: value for name, value in some.items() if name not in {*_NAMES, WEIGHTS}}
        | {f"{WEIGHTS}: {name}": digest[:12] for name, digest in weights.items()}
        for some, weights in ((kb.made_from, weights_of(kb)), (now, now[WEIGHTS]))
    )
    if found := differing(old, new):
        raise UserError(
            f"{kb.path}: was built by other encoders ({found}); use the same, or build another"
        )


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
    kb = config.data.kb
    there = open_kb(kb) if kb else None  # it may have gone on since, or lie elsewhere
    made_from = Store.open(path, kb=kb).made_from
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
    store = Store.open(path, made_from=expected, kb=kb)
    if there is not None and there.generation > store.kb.generation:
        say(
            f"{kb} is at generation {there.generation}; {path} was made at "
            f"{store.kb.generation} and sees it as it was then"
        )
    if config.data.verify:
        store.verify()
    return store
