"""The commands of docs/tutorial.md, typed in their order, and what they print written into it.

    python -m benchmarks.tutorial --document=docs/tutorial.md [--keep FOLDER] [--picture FILE]
    python -m benchmarks.tutorial --document=docs/tutorial.md --here MODEL

A newcomer is played: the wheel of this tree is put into an empty folder, with the files that the
document shows, and whoever types has an empty home, so that nothing is found ready made. In the
document, what is typed stands before a place for what it prints:

    ```sh
    drin-jax …
    ```

    <!-- prints
    a regular expression a line, each of which has to be found
    -->
    <!-- end of output -->

Python is one session. A command that fails, or does not print what it has to (the entity that is
wanted), ends it all with what it printed, and the document is left as it is. Without --picture, one
is drawn. --here takes this tree, this interpreter and, for the sample's, the model in MODEL, so
that nothing is installed; answers of that model are not judged, and nothing is written.
"""

import argparse
import dataclasses
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
PACKED = (
    *("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE"),
    *("drin_jax", "data_pipeline", "configs"),
)
PICTURE = "match.jpg"
GOAL = 120  # seconds from an empty folder to the first answer
BETWEEN = "-- end of a block --"
PROGRAM = '#!/bin/sh\nexec "{python}" -m drin_jax.cli "$@"\n'
FILE = re.compile(r"<!-- file: (\S+) -->\n```\w*\n(.*?)```", re.DOTALL)
TYPED = re.compile(
    r"```(?P<kind>sh|python)\n(?P<shown>[^`]*)```\n\n(?P<head><!-- prints\n(?P<wanted>.*?)-->\n)"
    r".*?(?P<end><!-- end of output -->)",
    re.DOTALL,
)
MEASURED = re.compile(r"(<!-- measured -->\n).*?(<!-- end of output -->)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Step:
    """Something that the document tells to type, "sh" or "python", and what it has to print."""

    kind: str
    shown: str
    wanted: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Done:
    """What a step printed, its seconds, and the seconds of all cores together."""

    output: str
    seconds: float
    cpu: float


def steps_of(document: str) -> list[Step]:
    """What a document tells to type, in its order."""
    return [
        Step(one["kind"], one["shown"].rstrip("\n"), tuple(one["wanted"].splitlines()))
        for one in TYPED.finditer(document)
    ]


class Newcomer:
    """Who types, in `town`, with the home `home`.

    Args:
        folder: an empty one, for both.
        here: a model, with which this interpreter and tree are taken; None: what gets installed.
    """

    def __init__(self, folder: Path, here: Path | None):
        self.home, self.town = folder / "home", folder / "town"
        programs = self.town / ".venv" / "bin"  # as if activated
        self.python = str(programs / "python") if here is None else sys.executable
        base = Path(getattr(sys, "_base_executable", sys.executable)).parent
        own = (
            ("PYTHON", "VIRTUAL_ENV")
            if here is not None
            else ("PYTHON", "VIRTUAL_", "JAX_", "XLA_")
        )
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(own)} | {
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
            "PATH": os.pathsep.join([str(programs), str(base), os.environ["PATH"]]),
            "PYTHONUNBUFFERED": "1",  # the lines of both streams in their order
        }
        self.home.mkdir(parents=True)
        self.town.mkdir()
        if here is not None:
            programs.mkdir(parents=True)
            (programs / "drin-jax").write_text(PROGRAM.format(python=sys.executable))
            (programs / "drin-jax").chmod(0o755)
            # A folder of this name comes before the package's own sample.
            (self.town / "sample").symlink_to(here.absolute(), target_is_directory=True)
            self.environment["PYTHONPATH"] = str(ROOT)

    def types(self, kind: str, shown: str) -> Done:
        """Type, and wait. SystemExit where it fails."""
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        program = ["bash", "-e"] if kind == "sh" else [self.python]
        found = subprocess.run(
            [*program, "-c", shown],
            cwd=self.town,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        if found.returncode:
            raise SystemExit(f"error: {shown}\nended with {found.returncode}:\n{found.stdout}")
        output = found.stdout
        for place, name in ((f"{self.town}/", ""), (str(self.town), "."), (str(self.home), "~")):
            output = output.replace(place, name)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Done("\n".join(map(str.rstrip, output.splitlines())).strip("\n"), seconds, spent)


def follow(
    document: str, folder: Path, here: Path | None = None, picture: Path | None = None
) -> list[Done]:
    """Type everything that a document tells to, in an empty folder. SystemExit at what fails."""
    newcomer, steps = Newcomer(folder, here), steps_of(document)
    for name, content in FILE.findall(document):
        (newcomer.town / name).write_text(content, encoding="utf-8")
    if picture:
        shutil.copy(picture, newcomer.town / PICTURE)
    else:
        draw(newcomer.town / PICTURE)
    if here is None:
        shutil.copy(wheel_of(ROOT, folder), newcomer.town)
    else:
        steps = [one for one in steps if "pip install" not in one.shown]
    session = f"\nprint({BETWEEN!r})\n".join(one.shown for one in steps if one.kind == "python")
    done: list[Done] = []
    parts: list[str] = []
    for step in steps:
        if step.kind == "sh" or not parts:
            typed = step.shown if step.kind == "sh" else session
            found = newcomer.types(step.kind, typed)
            print(f"{found.seconds:6.1f} s, {found.cpu:.1f} s of CPU: {typed}", flush=True)
        if step.kind == "python":
            parts = parts or found.output.split(BETWEEN)
            found = dataclasses.replace(found, output=parts.pop(0).strip("\n"))
        for wanted in step.wanted if here is None else ():
            if not re.search(wanted, found.output, re.MULTILINE):
                raise SystemExit(
                    f"error: {step.shown}\ndoes not print {wanted!r} but:\n{found.output}"
                )
        done.append(found)
    return done


def wheel_of(tree: Path, folder: Path) -> Path:
    """The wheel of a tree, built from a copy: a build folder that is left over would be packed."""
    copy = folder / "tree"
    copy.mkdir()
    for name in PACKED:
        if (tree / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(tree / name, copy / name, ignore=ignored)
        else:
            shutil.copy(tree / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "."]
    subprocess.run([*command, str(copy)], cwd=folder, check=True)
    (found,) = folder.glob("*.whl")
    return found


def draw(file: Path) -> None:
    """A ball on grass."""
    picture = Image.new("RGB", (240, 160), (46, 140, 60))
    pen = ImageDraw.Draw(picture)
    pen.line((0, 120, 240, 100), fill="white", width=4)
    pen.ellipse((100, 60, 140, 100), fill="white", outline="black", width=3)
    picture.save(file)


def machine() -> str:
    """What it is measured on."""
    name = platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        name = found[1] if found else name
    return f"{os.cpu_count()} cores of {name}"


def measured(done: Sequence[Done], environment: Path) -> str:
    """What the first answer took, in a line."""
    install, first = done[:2]
    seconds = install.seconds + first.seconds
    files = (file for file in environment.rglob("*") if not file.is_symlink() and file.is_file())
    size = sum(file.stat().st_size for file in files) / 1e9
    return (
        f"From the empty folder to the first answer: {install.seconds:.0f} s to install "
        f"({size:.1f} GB), {first.seconds:.0f} s to answer, {seconds:.0f} s together, in which the "
        f"cores computed for {install.cpu + first.cpu:.0f} s ({machine()}). The aim of {GOAL} s is "
        f"{'met' if seconds <= GOAL else 'not met'}."
    )


def written(document: str, done: Sequence[Done], told: str) -> str:
    """The document with what was printed this time."""
    outputs = enumerate(done, 1)

    def filled(match: re.Match[str]) -> str:
        number, found = next(outputs)
        shown = f"```text\n{found.output}\n```\n" if found.output else ""
        took = f"\n({found.seconds:.1f} s)\n"
        if match["kind"] == "python":
            took = f"\n({found.seconds:.1f} s for all of them)\n" if number == len(done) else ""
        return (
            f"```{match['kind']}\n{match['shown']}```\n\n{match['head']}{shown}{took}{match['end']}"
        )

    def told_in(match: re.Match[str]) -> str:
        return f"{match[1]}{told}\n{match[2]}"

    return MEASURED.sub(told_in, TYPED.sub(filled, document))


def main(argv: list[str] | None = None) -> None:
    """Follow the document, print what was typed with its seconds, and write it anew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tutorial", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--document", type=Path, required=True)
    parser.add_argument("--keep", type=Path, help="an empty folder to do it in, which is kept")
    parser.add_argument("--picture", type=Path, help="a real picture of a match")
    parser.add_argument("--here", type=Path, help="the workdir of a run, or a folder of a model")
    args = parser.parse_args(argv)
    if args.keep and args.keep.exists() and any(args.keep.iterdir()):
        raise SystemExit(f"error: --keep {args.keep}: is not empty")
    document = args.document.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="tutorial_") as name:
        folder = Path(args.keep or name).absolute()
        done = follow(document, folder, args.here, args.picture)
        if args.here is None:
            told = measured(done, folder / "town" / ".venv")
            print(told)
            args.document.write_text(written(document, done, told), encoding="utf-8")


if __name__ == "__main__":
    main()
