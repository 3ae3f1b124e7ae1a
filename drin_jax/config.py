"""The config of a run: its cards, what each field decides, and which values cannot be meant.

`configs/common.py` says what every field means, `FIELDS` here what it decides. A new field is
a line there and a word here; whoever has to know which fields make a store asks here.
"""

import functools
import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from data_pipeline import schema
from data_pipeline.schema import (
    EVIDENCE,
    MAX_BYTES,
    MAX_PIXELS,
    MAX_TOKENS,
    POOLINGS,
    RELATIONS,
    UserError,
)

# The cards: in the wheel inside this package, in a checkout beside it.
_HERE = Path(__file__).parent
CARDS = next(f for f in (_HERE / "configs", _HERE.parent / "configs") if (f / "common.py").exists())
HELPERS = ("__init__", "forms")

# What a field decides.
STORE = "store"  # what is in the feature store, and so every number
ADDED = "added"  # what the store holds beside that; added to it at any time
RUN = "run"  # what is computed from the store
COURSE = "course"  # how far a run goes, and what is read off it
SPEED = "speed"  # how fast, and how often something is written
PLACE = "place"  # where things are

# A workdir may go on with other values of these; compared runs only with those of the second line.
RESUMABLE = (COURSE, SPEED, PLACE)
COMPARABLE = (ADDED, SPEED, PLACE)

FIELDS = {
    name: decides
    for decides, groups in {
        STORE: {
            "data": "name reader split valid_fraction withheld outside",
            "retrieval": "method r scorer name_weight prior_weight word_weight names_pool "
            "words_pool vectors",
            "text": "mention entity clip_mention clip_entity",
            "encoders": "text dtype max_length mention_vertex mention_edge entity_vertex "
            "entity_edge image clip objects detector_weights mention_objects entity_objects "
            "pictures",
            "image": "preprocess max_pixels max_bytes min_side",
        },
        ADDED: {"encoders": "tokens regions"},
        RUN: {
            "": "seed",
            "encoders": "max_tokens",  # a store with others is refused by what reads them
            "graph": "r relations edges adjacency gold_slot",
            "model": "name form width layers mention_rows edge_scale edge_activation "
            "vertex_activation recurrent_width image_text_threshold image_entity_threshold dtype "
            "members state dropout drop_relations drop_pictures vertices nil",
            "loss": "form margin",
            "train": "init batch learning_rate average max_mentions",
        },
        COURSE: {
            "data": "tables",  # equal up to rounding
            "train": "epochs patience accumulate",  # the last equal up to rounding
            "eval": "ks scope select_by pictures",
            "reranker": "text best undecided max_length max_mentions epochs batch learning_rate",
        },
        SPEED: {
            "encoders": "batch_tokens batch_images",
            "image": "workers",
            "train": "save_every log_every",
            "eval": "batch",
            "parallel": "impl devices",
        },
        PLACE: {"data": "root kb store verify source hint"},
    }.items()
    for group, fields in groups.items()
    for name in (f"{group}.{field}".lstrip(".") for field in fields.split())
}

# What workdirs and stores mean that were made before the field was there.
BEFORE: Mapping[str, Any] = {
    "data.kb": "",
    "data.outside": False,
    "data.withheld": 0.0,
    "data.tables": "auto",
    "encoders.tokens": False,
    "image.max_bytes": MAX_BYTES,
    "eval.scope": "candidates",
    "eval.pictures": True,
    "encoders.max_tokens": 128,
    "encoders.regions": False,
    "model.recurrent_width": 0,
    "model.image_text_threshold": 0.0,
    "model.image_entity_threshold": 0.3,
    "train.accumulate": 1,
    "train.average": 0.0,
    "train.init": "",
    "model.members": 1,
    "model.state": 128,
    "model.dropout": 0.3,
    "model.drop_relations": 0.0,
    "model.drop_pictures": 0.0,
    "model.vertices": True,
    "model.nil": False,
    "reranker.text": "",
    "reranker.best": 5,
    "reranker.undecided": 0.9,
    "reranker.max_length": 128,
    "reranker.max_mentions": 0,
    "reranker.epochs": 2,
    "reranker.batch": 16,
    "reranker.learning_rate": 5e-5,
}

DTYPES = ("float32", "bfloat16")
CHOICES: Mapping[str, tuple[str, ...]] = {
    "data.tables": ("auto", "device", "bfloat16", "sharded", "host"),
    "encoders.dtype": DTYPES,
    "eval.scope": ("candidates", "kb"),
    **{
        f"encoders.{side}_{end}": POOLINGS
        for side in ("mention", "entity")
        for end in ("vertex", "edge")
    },
    "graph.gold_slot": ("never", "upstream"),
    "graph.edges": ("dynamic", "static"),
    "image.preprocess": ("paper", "processor"),
    "parallel.impl": ("shard_map", "pmap"),
    "retrieval.method": ("union", "names", "statistics", "given", "vectors"),
    "retrieval.vectors": ("text", "clip"),
}
# Values by the name they have now, for older configs, workdirs and stores.
RENAMED: Mapping[str, Mapping[str, str]] = {"retrieval.method": {"dense": "vectors"}}
MOST = 2**31 - 1  # rows, steps and tokens are counted in 32 bits
# Least and most of every number; a field of floats may be any between.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),  # JAX's keys hold no more
    "data.valid_fraction": (0, 0.9),
    "data.withheld": (0, 0.9),
    "retrieval.r": (1, 10_000),
    **{f"retrieval.{weight}_weight": (0, 1e6) for weight in ("name", "prior", "word")},
    **{f"retrieval.{pool}_pool": (0, 1_000_000) for pool in ("names", "words")},
    "encoders.max_length": (3, 100_000),
    "encoders.max_tokens": (3, MAX_TOKENS),
    "encoders.batch_tokens": (1, 10_000_000),
    "encoders.batch_images": (1, 100_000),
    **{f"encoders.{side}_objects": (1, 1000) for side in ("mention", "entity")},
    "image.max_pixels": (1, MAX_PIXELS),
    "image.max_bytes": (1, 1_000_000_000_000),
    "image.min_side": (1, 10_000),
    "image.workers": (0, 1000),
    "graph.r": (0, 10_000),
    "model.width": (1, 65_536),
    "model.layers": (1, 100),
    "model.recurrent_width": (0, 65_536),
    "model.members": (1, 1000),
    "model.state": (1, 65_536),
    **{f"model.{name}": (0, 0.99) for name in ("dropout", "drop_relations", "drop_pictures")},
    **{f"model.image_{side}_threshold": (-1, 1) for side in ("text", "entity")},  # of cosines
    "loss.margin": (0, 1e6),
    "train.average": (0, 0.99999),
    **{f"train.{name}": (1, MOST) for name in ("epochs", "save_every", "log_every")},
    **{f"{name}.batch": (1, 1_000_000) for name in ("train", "eval")},
    "train.accumulate": (1, 1_000_000),
    "train.learning_rate": (1e-38, 1e38),
    "train.patience": (0, MOST),
    "train.max_mentions": (0, MOST),
    "parallel.devices": (0, 1_000_000),
    "reranker.best": (2, 1000),
    "reranker.undecided": (0, 1),
    "reranker.max_length": (8, 100_000),
    "reranker.epochs": (1, 1000),
    "reranker.batch": (1, 1_000_000),
    "reranker.learning_rate": (1e-38, 1e38),
    "reranker.max_mentions": (0, MOST),
}


@functools.cache
def card(name: str) -> ModuleType:
    """A module of configs/ by its name, as in `card("common").get_config()`; cards are made of
    each other by this, wherever they lie."""
    spec = importlib.util.spec_from_file_location(f"drin_jax.configs.{name}", CARDS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def card_names() -> list[str]:
    """The cards there are."""
    return sorted(path.stem for path in CARDS.glob("*.py") if path.stem not in HELPERS)


def find_card(value: str) -> str:
    """What --config says, `sample` or `wikimel:paper`, as a path; a path stays.

    Raises:
        UserError: no card has that name; lists them.
    """
    name, colon, form = value.partition(":")
    if not name or "/" in name or "\\" in name or name.endswith(".py"):
        return value
    if name not in card_names():
        raise UserError(
            f"no config is named {name!r}; there are {', '.join(card_names())}, or give the path "
            "of a file"
        )
    return f"{CARDS / name}.py{colon}{form}"


def deciding(*what: str) -> frozenset[str]:
    """The names of the fields that decide one of these."""
    return frozenset(name for name, decides in FIELDS.items() if decides in what)


def flat(config: ConfigDict) -> dict[str, Any]:
    """The config as one level of dotted names, values as JSON has them."""
    out: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            out |= {f"{name}.{field}": inner for field, inner in flat(value).items()}
        else:
            out[name] = list(value) if isinstance(value, tuple) else value
    for name, now in RENAMED.items():
        if name in out:
            out[name] = now.get(out[name], out[name])
    return out


def nested(values: Mapping[str, Any]) -> ConfigDict:
    """The way back, locked: lists become tuples, and fields that are missing have the value of
    before they were there."""
    groups: dict[str, Any] = {}
    for name, value in {**BEFORE, **values}.items():
        *path, field = name.split(".")
        fields = groups
        for group in path:
            fields = fields.setdefault(group, {})
        fields[field] = tuple(value) if isinstance(value, list) else value
    return ConfigDict(groups).lock()


def store_settings(config: ConfigDict, groups: Iterable[str]) -> dict[str, Any]:
    """The fields of these groups that decide what is in a store. A field at the value of before it
    was there is left out: stores that never heard of it fit."""
    names = deciding(STORE)
    return {
        name: value
        for name, value in flat(config).items()
        if name in names
        and name.split(".")[0] in groups
        and not (name in BEFORE and value == BEFORE[name])
    }


def check(config: ConfigDict) -> None:
    """UserError for a value that cannot be meant, before any work is done."""
    from drin_jax.training import losses  # jax
    from drin_jax.types import CHOICES as OF_MODELS

    values = flat(config)
    of_models = {
        name: OF_MODELS[field]
        for name in values
        for group, _, field in [name.partition(".")]
        if group in ("model", "graph") and field in OF_MODELS
    }
    for name, choices in {"loss.form": losses.FORMS, **of_models, **CHOICES}.items():
        schema.check_known(name, values[name], choices)
    for name, value in values.items():
        if isinstance(value, str) and value.encode(errors="ignore").decode() != value:
            raise UserError(f"{name} is {value!r}, which is not UTF-8 and cannot be written down")
    for name, (least, most) in BOUNDS.items():
        if not least <= values[name] <= most:  # so written, NaN is outside
            raise UserError(f"{name} is {values[name]}; it must be from {least:,} to {most:,}")
    _check_lists(config)
    encoders, retrieval = config.encoders, config.retrieval
    by_vectors = values["retrieval.method"] == "vectors"
    if by_vectors and retrieval.vectors == "clip" and not encoders.clip:
        raise UserError('retrieval.vectors is "clip"; set encoders.clip too')
    if encoders.pictures and (encoders.image or encoders.clip or encoders.objects):
        raise UserError(
            "encoders.pictures brings its own features; unset encoders.image, clip and objects"
        )
    for name in ("clip", "objects"):
        if encoders[name] and not encoders.image:
            raise UserError(f"encoders.{name} needs encoders.image, the pictures' vertex feature")


def _check_lists(config: ConfigDict) -> None:
    if config.data.withheld and config.data.reader == "release":
        raise UserError("data.withheld takes golds out of raw files; a release has its candidates")
    if config.model.nil and (config.model.name, config.loss.form) != ("relational", "softmax"):
        raise UserError(
            "model.nil is learnt by model.name='relational' with loss.form='softmax'; this is "
            f"{config.model.name!r} with {config.loss.form!r}"
        )
    relations, ks, select_by = config.graph.relations, config.eval.ks, config.eval.select_by
    for name in relations or [""]:
        schema.check_known("graph.relations", name, (*RELATIONS, *EVIDENCE))
    if config.model.name == "drin" and not {*relations} & {*RELATIONS}:
        raise UserError(
            f"graph.relations is {tuple(relations)}, of which drin knows none; use some of "
            f"{', '.join(RELATIONS)}, or model.name='relational'"
        )
    if not ks or not all(type(k) is int and 1 <= k <= MOST for k in ks):
        raise UserError(f"eval.ks is {ks}; it must hold numbers from 1, as in (1,3,5)")
    k = select_by.removeprefix("hits@")
    if select_by != "mrr" and not (
        k != select_by and k.isdecimal() and len(k) <= 10 and 1 <= int(k) <= MOST
    ):
        raise UserError(f"eval.select_by is {select_by!r}; known are mrr, and hits@K with K from 1")
