"""A linker's model as a folder: whole or not at all, and loaded without running anything of it.

model.json          what it is, its calibration, encoders, knowledge base; checksums of all files
config.json         of the run that trained it
model.safetensors   parameters, and what is remembered of training, as arrays
memory.jsonl        the training mentions that are remembered
encoders/NAME/      of the encoders that have no hub id
kb/                 the knowledge base, unless model.json refers to another place
base/               that which mentions are linked to, where it is another
reranker/           the network that reads candidates again, where there is one
README.md           the model card
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

import drin_jax
from data_pipeline.files import (
    check_files,
    checksums,
    draft,
    is_inside,
    own_checksum,
    plain,
    read_json,
    write_json,
    write_tensors,
    write_text,
)
from data_pipeline.kb.change import Change
from data_pipeline.kb.knowledge_base import KnowledgeBase, as_of, is_url, open_kb
from data_pipeline.readers.raw_files import json_lines
from data_pipeline.relations import hashed
from data_pipeline.relations.association import Kept
from data_pipeline.relations.evidence import Relations, Remembered
from data_pipeline.relations.sides import Rarities
from data_pipeline.schema import Mention, UserError, reason
from drin_jax import models
from drin_jax.config import flat
from drin_jax.encoders import pretrained
from drin_jax.evaluation.reordering import ABOUT, FOLDER
from drin_jax.extract.encoding import Encoders
from drin_jax.linking import card
from drin_jax.linking.model import LinkModel, calibration_of, unkept
from drin_jax.reranking.reranker import open_reranker
from drin_jax.training.setup import set_up
from drin_jax.workdir import CONFIG, read_config

FORMAT, VERSION = "drin_jax model", 1
MANIFEST, ARRAYS, MEMORY, CARD = "model.json", "model.safetensors", "memory.jsonl", "README.md"
KB, BASE, ENCODERS = "kb", "base", "encoders"
AGAIN = "save it again with save_pretrained"
# Files of other programs that may run what is in them.
RUNS = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".py")
_ROW = ("text", "name", "start", "end", "form")  # of what is remembered of a mention
_FIELDS = {dict: "calibration encoders kb base files scores", str: "name system drin_jax"}


def is_model(folder: Path) -> bool:
    """Whether a folder holds a model, of any version."""
    return (folder / MANIFEST).is_file()


def write(
    model: LinkModel,
    base: KnowledgeBase,
    encoders: Encoders,
    relations: Relations | None,
    folder: Path,
    *,
    with_kb: bool = True,
) -> None:
    """Write the folder, which appears whole.

    Args:
        relations: the model's own.
        base: what mentions are linked to.
        with_kb: False: it refers to knowledge bases where they are.

    Raises:
        UserError: the folder is there already, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; give another folder")
    try:
        with draft(folder) as partial:
            _write(model, relations, encoders, base, partial, folder, with_kb)
            if folder.is_dir():
                folder.rmdir()
            os.replace(partial, folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from None


def _write(
    model: LinkModel,
    relations: Relations | None,
    encoders: Encoders,
    base: KnowledgeBase,
    partial: Path,
    folder: Path,
    with_kb: bool,
) -> None:
    """Everything that `folder` is to hold, its manifest last."""
    config = flat(model.config)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "drin_jax": drin_jax.__version__,
        "name": model.name,
        "system": model.system,
        "protocol": model.setup.protocol,
        "r": model.r,
        "model": model.version,
        "calibration": dataclasses.asdict(model.calibration),
        "encoders": _keep_encoders(encoders, partial, config),
        **_keep_bases(model.kb, base, partial, folder, with_kb),
        "scores": model.scores,
    }
    config["reranker.text"] = _keep_reranker(model, partial)
    write_json(partial / CONFIG, config | {"data.root": "", "data.source": "", "data.kb": ""})
    _keep_arrays(model, relations, partial)
    content = plain(content)
    write_text(partial / CARD, card.text(model, content))
    files = checksums(partial)  # a knowledge base has its own, and may grow
    content["files"] = {
        name: one for name, one in files.items() if not name.startswith((f"{KB}/", f"{BASE}/"))
    }
    content["checksum"] = own_checksum(content)
    write_json(partial / MANIFEST, content)


def _keep_encoders(
    encoders: Encoders, partial: Path, config: dict[str, Any]
) -> dict[str, dict[str, str]]:
    """Name -> where it is and its digest; those that are in a folder of this machine are copied."""
    found = {}
    for name, digest in encoders.weights("text", "clip", "image").items():
        place = encoders.names[name]
        if (source := Path(place)).is_dir():
            place = f"{ENCODERS}/{name}"
            (partial / place).mkdir(parents=True)
            for file in pretrained.read_files(source):
                if file.endswith(RUNS):
                    raise UserError(
                        f"{source / file}: PyTorch's own files are not passed on; save the "
                        "encoder's weights as safetensors first"
                    )
                shutil.copyfile(source / file, partial / place / file)
            config[f"encoders.{name}"] = place
        found[name] = {"place": place, "digest": digest}
    return found


def _keep_reranker(model: LinkModel, partial: Path) -> str:
    """The folder that its reranker is copied to, "" where it has none."""
    if model.reranker is None:
        return ""
    source = model.reranker.encoder.folder
    (partial / FOLDER).mkdir()
    for file in [*pretrained.read_files(source), ABOUT]:
        shutil.copyfile(source / file, partial / FOLDER / file)
    return FOLDER


def _keep_bases(
    own: KnowledgeBase, base: KnowledgeBase, partial: Path, folder: Path, with_kb: bool
) -> dict[str, dict[str, Any]]:
    """What the manifest says of the knowledge base that the model was trained on, `kb`, and of that
    which mentions are linked to, `base`: the same as it has become, or another."""
    try:
        as_of(str(base.path), base.segments, own.reference())
        bases = {"kb": base, "base": base}
    except UserError:
        bases = {"kb": own, "base": base}
    if not with_kb:
        places = {name: one.seen_from(folder.absolute()) for name, one in bases.items()}
    else:
        places = {"kb": KB, "base": KB if bases["kb"] is base else BASE}
        for name, place in places.items():
            if not (partial / place).exists():
                with Change(partial / place) as change:
                    change.copy(bases[name])
                (partial / place / "lock").unlink(missing_ok=True)
    references = {"kb": own.reference(), "base": base.reference()}
    return {name: {"path": place, **references[name]} for name, place in places.items()}


def _keep_arrays(model: LinkModel, relations: Relations | None, partial: Path) -> None:
    arrays = {f"parameters.{k}": np.asarray(v) for k, v in models.named(model.params).items()}
    if (kept := model.remembered) is not None:
        assert model.scale is not None
        assert relations is not None
        arrays |= {
            "evidence.scale": model.scale,
            "memory.gold": kept.gold,
            "memory.component": kept.component.astype(np.int64),
            "memory.retrieved": kept.retrieved.astype(np.int32),
            "memory.vectors": np.asarray(kept.vectors, np.float32),
            "rarity.words": kept.weights.words,
            "rarity.trigrams": kept.weights.trigrams,
        }
        if len(kept.gold):
            around = relations.memory.mentions.around_form
            arrays |= {"memory.around": around.indices, "memory.around_ends": around.indptr}
            known = relations.association.kept._asdict()
            arrays |= {f"association.{name}": array for name, array in known.items()}
        both = zip(kept.mentions, relations.memory.mentions.forms, strict=True)
        rows = ([m.text, m.name, m.start, m.end, form] for m, form in both)
        lines = (json.dumps(dict(zip(_ROW, row, strict=True)), ensure_ascii=False) for row in rows)
        write_text(partial / MEMORY, "".join(f"{line}\n" for line in lines))
    whole = {name: np.array(array, order="C") for name, array in arrays.items()}
    write_tensors(partial / ARRAYS, whole)


def read(folder: Path) -> LinkModel:
    """The model in a folder.

    Raises:
        UserError: there is none, it is damaged or of another version, holds files that could run
            something, or its knowledge base or an encoder is gone or changed.
    """
    content = manifest(folder)
    for path in sorted(folder.rglob("*")):
        if path.name.endswith(RUNS) and ".git" not in path.parts:
            raise UserError(
                f"{path}: files of this kind can run programs; a model has none; {AGAIN}"
            )
    check_files(folder, content["files"], AGAIN)
    config = read_config(folder)
    config.data.root, config.data.verify = str(folder), False
    config.parallel.devices, config.parallel.impl = 1, "shard_map"
    kb = _kb(folder, content["kb"])
    try:
        arrays = load_file(folder / ARRAYS)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{folder / ARRAYS}: unreadable ({reason(error)}); {AGAIN}") from None
    setup = set_up(config, unkept(kb, int(content["r"]), 1, content["name"]), shapes=True)
    params = _params(setup.params, arrays, folder)
    remembered = None
    if (scale := arrays.get("evidence.scale")) is not None:
        remembered = _remembered(folder, arrays, len(kb))
    return LinkModel(
        name=content["name"],
        config=config,
        setup=setup,
        params=params,
        system=content["system"],
        calibration=calibration_of(content, folder / MANIFEST),
        scale=scale,
        remembered=remembered,
        kb=kb,
        base=str(_kb(folder, content["base"]).path),
        scores=content["scores"],
        reranker=open_reranker(folder / FOLDER, config) if config.reranker.text else None,
    )


def manifest(folder: Path) -> dict[str, Any]:
    """`model.json`, held against its own checksum. UserError where it is none."""
    missing = f"is missing, so {folder} is no model; {AGAIN}"
    content: dict[str, Any] = read_json(folder / MANIFEST, AGAIN, missing)
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise UserError(
            f"{folder / MANIFEST}: is of version {content.get('version')!r:.20}, made by drin_jax "
            f"{content.get('drin_jax')!s:.20}; this program reads version {VERSION}: use that "
            f"version, or {AGAIN}"
        )
    if content.get("checksum") != own_checksum(content):
        raise UserError(f"{folder / MANIFEST}: damaged, it is not as it was written; {AGAIN}")
    for kind, names in _FIELDS.items():
        for name in names.split():
            if type(content.get(name)) is not kind:
                raise UserError(f"{folder / MANIFEST}: its {name!r} is missing or odd; {AGAIN}")
    if type(content.get("r")) is not int or not all(map(is_inside, content["files"])):
        raise UserError(f"{folder / MANIFEST}: its 'r' or 'files' are odd; {AGAIN}")
    return content


def _kb(folder: Path, reference: Mapping[str, Any]) -> KnowledgeBase:
    place = str(reference.get("path"))
    try:
        return open_kb(place if is_url(place) else folder / place, at=reference)
    except (UserError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: its knowledge base cannot be read: {error}") from None


def _params(like: Any, arrays: Mapping[str, np.ndarray], folder: Path) -> Any:
    wanted = models.named(like)
    found = {
        name.removeprefix("parameters."): array
        for name, array in arrays.items()
        if name.startswith("parameters.")
    }
    if told := pretrained.misfits(found, wanted):
        raise UserError(f"{folder / ARRAYS}: does not fit {CONFIG} ({told}); {AGAIN}")
    leaves = [jax.numpy.asarray(found[name], leaf.dtype) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _around(arrays: Mapping[str, np.ndarray]) -> hashed.Rows:
    """The words around what is remembered. ValueError where they are none."""
    places, ends = arrays["memory.around"], arrays["memory.around_ends"]
    found = hashed.Rows(np.ones(len(places), np.float32), places, ends)
    found.scipy.check_format()
    return found


def _remembered(folder: Path, arrays: Mapping[str, np.ndarray], rows: int) -> Remembered:
    mentions, forms = [], []
    for where, row in json_lines(folder / MEMORY, {}, _ROW):
        text, name, start, end, form = (row[field] for field in _ROW)
        if not all(isinstance(one, str) for one in (text, name, form)):
            raise UserError(f"{where}: is no mention; {AGAIN}")
        forms.append(form)
        mentions.append(Mention("", text, name, start, end, "train", "", None))
    try:
        found = Remembered(
            mentions,
            arrays["memory.gold"],
            arrays["memory.component"],
            arrays["memory.retrieved"],
            arrays["memory.vectors"],
            Rarities(arrays["rarity.words"], arrays["rarity.trigrams"]),
            (forms, _around(arrays)) if mentions else None,
            Kept(*(arrays[f"association.{name}"] for name in Kept._fields)) if mentions else None,
        )
    except KeyError as error:
        raise UserError(f"{folder / ARRAYS}: has no {error}; {AGAIN}") from None
    except ValueError as error:
        raise UserError(f"{folder / ARRAYS}: its memory is odd ({error}); {AGAIN}") from None
    counts = {len(mentions), len(found.gold), len(found.component), len(found.retrieved)}
    inside = found.gold.max(initial=0) < rows and found.retrieved.max(initial=0) < rows
    if found.association:
        *columns, table = found.association
        counts.add(len(arrays["memory.around_ends"]) - 1)
        inside &= table.shape == tuple(map(len, columns))
        inside &= all(0 <= x.min(initial=0) <= x.max(initial=0) < hashed.COLUMNS for x in columns)
    if len(counts) > 1 or not inside or found.gold.min(initial=0) < 0:
        raise UserError(f"{folder / ARRAYS}: its memory does not fit together; {AGAIN}")
    return found
