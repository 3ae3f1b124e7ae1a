"""Tables of docs/performance.md, written from the benchmarks' JSON files.

    python -m benchmarks.report [FOLDER] [--document FILE] [--check]

FOLDER (benchmarks/results) holds what the benchmarks wrote by --json: NAME.json or
NAME-ANYTHING.json for the benchmark NAME. In the document a file's table stands between two lines,

    <!-- table: FILE'S NAME WITHOUT .json -->
    <!-- end of table -->

and is written anew; all else is left as it is. With --check nothing is written: the exit code says
whether the document agrees with the files.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

FOLDER = Path("benchmarks/results")
DOCUMENT = Path("docs/performance.md")
MARKED = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)

Result = dict[str, Any]


def grid(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    head = list(head)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *map(list, rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def train_step(result: Result) -> str:
    """One training step, ours and PyTorch's in both of its forms."""
    names = {"ours": "ours", "each_edge": "PyTorch, each edge by itself",
             "shared": "PyTorch, shared projections"}  # fmt: skip
    head = ("r", "step", "ms (wall)", "ms (CPU)", "multiply-adds a candidate",
            "share of matmul rate", "ours is faster by (wall)", "(CPU)")  # fmt: skip
    return grid(
        head,
        (
            (
                f"{row['r']}",
                shown,
                f"{1e3 * row[name]['wall_s']:.1f}",
                f"{1e3 * row[name]['cpu_s']:.1f}",
                f"{row[name]['multiply_adds_per_candidate'] / 1e6:.1f} M",
                f"{row[name]['share_of_matmul_rate']:.0%}",
                *(
                    f"{row[name][f'ratio_{kind}']:.2f}" * (name != "ours")
                    for kind in ("wall", "cpu")
                ),
            )
            for row in result["rows"]
            for name, shown in names.items()
        ),
    )


def epoch(result: Result) -> str:
    """A whole epoch with its data, ours and PyTorch's."""
    head = ("data set", "seconds", "ours: loading + steps", "PyTorch: loading + step",
            "ratio", "from disk", "steps alone", "ratio to shared projections", "steps alone",
            "our peak memory", "of the layout")  # fmt: skip
    compared = ("epoch", "cold", "arithmetic", "epoch_shared", "arithmetic_shared")
    lines = []
    for row in result["rows"]:
        for kind, name in (("cpu_s", "CPU"), ("wall_s", "wall")):
            sides = [
                f"{row[side]['loading'][kind]:.1f} + {row[side]['arithmetic'][kind]:.1f}"
                for side in ("ours", "theirs")
            ]
            ratios = [row[f"ratio_{of}"][kind] for of in compared]
            memory = f"{row['ours']['peak_gb']:.2f} GB"
            share = f"{row['memory_share']:.2f} of {row['layout_gb']:.1f} GB"
            lines.append((row["shape"], name, *sides, *(f"{x:.2f}" for x in ratios), memory, share))
    return grid(head, lines)


def start(result: Result) -> str:
    """Starts: first, second, and PyTorch's."""
    phases = ("import", "build", "compile", "first_step", "before")
    head = ("start", "imports s", "build s", "compile or load s", "first step s",
            "imports to first step s")  # fmt: skip
    names = {"cold": "first", "cached": "second", "pytorch": "PyTorch"}
    return grid(
        head,
        ((shown, *(f"{result[name][p]:.2f}" for p in phases)) for name, shown in names.items()),
    )


def predict(result: Result) -> str:
    """Predictions for accelerators, and what was measured on one."""
    head = ("device", "", "seconds", "arithmetic s", "memory s")
    lines = [
        (name, "predicted", *(f"{row[kind]:.1f}" for kind in
                                        ("seconds", "arithmetic_s", "memory_s")))
        for name, row in result["predicted"].items()
    ]  # fmt: skip
    if "measured" in result:
        row = result["measured"]
        lines.append(
            (row["device"], f"measured, {row['steps']:,} steps", f"{row['seconds']:.1f}", "", "")
        )
    return grid(head, lines)


def scaling(result: Result) -> str:
    """Slopes of time and memory."""
    head = ("grows", "from", "to", "time slope", "memory slope", "ms CPU a step, first and last")
    return grid(
        head,
        (
            (
                row["axis"],
                f"{row['points'][0]['size']:,}",
                f"{row['points'][-1]['size']:,}",
                f"{row['time_slope']:.2f}",
                f"{row['memory_slope']:.2f}",
                " / ".join(f"{1e3 * row['points'][i]['cpu_s']:.1f}" for i in (0, -1)),
            )
            for row in result["rows"]
        ),
    )


TABLES: dict[str, Callable[[Result], str]] = {
    function.__name__: function for function in (train_step, epoch, start, predict, scaling)
}


def tables(folder: Path) -> dict[str, str]:
    """File's name -> table, of every result in the folder; exits where one cannot be read."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        name = path.stem.split("-")[0]
        if name not in TABLES:
            raise SystemExit(f"error: {path}: no table of {name!r}; known are {', '.join(TABLES)}")
        try:
            found[path.stem] = TABLES[name](json.loads(path.read_text()))
        except (KeyError, TypeError, ValueError) as error:
            raise SystemExit(
                f"error: {path}: not what benchmarks.{name} writes ({error!r})"
            ) from None
    if not found:
        raise SystemExit(f"error: {folder}: holds no results; write some by --json")
    return found


def rewrite(document: str, found: dict[str, str], where: str) -> str:
    """The document with its tables from the results; exits where either lacks the other's."""
    marked = [name for _, name, _ in MARKED.findall(document)]
    for name in [*found, *marked]:
        if (marked.count(name), name in found) != (1, True):
            raise SystemExit(
                f"error: table {name!r}: {marked.count(name)} places in {where} and "
                f"{int(name in found)} results; each needs one (benchmarks/report.py says how)"
            )
    return MARKED.sub(lambda match: match[1] + found[match[2]] + match[3], document)


def main(argv: list[str] | None = None) -> None:
    """Write the tables, or with --check say whether they are written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(argv)
    old = args.document.read_text()
    new = rewrite(old, tables(args.folder), str(args.document))
    if args.check and new != old:
        sys.exit(f"error: {args.document} disagrees with {args.folder}; run benchmarks.report")
    if not args.check:
        args.document.write_text(new)


if __name__ == "__main__":
    main()
