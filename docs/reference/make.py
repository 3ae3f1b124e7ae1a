"""The pages of the site that nobody writes: every command and every config field, as they are.

    python -m docs.reference.make

`make docs` does it before it builds. Equations become MathML, which browsers show by themselves.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from configs import common
from drin_jax.cli import COMMANDS
from drin_jax.config import flat

HERE = Path(__file__).parent
ROOM = re.compile(r"    config\.(?P<room>\w+) = (?P<variable>\w+) = ConfigDict\(\)$")
FIELD = re.compile(r"    (?P<variable>\w+)\.(?P<name>\w+) = (?P<value>.+?)(?:  # (?P<what>.*))?$")


def mathml(source: str, language: str, css_class: str, options: Any, md: Any, **_: Any) -> str:
    """A fence of LaTeX as MathML: an equation a line."""
    from latex2mathml.converter import convert

    lines = [line for line in source.splitlines() if line.strip()]
    return "".join(f'<p class="{css_class}">{convert(line, display="block")}</p>' for line in lines)


def fields() -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of every config field, in the order of configs/common.py."""
    source = Path(common.__file__).read_text(encoding="utf-8").splitlines()
    rooms, above = {"config": ""}, list[str]()
    for line in source[source.index("    config = ConfigDict()") + 1 :]:
        if line.startswith("    # "):
            above.append(line.strip(" #"))
        elif room := ROOM.match(line):
            rooms[room["variable"]], above = f"{room['room']}.", []
        elif found := FIELD.match(line):
            what = " ".join([*above, found["what"] or ""]).strip()
            yield rooms[found["variable"]] + found["name"], found["value"], what
            above = []
        elif not line.strip():
            above = []


def config_page() -> str:
    """Markdown of every config field. AssertionError where the source has one that is not found."""
    found = [*fields()]
    assert sorted(name for name, _, _ in found) == sorted(flat(common.get_config()))
    lines = [
        "# Config fields",
        "",
        "Every field there is, from `configs/common.py`; cards override a few. Any of them is",
        "set by `--config.FIELD=VALUE`. One without words goes with the one above it.",
    ]
    room = None
    for name, value, what in found:
        own = name.partition(".")[0] if "." in name else "the run"
        if own != room:
            lines += ["", f"## {own}", "", "| field | default | |", "|---|---|---|"]
            room = own
        told = what.replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| `{name}` | `{ast.literal_eval(value)!r}` | {told} |")
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """Markdown of what every command's --help prints."""
    lines = ["# Commands", "", "`drin-jax COMMAND …`, in a checkout `python -m MODULE …`.", ""]
    lines += ["| command | module | |", "|---|---|---|"]
    lines += [f"| [`{c}`](#{c}) | `{module}` | {what} |" for c, (module, what) in COMMANDS.items()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        told = pool.map(helped, [module for module, _ in COMMANDS.values()])
        for command, text in zip(COMMANDS, told, strict=True):
            lines += ["", f"## {command}", "", "```text", text, "```"]
    return "\n".join(lines) + "\n"


def helped(module: str) -> str:
    """What a module's --help prints, without the paths of this machine."""
    told = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
    ).stdout
    return told.replace(f"{HERE.parents[1]}/", "").strip()


def main() -> None:
    """Write the pages."""
    for name, page in (("config", config_page), ("commands", commands_page)):
        (HERE / f"{name}.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
