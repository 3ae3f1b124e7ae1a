"""Where models and knowledge bases are found: folders, the hub, and the embedded sample."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
from huggingface_hub import HfApi

from data_pipeline import hub, output
from data_pipeline.files import hold
from data_pipeline.kb import entity_files, rows
from data_pipeline.kb.change import Change
from data_pipeline.kb.knowledge_base import KnowledgeBase, is_url, open_kb
from data_pipeline.output import say
from data_pipeline.readers.raw_rows import unique
from data_pipeline.sample import world
from data_pipeline.schema import Entity, UserError
from drin_jax.config import card
from drin_jax.extract.encoding import Encoders
from drin_jax.extract.preparation import filled_by
from drin_jax.extract.stages import Stages
from drin_jax.extract.stored import check_encoders, kb_settings
from drin_jax.linking import saved
from drin_jax.linking.entities import QUIET
from drin_jax.linking.model import LinkModel, encoders_of, from_run
from drin_jax.workdir import REPORT

SAMPLE = "sample"
SAMPLE_SIZES = (1500, 300, 300)  # mentions of each split
IN_EXPORT = "linker"  # folder of the model in an export
_HUB = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")


def cache() -> Path:
    """The folder of what is made once and kept."""
    place = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(place) / "drin_jax"


def opened(
    place: str | Path, kb: str | Path | None = None
) -> tuple[LinkModel, KnowledgeBase, bool, Encoders]:
    """The model in a place, the knowledge base that it links to, whether that is borrowed, and the
    model's encoders. UserError."""
    model, borrowed = find_model(place)
    encoders = encoders_of(model)
    if kb is None:
        return model, open_kb(model.base), borrowed, encoders
    found, borrowed = _base(kb, encoders)
    if not found.entity_count:
        raise UserError(f"{kb}: the knowledge base is empty; add entities to it")
    check_encoders(model.config, found, encoders)
    return model, found, borrowed, encoders


def find_model(place: str | Path) -> tuple[LinkModel, bool]:
    """The model in a place, and whether that is kept for others too. UserError where there is
    none."""
    folder = Path(place)
    if str(place) == SAMPLE and not folder.exists():
        return from_run(_sample()), True
    if folder.is_dir():
        for one in (folder, folder / IN_EXPORT):
            if saved.is_model(one):
                return saved.read(one), False
        if (folder / "export.json").exists():
            raise UserError(
                f"{folder}: this export has a scorer and no linker; export the run again with "
                "--linker, or link with its workdir"
            )
        if (folder / REPORT).exists() or not _HUB.fullmatch(str(place)):
            return from_run(folder), False
    if not _HUB.fullmatch(str(place)) or folder.exists():
        raise UserError(
            f"model {str(place)!r:.80}: there is no such folder; give a workdir, a folder of "
            f"save_pretrained, OWNER/NAME of the hub, or {SAMPLE!r}"
        )
    return saved.read(_downloaded(str(place))), True


def _downloaded(place: str) -> Path:
    name, _, revision = place.partition("@")
    wanted = revision or None
    try:
        found = huggingface_hub.snapshot_download(name, local_files_only=True, revision=wanted)
        if saved.is_model(Path(found)):
            return Path(found)
    except (OSError, ValueError):  # not in the cache
        pass
    with hub.explained(f"model {place}", "download it elsewhere and give its folder"):
        _, files = hub.listed(name, "model", wanted)
        return hub.download(f"model {place}", name, "model", files, revision=wanted)


def push(save: Callable[[Path], None], name: str, private: bool) -> str:
    """Uploads what `save` writes to the hub as OWNER/NAME; its address there. UserError."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(f"{name!r:.80}: write OWNER/NAME")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        save(model)
        with hub.explained(f"model {name}", "save it with save_pretrained and upload the folder"):
            address = HfApi().create_repo(name, private=private, exist_ok=True)
            HfApi().upload_folder(repo_id=name, folder_path=model)
    return str(address)


def _sample() -> Path:
    """The workdir of the embedded sample's model, trained first where there is none."""
    folder = cache() / "models" / SAMPLE
    workdir, root = folder / "run", folder / "world"
    if (workdir / REPORT).exists():
        return workdir
    from drin_jax import run

    config = card("sample").get_config("linker")
    config.data.reader, config.data.root = "jsonl", str(root)  # a smaller world than the card's
    say(f"training the embedded sample's model, once, in {workdir}: about a minute")
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder / "lock"), output.silent(passing=True):
        if not (workdir / REPORT).exists():
            world.generate(root, sizes=SAMPLE_SIZES)
            run.execute(config, workdir)
    return workdir


def _base(place: str | Path, encoders: Encoders) -> tuple[KnowledgeBase, bool]:
    """The knowledge base in a place; of a file of entities it is made, once, and is borrowed: it
    has to stay what the file says."""
    if is_url(place) or Path(place).suffix.lower() not in entity_files.KINDS:
        return open_kb(place), False
    file = Path(place)
    entities = unique(entity_files.read(file, {}))
    config = encoders.config
    made_from = kb_settings(config, encoders)
    table = rows.table(entities, "")
    seen = [rows.digest_of_images(table), *map(_state_of, entities)]
    told = json.dumps([rows.digest(table), seen, made_from], sort_keys=True)
    number = hashlib.sha256(told.encode()).hexdigest()[:16]
    path = cache() / "kb" / f"{file.stem}-{number}"
    fill = filled_by(
        Stages(config, "entity", entities, {}, encoders, known=False),
        path,
        loud=len(entities) > QUIET,
    )
    with Change(path, fill) as change:
        begun, root = change.begun, str(file.parent.absolute())
        if not begun:
            say(f"{file}: {len(entities)} entities are encoded, once, in {path}")
        kb = change.build(entities, name=file.stem, root=root, made_from=made_from)
        if not begun and (unseen := kb.report.get("masked_pictures")):
            first, why = next(iter(unseen.items()))
            say(f"{file}: not every picture can be read; the first is {first} ({why})")
        return kb, True


def _state_of(entity: Entity) -> list[list[int] | None]:
    """Size and time of each picture; None where there is none, so that a later one is seen."""
    found: list[list[int] | None] = []
    for image in filter(None, (entity.image, *entity.more_images)):
        try:
            state = os.stat(image)
            found.append([state.st_size, state.st_mtime_ns])
        except (OSError, ValueError):
            found.append(None)
    return found
