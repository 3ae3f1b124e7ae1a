"""A run's result as tables on the terminal and as `report.json` and `report.md` in the workdir.

python -m drin_jax.report WORKDIR [WORKDIR ...]      one table of several runs, as Markdown
"""

import argparse
import html
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_pipeline.files import write_json, write_text
from data_pipeline.schema import UserError

_SCOPES = {"end_to_end": "end to end", "answerable": "answerable"}
_READINGS = {
    "optimistic": "ties optimistic",
    "pessimistic": "ties pessimistic",
    "key": "ties by retrieval order",
}
TOLD = 0.0005  # half of the last decimal shown: readings of a tie that differ less are one


def rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Table rows of one split: subset, scope, system, n, hits@k..., MRR.

    Tie-aware everywhere (the gold at the mean rank of its ties); on the whole split and its clean
    subset also the other readings of a tie, where they differ. Without what says nothing new: a
    group of the whole split, and the answerable ones where all are.
    """
    out = []
    whole = result["counts"]["mentions"]
    for subset, scopes in result["subsets"].items():
        sizes = {s: max(m["mean"]["n"] for m in scopes[s].values()) for s in _SCOPES}
        for scope, title in _SCOPES.items():
            if subset != "all" and sizes["end_to_end"] == whole:
                continue
            if scope == "answerable" and sizes[scope] in (0, sizes["end_to_end"]):
                continue
            for system, by_ties in scopes[scope].items():
                found = {system: by_ties["mean"]}
                if subset in ("all", "clean"):
                    found |= {f"{system}, {name}": m for name, m in differing(by_ties).items()}
                for name, metrics in found.items():
                    values = [f"{100 * v:.1f}" for k, v in metrics.items() if k != "n"]
                    out.append((subset, title, name, str(metrics["n"]), *values))
    return out


def differing(by_ties: Mapping[str, Mapping[str, float]]) -> dict[str, Mapping[str, float]]:
    """The readings of a tie, by their names, that differ from the mean rank's in any metric."""
    mean = by_ties["mean"]
    return {
        name: by_ties[ties]
        for ties, name in _READINGS.items()
        if ties in by_ties and any(abs(by_ties[ties][k] - v) >= TOLD for k, v in mean.items())
    }


def markdown_text(text: object) -> str:
    """Text that Markdown and the HTML inside it leave as it is, on one line."""
    out = " ".join(html.escape(str(text), quote=False).split())
    for sign in "\\|*_`[]":
        out = out.replace(sign, "\\" + sign)
    return out


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> list[str]:
    """Lines of a table; its first `words` columns are words, the others numbers."""
    lines = ["|" + "---|" * words + "---:|" * (len(head) - words)]
    shown = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return [shown[0], *lines, *shown[1:]]


def _head(ks: Sequence[int]) -> list[str]:
    return ["mentions", "scope", "system", "n", *(f"hits@{k}" for k in ks), "MRR"]


def _caption(result: Mapping[str, Any], protocol: str) -> list[str]:
    counts = ", ".join(f"{name} {n}" for name, n in result["counts"].items())
    recall = ", ".join(f"@{k.split('@')[1]} {100 * v:.1f}" for k, v in result["retrieval"].items())
    return [protocol, counts, f"retrieval recall (of all but NIL) {recall}"]


def show(report: Mapping[str, Any]) -> None:
    """The report on stdout: linked mentions, then each split as a whole and its clean part."""
    console = Console(width=None if Console().is_terminal else 130, highlight=False)
    examples = report.get("examples", {"told": "", "mentions": []})
    if examples["told"]:
        console.print(Text(examples["told"]), soft_wrap=True)
    for mention in examples["mentions"]:
        console.print()
        for name, text in mention.items():
            console.print(Text(f"  {name:<10} {' '.join(text.split())}"), soft_wrap=True)
    for result in report["splits"].values():
        console.print()
        _show_split(console, result, report)


def _show_split(console: Console, result: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    table = Table(title=f"{result['split']}", title_justify="left", pad_edge=False)
    for i, name in enumerate(_head(report["ks"])):
        table.add_column(name, overflow="fold", justify="left" if i < 3 else "right")
    previous: tuple[str, ...] = ()
    for row in (row for row in rows(result) if row[0] in ("all", "clean")):
        same = row[:2] == previous
        if previous and not same:
            table.add_section()
        table.add_row(*map(Text, ("", "") if same else row[:2]), *map(Text, row[2:]))
        previous = row[:2]
    console.print(table)
    for line in _caption(result, report["protocol"]):
        console.print(Text(f"  {line}"))


def write(workdir: Path, report: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write `report.json`, everything, and `report.md`, to be read. Returns both paths."""
    lines = [f"# {markdown_text(report['name'])}", ""]
    for result in report["splits"].values():
        lines += [f"## {result['split']}", ""]
        lines += [f"* {markdown_text(t)}" for t in _caption(result, report["protocol"])] + [""]
        cells = [[markdown_text(cell) for cell in row] for row in rows(result)]
        lines += [*markdown_table(_head(report["ks"]), cells, 3), ""]
    if examples := report.get("examples"):
        lines += ["## Linked mentions", "", markdown_text(examples["told"]), ""]
    for mention in examples["mentions"] if examples else ():
        lines += [f"* {name}: {markdown_text(text)}" for name, text in mention.items()] + [""]
    paths = workdir / "report.json", workdir / "report.md"
    write_json(paths[0], report)
    write_text(paths[1], "\n".join(lines))
    return paths


def compare(
    reports: Sequence[Mapping[str, Any]],
    split: str = "test",
    subsets: Sequence[str] = ("all", "clean"),
) -> str:
    """Several runs over one data set as one Markdown table: every system once on each subset, end
    to end and (where that is another set) answerable; then what each run cost.

    Raises:
        UserError: the reports are of different data or protocols, which no table may mix.
    """
    first = reports[0]
    for other in reports[1:]:
        same = ("protocol", "ks")
        if any(first[k] != other[k] for k in same) or (
            first["splits"][split]["counts"] != other["splits"][split]["counts"]
        ):
            raise UserError(
                f"{first['name']} and {other['name']} have different protocols or counts "
                f"({first['protocol']} against {other['protocol']}); they cannot share a table"
            )
    found: dict[tuple[str, ...], tuple[str, ...]] = {}
    for subset in subsets:
        if subset not in first["splits"][split]["subsets"]:
            known = ", ".join(first["splits"][split]["subsets"])
            raise UserError(f"{first['name']} has no subset {subset!r}; it has {known}")
        for scope in _SCOPES.values():
            for row in (row for report in reports for row in rows(report["splits"][split])):
                if row[:2] == (subset, scope):
                    found.setdefault(row[:3], row)
    cells = [[markdown_text(cell) for cell in row] for row in found.values()]
    costs = [
        [
            markdown_text(report["system"]),
            str(report["best_step"]),
            *(f"{report['seconds'][name]:.0f}" for name in ("prepare", "train", "evaluate")),
            f"{report['peak_memory_gb']:.2f}",
        ]
        for report in reports
    ]
    head = ["run", "best step", "prepare s", "train s", "evaluate s", "peak memory GB"]
    return "\n".join(
        [
            *(f"* {line}" for line in _caption(first["splits"][split], first["protocol"])),
            "",
            *markdown_table(_head(first["ks"]), cells, 3),
            "",
            *markdown_table(head, costs, 1),
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Print the table of the runs in these workdirs."""
    parser = argparse.ArgumentParser(
        prog="python -m drin_jax.report",
        description="One Markdown table of several finished runs over the same data.",
    )
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="WORKDIR")
    parser.add_argument("--split", default="test", choices=("valid", "test"))
    parser.add_argument("--subsets", nargs="+", default=["all", "clean"], help="as in report.md")
    args = parser.parse_args(argv)
    try:
        print(compare([read(w) for w in args.workdirs], args.split, args.subsets))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def read(workdir: Path) -> dict[str, Any]:
    """A finished run's report. UserError where there is none."""
    path = workdir / "report.json"
    try:
        report = json.loads(path.read_text())
        if not isinstance(report, dict) or "splits" not in report:
            raise ValueError("not a report")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the run is not finished") from None
    except ValueError as error:
        raise UserError(f"{path}: unreadable ({error})") from None
    return report
