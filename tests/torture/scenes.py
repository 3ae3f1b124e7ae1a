"""Commands that are killed, failed and run beside each other, and when what they left is right.

A scene is what one command makes in a folder of its own. It is right where it is, byte for byte or
number for number, what an undisturbed twin has.
"""

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.kb.knowledge_base import KB_JSON, ROWS, open_kb
from data_pipeline.kb.text_index import TextIndex
from drin_jax import export
from tests.support import bases, given_world, picture_world
from tests.support.commands import run

KB = "drin_jax.kb"
CHANGES = ("build", "add", "remove", "compact")
# What is added to the knowledge base: before a scene begins, and by it.
MORE = {
    "first": [{"id": "R0", "name": "Name 0", "aliases": ["First 0", "F"]}],
    "more": [
        {"id": "Q1", "name": "Other 1", "description": "replaced"},
        {"id": "R1", "name": "New 1", "aliases": ["New one", "Name 1"]},
    ],
}
# In the names of files whose changes are a training's boundaries.
BOUNDARIES = ("/metrics.jsonl", "/_CHECKPOINT_METADATA")


@dataclasses.dataclass(frozen=True)
class Scene:
    """A command over a folder. `result` is what of the folder must be the twin's; `left`, what once
    it was started again."""

    name: str
    module: str
    arguments: Callable[[Path], list[str]]
    result: Callable[[Path], Any]
    base: Callable[[], Path] | None = None  # makes, once, a folder that it begins with
    left: Callable[[Path], Any] = lambda work: None

    def prepare(self, folder: Path) -> None:
        """Make the folder anew."""
        shutil.rmtree(folder, ignore_errors=True)
        if self.base:
            shutil.copytree(self.base(), folder)
        else:
            folder.mkdir(parents=True)


class World:
    """The raw files under `folder`, and the scenes over them.

    Args:
        pictures: whether features of pictures are extracted too; it takes longer.
    """

    def __init__(self, folder: Path, pictures: bool = False):
        self.folder = folder
        given_world.write(folder / "given", *given_world.rows())
        for name, rows in MORE.items():
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / "given" / f"{name}.jsonl").write_text(lines)
        self._pictures = None
        if pictures:
            picture_world.write(folder / "pictures", 9, 8)
            config = picture_world.config(folder / "pictures", folder / "encoders")
            self._pictures = picture_world.command_line(config)
        finished = folder / "finished"
        done = run("drin_jax.main", *self.flags(finished))
        assert done.returncode == 0, done.stderr
        (finished / "lock").unlink()
        before = dict.fromkeys(CHANGES, self.base) | {"build": None}
        suite = ("--seeds=1", "--rows=full,static")
        self.scenes = {
            scene.name: scene
            for scene in (
                Scene("train", "drin_jax.main", self.flags, trained),
                Scene("short", "drin_jax.main", self.short, trained),
                Scene("extract", "drin_jax.extract", self.extracts, stored),
                Scene(
                    "experiments",
                    "drin_jax.experiments",
                    lambda work: ["table3", *self.flags(work), *suite],
                    recorded,
                ),
                Scene(
                    "export",
                    "drin_jax.export",
                    lambda work: [*exports(work, work / "out")],
                    exported,
                    lambda: finished,
                ),
                Scene(
                    "validate",
                    "data_pipeline.validate",
                    lambda work: ["--format=jsonl", str(folder / "given")],
                    lambda work: sorted(path.name for path in (folder / "given").iterdir()),
                ),
                *(
                    Scene(f"kb {do}", KB, functools.partial(self.change, do), based, base, names)
                    for do, base in before.items()
                ),
                Scene("kb train", "drin_jax.main", self.shares, shared, self.base, names),
            )
        }  # fmt: skip

    def flags(self, workdir: Path) -> list[str]:
        """Of a training."""
        least = "--config.model.name=bert"  # to compile and to save
        root, encoders = self.folder / "given", self.folder / "encoders"
        return given_world.flags(root, workdir, encoders, least)

    def short(self, workdir: Path) -> list[str]:
        """Of one that saves once."""
        least = ("--config.train.epochs=1", "--config.train.save_every=100")
        return [*self.flags(workdir), *least]

    def extracts(self, workdir: Path) -> list[str]:
        """Of an extraction."""
        if self._pictures is None:
            return self.flags(workdir)
        return [f"--workdir={workdir}", *self._pictures]

    def shares(self, work: Path) -> list[str]:
        """Of a training that finds its candidates in a knowledge base beside its workdir."""
        own = (f"--config.data.kb={work / 'kb'}", "--config.retrieval.method=union")
        return [*self.short(work / "run"), *own]

    def change(self, name: str, work: Path) -> list[str]:
        """Arguments of a change of the knowledge base `work`/kb."""
        given = self.folder / "given"
        encoders = [flag for flag in self.flags(work) if not flag.startswith("--workdir")]
        more = {
            "build": [f"--entities={given / 'entities.jsonl'}", *encoders],
            "add": [f"--entities={given / 'more.jsonl'}", "--update"],
            "remove": ["--ids=Q2,Q5"],
            "compact": [],
        }
        return [name, str(work / "kb"), *more[name]]

    def base(self) -> Path:
        """A folder with a knowledge base of features, kb, in three segments."""
        folder = self.folder / "base"
        if not folder.exists():
            kb, first = str(folder / "kb"), f"--entities={self.folder / 'given' / 'first.jsonl'}"
            for arguments in (
                self.change("build", folder),
                ["add", kb, first],
                ["remove", kb, "--ids=Q9"],
            ):
                done = run(KB, *arguments)
                assert done.returncode == 0, done.stderr
        return folder

    def beside(self, workdir: Path, other: Path) -> Iterator[tuple[str, str, list[str]]]:
        """Every command that takes the folder: name, module, arguments. `other` is for output."""
        flags = self.short(workdir)
        for name in ("main", "extract", "audit", "recall"):
            yield name, f"drin_jax.{name}", flags
        yield "experiments", "drin_jax.experiments", ["table3", *flags, "--seeds=1", "--rows=full"]
        yield "explain", "drin_jax.explain", [f"--workdir={workdir}", "--list=3"]
        yield "export", "drin_jax.export", exports(workdir, other)
        yield "report", "drin_jax.report", [str(workdir)]
        kb = str(workdir / "store" / "kb")
        yield "kb search", KB, ["search", kb, "--mention=Name 1"]
        yield "kb add", KB, ["add", kb, f"--entities={self.folder / 'given' / 'more.jsonl'}"]

    def beside_kb(self, work: Path) -> dict[str, tuple[str, list[str]]]:
        """Every command that takes the knowledge base `work`/kb: name -> module, arguments."""
        kb = str(work / "kb")
        found = {name: (KB, self.change(name, work)) for name in CHANGES}
        found |= {name: (KB, [name, kb]) for name in ("info", "verify")}
        found["search"] = KB, ["search", kb, "--mention=Name 1", "--json"]
        return found | {"train": ("drin_jax.main", self.shares(work))}

    def beside_shards(self, work: Path) -> dict[str, tuple[str, list[str]]]:
        """What takes the folder `work`/shards."""
        flags = [*self.flags(work / "run"), f"--shards={work / 'shards'}"]
        return {name: (f"drin_jax.{name}", flags) for name in ("extract.beam", "extract")}


def exports(workdir: Path, out: Path) -> list[str]:
    """Flags of an export."""
    return [f"--workdir={workdir}", f"--out={out}", "--platforms=cpu", "--overwrite"]


def trained(workdir: Path) -> Any:
    """Every line of metrics.jsonl, and what the report says but for times and memory."""
    report = json.loads((workdir / "report.json").read_text())
    kept = ("splits", "best_step", "store", "system", "examples")
    return (workdir / "metrics.jsonl").read_text(), {name: report[name] for name in kept}


def stored(workdir: Path) -> Any:
    """Every file of the store, and no other beside it. tantivy's files have names by chance, and
    the lock of its knowledge base says who wrote last."""
    places = {path.name: b"" for path in workdir.iterdir() if path.name.startswith("store")}
    files = _files(workdir / "store")
    by_chance = ("kb/index/", "kb/lock")
    return places | {name: file for name, file in files.items() if not name.startswith(by_chance)}


def based(work: Path) -> Any:
    """Every file of the knowledge base `work`/kb that counts, and what is found by every name."""
    kb = open_kb(work / "kb")
    kb.verify()
    index = TextIndex(kb)
    asked = [name for one in bases.content(kb).values() for name in (one.name, *one.aliases)]
    found = {name: [part.tolist() for part in index.names(name, 9)] for name in asked}
    files = {KB_JSON: (kb.path / KB_JSON).read_bytes()}
    for segment in kb.segments:
        for name in (ROWS, *(f"{name}.npy" for name in segment.arrays)):
            files[f"{segment.folder}/{name}"] = (kb.path / segment.folder / name).read_bytes()
    return files, found


def names(work: Path) -> list[str]:
    """Of all files of the knowledge base `work`/kb but its index's."""
    return [name for name in _files(work / "kb") if not name.startswith("index/")]


def shared(work: Path) -> Any:
    """What a training over the knowledge base beside it leaves in both."""
    return trained(work / "run"), based(work)


def recorded(workdir: Path) -> Any:
    """Every finished run of a suite, and what needs no training."""
    found: dict[str, Any] = {"untrained": json.loads((workdir / "baselines.json").read_text())}
    for path in sorted((workdir / "runs").glob("*/seed*/*")):
        name = str(path.relative_to(workdir))
        if path.name == "run.json":
            found[name] = json.loads(path.read_text()) | {"seconds": 0}
        else:
            found[name] = path.read_bytes()
    found["left"] = sorted(path.name for path in (workdir / "runs").glob("*/*"))
    return found


def exported(workdir: Path) -> Any:
    """What the export holds, which loads, and nothing beside it; orbax's files hold the time."""
    content = json.loads((workdir / "out" / "export.json").read_text())
    kept = {name: value for name, value in content.items() if name not in ("files", "checksum")}
    params = export.load(workdir / "out").params
    arrays = {name: np.asarray(leaf).tobytes() for name, leaf in params.items()}
    return sorted(path.name for path in workdir.glob("out*")), kept, arrays


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
