"""A run's result as tables on the terminal and as `report.json` and `report.md` in the workdir.

python -m drin_jax.report WORKDIR [WORKDIR ...]      one table of several runs, as Markdown
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data_pipeline.files import write_json, write_text
from data_pipeline.schema import UserError

_SCOPES = {"end_to_end": "end to end", "answerable": "answerable"}
_TIE_ROWS = {
    "mean": "",
    "optimistic": ", ties optimistic",
    "pessimistic": ", ties pessimistic",
    "key": ", ties by retrieval order",
}


def rows(
    result: Mapping[str, Any], systems_with_ties: Sequence[str], full: bool
) -> list[tuple[str, ...]]:
    """Table rows of one split: subset, scope, system, n, hits@k..., MRR.

    Tie-aware everywhere (the gold at the mean rank of its ties); for `systems_with_ties`, on the
    whole split and its clean subset, also the other readings of a tie. Without `full`, without the
    rows that say nothing new.
    """
    out = []
    for subset, scopes in result["subsets"].items():
        for scope, title in _SCOPES.items():
            if not full and _says_nothing_new(result, subset, scope):
                continue
            for system, by_ties in scopes[scope].items():
                for ties, suffix in _TIE_ROWS.items():
                    told = subset in ("all", "clean") and system in systems_with_ties
                    if ties != "mean" and not told:
                        continue
                    values = by_ties[ties]
                    hits = [f"{100 * v:.1f}" for k, v in values.items() if k.startswith("hits@")]
                    mrr = f"{100 * values['mrr']:.1f}"
                    out.append((subset, title, system + suffix, str(values["n"]), *hits, mrr))
    return out


def _says_nothing_new(result: Mapping[str, Any], subset: str, scope: str) -> bool:
    """Groups of the whole split, and answerable ones where all are or apart from `all`, `clean`."""
    total, own = result["counts"]["mentions"], result["group_sizes"].get(subset)
    if scope == "answerable":
        answerable = result["counts"]["answerable"]
        return subset not in ("all", "clean") or answerable == total or own == total
    return own == total


def _caption(result: Mapping[str, Any], protocol: str) -> list[str]:
    counts = ", ".join(f"{name} {n}" for name, n in result["counts"].items())
    recall = ", ".join(f"@{k.split('@')[1]} {100 * v:.1f}" for k, v in result["retrieval"].items())
    return [protocol, counts, f"retrieval recall (of all but NIL) {recall}"]


def print_split(
    result: Mapping[str, Any], protocol: str, ks: Sequence[int], systems_with_ties: Sequence[str]
) -> None:
    """One table for a split on stdout; `report.md` has the rows that are left out here."""
    console = Console(width=None if Console().is_terminal else 130)
    table = Table(title=f"{result['split']}", title_justify="left", pad_edge=False)
    for name in ("mentions", "", "system"):
        table.add_column(name, overflow="fold")
    for name in ("n", *(f"hits@{k}" for k in ks), "MRR"):
        table.add_column(name, justify="right")
    previous: tuple[str, ...] = ("", "")
    for row in rows(result, systems_with_ties, full=False):
        same = row[:2] == previous
        if not same and previous != ("", ""):
            table.add_section()
        table.add_row(*(("", "") if same else row[:2]), *row[2:])
        previous = row[:2]
    console.print(table)
    for line in _caption(result, protocol):
        console.print(f"  {line}", highlight=False)


def write(
    workdir: Path, report: Mapping[str, Any], ks: Sequence[int], systems_with_ties: Sequence[str]
) -> tuple[Path, Path]:
    """Write `report.json`, everything, and `report.md`, the tables. Returns both paths."""
    lines = [f"# {report['name']}", ""]
    for result in report["splits"].values():
        lines += [f"## {result['split']}", ""]
        lines += [f"* {line}" for line in _caption(result, report["protocol"])] + [""]
        head = ["mentions", "scope", "system", "n", *(f"hits@{k}" for k in ks), "MRR"]
        lines.append("| " + " | ".join(head) + " |")
        lines.append("|---" * 3 + "|---:" * (len(head) - 3) + "|")
        lines += [
            "| " + " | ".join(row) + " |" for row in rows(result, systems_with_ties, full=True)
        ] + [""]
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
    lines = [f"* {line}" for line in _caption(first["splits"][split], first["protocol"])]
    head = ["mentions", "scope", "system", "n", *(f"hits@{k}" for k in first["ks"]), "MRR"]
    lines += ["", "| " + " | ".join(head) + " |", "|---" * 3 + "|---:" * (len(head) - 3) + "|"]
    for subset in subsets:
        if subset not in first["splits"][split]["subsets"]:
            known = ", ".join(first["splits"][split]["subsets"])
            raise UserError(f"{first['name']} has no subset {subset!r}; it has {known}")
        whole: list[tuple[str, ...]] = []
        for title in _SCOPES.values():
            found: dict[str, tuple[str, ...]] = {}
            for report in reports:
                for row in rows(report["splits"][split], ("name matching",), full=True):
                    if row[:2] == (subset, title):
                        found.setdefault(row[2], row)
            if [row[3:] for row in found.values()] != [row[3:] for row in whole]:
                lines += ["| " + " | ".join(row) + " |" for row in found.values()]
            whole = list(found.values())
    head = ["run", "best step", "prepare s", "train s", "evaluate s", "peak memory GB"]
    lines += ["", "| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for report in reports:
        seconds = report["seconds"]
        times = [f"{seconds[name]:.0f}" for name in ("prepare", "train", "evaluate")]
        cells = [report["system"], str(report["best_step"]), *times]
        lines.append("| " + " | ".join([*cells, f"{report['peak_memory_gb']:.2f}"]) + " |")
    return "\n".join(lines)


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
