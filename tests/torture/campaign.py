"""The whole campaign, and its summary: `python -m tests.torture --help`."""

import collections
import concurrent.futures
import contextlib
import itertools
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipeline.kb.knowledge_base import open_kb
from data_pipeline.kb.text_index import TextIndex
from data_pipeline.output import Progress
from tests.support.commands import start
from tests.support.given_world import ENTITIES
from tests.torture.faults import Fault, Tried, drawn, root
from tests.torture.scenes import World

WORKERS = 2
HARD = ("train", "extract", "experiments", "export", "validate")  # killed in turn
BASES = ("kb build", "kb add", "kb remove", "kb compact", "kb train")  # and these after them
# Scenes that take so long that fewer of their writes fail, by so much.
LONG = {"experiments": 4, "kb build": 8, "kb add": 8, "kb train": 8}
DISKS = 8  # sizes of a full disk, from almost nothing to almost enough

Counts = collections.Counter[str]


class Campaign:
    """Everything that is tried, under `folder`; what went wrong is collected in `wrong`.

    Args:
        seed: of what is drawn: when, where and in which order.
    """

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed = folder, seed
        self.wrong: list[str] = []
        self.world = World(folder / "world")
        self._tried = Tried(folder / "tried")

    def kills(self, count: int) -> Counts:
        """Random kills, by time and by operation, of one scene after the other; then a kill and a
        SIGTERM at every line of a training's metrics and every checkpoint that appears."""
        rng = random.Random(self.seed)
        boundaries = self._tried.boundaries(self.world.scenes["train"], ("kill", "term"))
        faults = [("train", fault) for fault in boundaries]
        killed = (*HARD, *BASES)
        for i in range(count):
            scene = self.world.scenes[killed[i % len(killed)]]
            _, operations, seconds = self._tried.twin(scene)
            faults.append((scene.name, drawn(rng, operations, seconds, "kill")))
        return self._all("kills", faults)

    def failures(self, most: int) -> Counts:
        """Every operation of each scene that writes fails once, or as many as `most`, evenly
        chosen; and at random ones the disk is full from there on."""
        rng = random.Random(self.seed)
        faults = []
        for name in ("short", "extract", "export", "experiments", *BASES):
            scene = self.world.scenes[name]
            operations = self._tried.twin(scene)[1]
            most_here = max(1, most // LONG.get(name, 1))
            step = -(-operations // most_here)
            faults += [(name, Fault("once", at)) for at in range(1, operations + 1, step)]
            full = rng.sample(range(1, operations + 1), min(operations, most_here // 10))
            faults += [(name, Fault("full", at)) for at in full]
        return self._all("failing writes", faults)

    def disks(self) -> Counts:
        """Training on file systems that are too small; they need the right to mount."""
        if not root():
            return Counts({"not tried: only root mounts": 0})
        scene = self.world.scenes["short"]
        self._tried.twin(scene)
        whole = sum(
            path.stat().st_size
            for path in (self.folder / "tried" / "short-twin").rglob("*")
            if path.is_file()
        )
        counts = Counts()
        for i in range(1, DISKS + 1):
            place = self.folder / f"disk{i}"
            place.mkdir()
            with self._kept(), mounted(place, whole * i // (DISKS + 1)):
                process = start(scene.module, *scene.arguments(place / "work"))
                _, err = process.communicate(timeout=300)
                what = f"disk of {whole * i // (DISKS + 1)} bytes: exit {process.wait()}: {err}"
                assert process.wait() in (0, 1), what
                assert "Traceback" not in err, what
                if process.wait():
                    assert err.strip().splitlines()[-1].startswith("error: "), what
                counts["told" if process.wait() else "done"] += 1
        return counts

    def pairs(self) -> Counts:
        """Every two commands that take one folder, at once: each works or is told why not, and the
        training that goes on there afterwards is the twin's."""
        rng = random.Random(self.seed)
        scene = self.world.scenes["short"]
        twin = self._tried.twin(scene)[0]
        names = [name for name, _, _ in self.world.beside(self.folder, self.folder)]
        counts = Counts()
        both = [(a, b) for i, a in enumerate(names) for b in names[i:]]
        with Progress("pairs of commands", len(both)) as bar:
            for number, pair in enumerate(both):
                work = self.folder / f"pair{number}"
                out = self.folder / f"pair{number}-out"
                shutil.copytree(self.folder / "tried" / "short-twin", work)
                (work / "lock").unlink()
                shutil.rmtree(work / "checkpoints")
                commands = {n: (m, a) for n, m, a in self.world.beside(work, out)}
                with self._kept():
                    self._at_once(pair, commands, 0.6, rng, counts)
                    if "experiments" not in pair:  # a suite has the workdir to itself
                        after = start(scene.module, *scene.arguments(work))
                        _, err = after.communicate(timeout=300)
                        assert after.wait() == 0, f"after {' beside '.join(pair)}: {err}"
                        assert scene.result(work) == twin, f"{' beside '.join(pair)}: other result"
                shutil.rmtree(work)
                bar.advance()
        return counts

    def bases(self) -> Counts:
        """The same of every two that take one knowledge base, and one folder of shards: what reads
        is not disturbed, and the knowledge base holds what was acknowledged and nothing else."""
        rng, counts = random.Random(self.seed), Counts()
        work, base = self.folder / "shared", self.world.base()
        names = [*self.world.beside_kb(work)]
        both = [(a, b) for i, a in enumerate(names) for b in names[i:]]
        shards = [*itertools.product(self.world.beside_shards(work), repeat=2)]
        with Progress("pairs over a knowledge base", len(both) + len(shards)) as bar:
            for pair in (*both, *shards):
                if "build" not in pair and pair in both:
                    shutil.copytree(base, work)
                commands = self.world.beside_kb(work) | self.world.beside_shards(work)
                with self._kept():
                    codes = self._at_once(pair, commands, rng.choice((0.1, 2)), rng, counts)
                    if pair in both:
                        self._acknowledged(pair, codes, work / "kb")
                shutil.rmtree(work, ignore_errors=True)  # refused, none is made
                bar.advance()
        return counts

    def _at_once(
        self,
        pair: tuple[str, str],
        commands: Mapping[str, tuple[str, list[str]]],
        apart: float,
        rng: random.Random,
        counts: Counts,
    ) -> list[int]:
        """Starts two commands up to so many seconds apart. How they end: 0, or 1 with a line."""
        running, codes = [], []
        for name in pair:
            module, arguments = commands[name]
            running.append(start(module, *arguments))
            time.sleep(rng.uniform(0, apart))
        for name, process in zip(pair, running, strict=True):
            _, err = process.communicate(timeout=300)
            codes.append(process.wait())
            what = f"{' beside '.join(pair)}: {name} ends with {codes[-1]}: {err}"
            assert codes[-1] in (0, 1), what
            assert "Traceback" not in err, what
            if codes[-1]:
                assert err.strip().splitlines()[-1].startswith("error: "), what
            counts["told" if codes[-1] else "done"] += 1
        return codes

    def _acknowledged(self, pair: tuple[str, str], codes: Sequence[int], path: Path) -> None:
        """The knowledge base holds what those that ended with 0 made of it."""
        what = f"{' beside '.join(pair)}, which end with {codes}"
        done = {name for name, code in zip(pair, codes, strict=True) if not code}
        new = "build" in pair
        assert new or done >= {*pair} & {"info", "verify", "search"}, f"{what}: a reader is told"
        assert not new or "build" in done, what
        wanted = {f"Q{i}" for i in range(ENTITIES)}
        if not new:  # as `World.base` leaves it
            wanted = wanted - {"Q9"} | {"R0"}
        wanted |= {"R1"} if "add" in done else set()
        wanted -= {"Q2", "Q5"} if "remove" in done else set()
        kb = open_kb(path)
        kb.verify()
        found = {one.id: one.name for one in kb.entities(np.flatnonzero(kb.alive))}
        assert found.keys() == wanted, f"{what}: {found.keys() ^ wanted}"
        assert (found["Q1"] == "Other 1") == ("add" in done), what
        index = TextIndex(kb)
        for id, name in found.items():
            rows = index.names(name, ENTITIES)[0].tolist()
            assert id in [kb.ids[row] for row in rows], f"{what}: {id} is not found"

    def cases(self, count: int) -> Counts:
        """Random files, flags and pictures."""
        from tests.torture import cases  # hypothesis

        found = Counts()
        with self._kept():
            found.update(cases.run(self.seed, count, self.folder))
        return found

    def _all(self, title: str, faults: Iterable[tuple[str, Fault]]) -> Counts:
        counts = Counts()
        faults = list(faults)

        def one(name: str, fault: Fault) -> None:
            with self._kept():
                how = self._tried.once(self.world.scenes[name], fault)
                counts[f"{name}, {fault.kind}: {how}"] += 1

        bar, pool = Progress(title, len(faults)), concurrent.futures.ThreadPoolExecutor(WORKERS)
        with bar, pool:
            for done in concurrent.futures.as_completed(pool.submit(one, *f) for f in faults):
                done.result()
                bar.advance()
        return counts

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """What is wrong inside is kept, and the campaign goes on."""
        try:
            yield
        except (AssertionError, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            self.wrong.append(f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def mounted(place: Path, size: int) -> Iterator[None]:
    """A file system in memory of so many bytes at `place`."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={max(size, 4096)}", "tmpfs", str(place)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True, capture_output=True)


def run(seed: int, kills: int, failures: int, count: int) -> tuple[list[str], list[str]]:
    """The campaign: lines of its summary, as Markdown, and what went wrong."""
    with tempfile.TemporaryDirectory(prefix="drin_jax_torture_") as name:
        campaign = Campaign(Path(name), seed)
        parts: dict[str, Callable[[], Counts]] = {
            f"{kills} kills, each gone on from": lambda: campaign.kills(kills),
            "Writes that fail once, and disks that are full from there on": lambda: (
                campaign.failures(failures)
            ),
            "File systems that are too small": campaign.disks,
            "Two commands at once in one folder": campaign.pairs,
            "Two commands at once over one knowledge base": campaign.bases,
            f"{count} random files, flags and pictures": lambda: campaign.cases(count),
        }
        lines = ["| part | seconds | wrong | what came of it |", "|---|---:|---:|---|"]
        for title, part in parts.items():
            began, before = time.monotonic(), len(campaign.wrong)
            found = part()
            seconds = time.monotonic() - began
            told = "; ".join(f"{what} {n}" for what, n in sorted(found.items()))
            lines.append(f"| {title} | {seconds:.0f} | {len(campaign.wrong) - before} | {told} |")
        return lines, campaign.wrong
