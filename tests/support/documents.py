"""What README and docs tell to type: commands and Python."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.paths import ROOT

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^(?: {4}.*)?\n)*^ {4}.*\n?", re.MULTILINE)
RUN = ("sh", "python")  # fences that a reader is told to run; "text" is what he may find elsewhere
OWN = (ROOT / "docs" / "tutorial.md", ROOT / "docs" / "systems.md")
PROGRAM = re.compile(r"^(?:\w+=\S+ )*(?:OTHER/bin/)?(?:drin-jax|python -m|make)\b")


class Block(NamedTuple):
    """A block of a document: its fence's word, "" where it is indented, and its text."""

    kind: str
    text: str


class Command(NamedTuple):
    """A command line of ours, its words without the program's own, and where it stands."""

    module: str
    words: tuple[str, ...]
    place: str


def documents() -> list[Path]:
    """Every page that users read."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    made = {ROOT / "docs" / "reference" / f"{name}.md" for name in ("commands", "config")}
    return sorted({*pages} - made)


def pages_to_run() -> list[Path]:
    """Those with fences that are run as they stand, but for what has a test of its own."""
    return [
        page
        for page in documents()
        if page not in OWN and any(block.kind in RUN for block in blocks(page))
    ]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    fenced = [
        (one.start(), Block(one[2] or "text", textwrap.dedent(one[3])))
        for one in FENCE.finditer(text)
    ]
    rest = FENCE.sub(lambda one: re.sub(r"[^\n]", "", one[0]), text)
    spaces = [(one.start(), Block("", textwrap.dedent(one[0]))) for one in INDENTED.finditer(rest)]
    return [block for _, block in sorted(fenced, key=lambda one: one[0])] + [
        block for _, block in spaces
    ]


def commands(page: Path) -> Iterator[Command]:
    """Every command line of ours in a page, whatever it stands in."""
    from drin_jax.cli import COMMANDS

    for block in blocks(page):
        if block.kind == "python":
            continue
        for line in re.sub(r"\s*\\\n\s*", " ", block.text).splitlines():
            line = re.split(r"  +(?=[^-\s])|\s#\s", line.strip())[0]
            if not PROGRAM.match(line) or "…" in line.split("--")[0]:
                continue
            words = _words(line)
            while "=" in words[0]:
                words = words[1:]
            name = page.relative_to(ROOT).as_posix()
            if words[0] == "make":
                yield Command("make", tuple(words[1:]), name)
            elif words[0] == "drin-jax":
                if len(words) > 1 and not words[1].startswith("-"):
                    assert words[1] in COMMANDS, (name, line)
                    yield Command(COMMANDS[words[1]][0], tuple(words[2:]), name)
            else:
                yield Command(words[2], tuple(words[3:]), name)


def _words(line: str) -> list[str]:
    """The words of the first command of a line, without what is left out or may be."""
    line = re.split(r" (?:\||&&|>) ", line)[0]
    line = re.sub(r"[\[\]…]|\(.*", " ", line) if "'" not in line and '"' not in line else line
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()
