"""Looks a data set over before it is used: what is there, what is missing, what is odd.

    python -m data_pipeline.validate --format=wikidiverse DIR [--json] [--strict]

Exit code 0: usable; 1: unusable, one line or an "error" row says why; 2: wrong flags; 3, with
--strict only: usable with warnings.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from rich.table import Table
from rich.text import Text

from data_pipeline import exits, output, readers
from data_pipeline.output import visible
from data_pipeline.schema import UserError
from data_pipeline.splits import MODES
from data_pipeline.validate import examination
from data_pipeline.validate.examination import Finding, Result

RELEASE = "release"  # the authors' preprocessed arrays: no reader, checked by their own module
FORMATS = (*(name for name in readers.READERS if name != "sample"), RELEASE)
UNUSABLE, WARNED = 1, 3


class Flags(argparse.ArgumentParser):
    """Ends in the house's one line on wrong flags."""

    def error(self, message: str) -> NoReturn:
        """One line, and exit code 2."""
        exits.fail(f"{message}; see --help")
        sys.exit(2)


def validate(
    form: str,
    root: str | Path,
    *,
    name: str = "",
    images: int = 200,
    split: str = "disjoint",
    valid_fraction: float = 0.1,
    outside: bool = False,
) -> Result:
    """What `examination.examine` finds in the data set; for "release" its problems as errors.

    Args:
        name, split, valid_fraction, outside: as a config's `data` has them.
        images: as `examination.examine` has it.

    Raises:
        UserError: it cannot be read at all.
    """
    if form != RELEASE:
        corpus = readers.load(form, root, name=name or form, outside=outside)
        used = readers.used(corpus, split=split, valid_fraction=valid_fraction)
        return examination.examine(corpus, used, images)
    from data_pipeline.release import convert  # here, as nothing else of this command needs it

    return Result({}, {}, [Finding("error", problem) for problem in convert.check(Path(root))])


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = Flags(prog="python -m data_pipeline.validate", description=__doc__.splitlines()[0])
    parser.add_argument("--format", required=True, choices=FORMATS, help="what DIR holds")
    parser.add_argument("--name", default="", help="the data set, where DIR holds several")
    parser.add_argument(
        "--split", choices=MODES, default="disjoint", help="the config's data.split"
    )
    parser.add_argument("--valid_fraction", type=float, default=0.1, help="the config's, too (0.1)")
    parser.add_argument("--outside", action="store_true", help="let pictures lie outside DIR")
    parser.add_argument("--images", type=int, default=200, help="pictures to open (200)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--strict", action="store_true", help="exit 3 where there are warnings")
    parser.add_argument("dir", metavar="DIR", help="folder of the data set")
    given = parser.parse_args(arguments)
    if given.images < 0:
        parser.error(f"--images={given.images} must be at least 0")
    if not 0 <= given.valid_fraction < 1:
        parser.error(f"--valid_fraction={given.valid_fraction} must be from 0 to less than 1")
    named = dict(vars(given))
    form, root, as_json, strict = (named.pop(key) for key in ("format", "dir", "json", "strict"))
    try:
        result = validate(form, root, **named)
    except UserError as error:
        message = " ".join(str(error).split())
        if not as_json:
            exits.fail(message)
            return UNUSABLE
        result = Result({}, {}, [Finding("error", message)])
    if as_json:
        told = {"format": form, "dir": root, **dataclasses.asdict(result)}
        print(json.dumps(told, indent=1))
    else:
        show(result)
    levels = {finding.level for finding in result.findings}
    if "error" in levels:
        return UNUSABLE
    return WARNED if levels and strict else 0


def show(result: Result) -> None:
    """The result on stdout: tables on a terminal, else plain lines."""
    console = output.console()
    errors = sum(found.level == "error" for found in result.findings)
    verdict = f"{'unusable' if errors else 'usable'}: {errors} errors"
    verdict += f", {len(result.findings) - errors} warnings"
    if console.is_terminal:
        names = next(iter(result.splits.values()), {})
        rows = [[name, *(own[name] for own in result.splits.values())] for name in names]
        _table(console, ["", *result.splits], rows)
        _table(console, ["whole data set", ""], [[*count] for count in result.counts.items()])
        rows = [
            [f.level, f.name, "" if f.count is None else f.count, ", ".join(f.examples)]
            for f in result.findings
        ]
        _table(console, ["", "found", "", "such as"], rows)
        console.print(verdict)
        return
    for split, own in result.splits.items():
        for name, count in own.items():
            print(f"{split}: {name}: {count}")
    for name, count in result.counts.items():
        print(f"{name}: {count}")
    for found in result.findings:
        such_as = f", such as {', '.join(found.examples)}" if found.examples else ""
        many = "" if found.count is None else f": {found.count}"
        print(visible(f"{found.level}: {found.name}{many}{such_as}"))
    print(verdict)


def _table(console: Any, head: list[str], rows: list[list[Any]]) -> None:
    table = Table(*head)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    if rows:
        console.print(table)


if __name__ == "__main__":
    exits.run(main)
