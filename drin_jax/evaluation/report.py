"""A run's result as tables on the terminal and as `report.json` and `report.md` in the workdir."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from data_pipeline import output
from data_pipeline.files import write_json, write_text, write_whole
from data_pipeline.schema import UserError, check_known
from drin_jax.evaluation.reordering import WITHOUT
from drin_jax.evaluation.tables import Table, markdown_text

FIGURE = "calibration.svg"
DECIDED = (
    *("accuracy", "NIL precision", "NIL recall", "NIL F1"),
    *("of the surest 50%", "80%", "90%", "ECE"),
)
SCOPES = {"end_to_end": "end to end", "answerable": "answerable", "kb": "whole base"}
WHOLE_BASE = (
    "whole base: every mention whose gold is in the knowledge base, ranked among all of its "
    "entities; a gold that was not retrieved is a miss"
)
_READINGS = {
    "optimistic": "ties optimistic",
    "pessimistic": "ties pessimistic",
    "key": "ties by retrieval order",
}
TOLD = 0.0005  # half of the last decimal shown: readings of a tie that differ less are one


def table(report: Mapping[str, Any], split: str, subsets: Sequence[str] = ()) -> Table:
    """One split of a report: subset, scope, system, n, hits@k..., MRR.

    Tie-aware everywhere (the gold at the mean rank of its ties); on the whole split and its clean
    subset also the other readings of a tie, where they differ. Without what says nothing new: a
    group of the whole split, and the answerable ones where all are.

    Args:
        subsets: those to show; empty: all.
    """
    result = report["splits"][split]
    counts = ", ".join(f"{name} {n}" for name, n in result["counts"].items())
    recall = ", ".join(f"@{k.split('@')[1]} {100 * v:.1f}" for k, v in result["retrieval"].items())
    return Table(
        title=split,
        head=["mentions", "scope", "system", "n", *(f"hits@{k}" for k in report["ks"]), "MRR"],
        rows=[row for row in _rows(result) if not subsets or row[0] in subsets],
        notes=[
            report["protocol"],
            counts,
            f"retrieval recall (of all but NIL) {recall}",
            *([WHOLE_BASE] if "kb" in result["subsets"]["all"] else []),
        ],
        words=3,
        grouped=2,
    )


def _rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    whole = result["counts"]["mentions"]
    for subset, scopes in result["subsets"].items():
        sizes = {s: max(m["mean"]["n"] for m in scopes[s].values()) for s in scopes}
        for scope, title in SCOPES.items():
            if scope not in scopes:
                continue
            if subset != "all" and sizes["end_to_end"] == whole:
                continue
            if scope == "answerable" and sizes[scope] in (0, sizes["end_to_end"]):
                continue
            for system, by_ties in scopes[scope].items():
                for name, metrics in readings(system, by_ties, subset in ("all", "clean")).items():
                    values = [f"{100 * v:.1f}" for k, v in metrics.items() if k != "n"]
                    yield [subset, title, name, str(metrics["n"]), *values]


def decided(reports: Sequence[Mapping[str, Any]], split: str) -> Table:
    """What comes of deciding every mention of a split, a row for each report's system."""
    rows, sizes = [], {0}
    for report in reports:
        if found := report["splits"][split].get("decisions"):
            nil, at = found["nil"], found["coverage"]
            sizes.add(nil["n"])
            values = [found["accuracy"], *(nil[k] for k in ("precision", "recall", "f1"))]
            values += [at["0.50"], at["0.80"], at["0.90"], found["ece"]]
            kept = [f"{100 * value:.1f}" for value in values]
            if not nil["n"]:
                kept[1:4] = ["-"] * 3
            rows.append([report["system"], *kept])
    return Table(
        title=f"{split}: decisions",
        head=["system", *DECIDED],
        rows=rows,
        notes=[
            f"accuracy: of all mentions, {max(sizes)} NIL or outside the knowledge base among "
            "them, the likeliest candidate or NIL; temperature and threshold are valid's",
            "of the surest: accuracy among that share of the mentions; ECE: mean difference of "
            "the probability given and the share right, in bins of as many mentions",
        ],
    )


def verdict(report: Mapping[str, Any]) -> str:
    """How the model does on test, all mentions counted, beside the best of what needs no training:
    by MRR, the gold at the mean rank of its ties."""
    rows = report["splits"]["test"]["subsets"]["all"]["end_to_end"]
    scores = {system: by_ties["mean"] for system, by_ties in rows.items()}
    own, without = scores.pop(report["system"]), scores.pop(WITHOUT, None)
    best = max(scores, key=lambda name: scores[name]["mrr"])
    ahead = own["mrr"] - scores[best]["mrr"]
    how = "behind" if ahead <= -TOLD else "ahead of" if ahead >= TOLD else "level with"

    def told(metrics: Mapping[str, float]) -> str:
        hits = [f"{name} {100 * v:.1f}" for name, v in metrics.items() if name == "hits@1"]
        return ", ".join([f"MRR {100 * metrics['mrr']:.1f}", *hits])

    said = (
        f"On test, {report['system']} ({told(own)}) is {how} {best} ({told(scores[best])}), the "
        "best of what needs no training."
    )
    return f"{said} Without the reranker: {told(without)}." if without else said


def readings(
    system: str, by_ties: Mapping[str, Mapping[str, float]], others: bool = True
) -> dict[str, Mapping[str, float]]:
    """A system's metrics by its name, and `others`, by its name and the reading of a tie: those
    that differ from the mean rank's in any metric."""
    mean = by_ties["mean"]
    return {system: mean} | {
        f"{system}, {name}": by_ties[ties]
        for ties, name in _READINGS.items()
        if others
        and ties in by_ties
        and any(abs(by_ties[ties][k] - v) >= TOLD for k, v in mean.items())
    }


def show(report: Mapping[str, Any]) -> None:
    """The report on stdout: the verdict, linked mentions, then each split as a whole and its clean
    part."""
    console = output.console()
    console.print(Text(verdict(report)), soft_wrap=True)
    console.print()
    examples = report.get("examples", {"told": "", "mentions": []})
    if examples["told"]:
        console.print(Text(examples["told"]), soft_wrap=True)
    for mention in examples["mentions"]:
        console.print()
        for name, text in mention.items():
            console.print(Text(f"  {name:<10} {' '.join(text.split())}"), soft_wrap=True)
    for split in report["splits"]:
        console.print()
        table(report, split, ("all", "clean")).show()
        if "decisions" in report["splits"][split]:
            decided([report], split).show()


def write(workdir: Path, report: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write `report.json`, everything, and `report.md`, to be read. Returns both paths."""
    lines = [f"# {markdown_text(report['name'])}", "", markdown_text(verdict(report)), ""]
    for split in report["splits"]:
        lines += [f"## {split}", "", table(report, split).markdown(), ""]
        if "decisions" in report["splits"][split]:
            lines += [f"### {split}: decisions", "", decided([report], split).markdown(), ""]
    drawn = {s: r["decisions"] for s, r in report["splits"].items() if "decisions" in r}
    if drawn:
        from drin_jax.evaluation import reliability  # matplotlib loads only for this

        write_whole(workdir / FIGURE, lambda file: reliability.draw(file, drawn))
        lines += [f"![share right by probability and by coverage]({FIGURE})", ""]
    if examples := report.get("examples"):
        lines += ["## Linked mentions", "", markdown_text(examples["told"]), ""]
        for mention in examples["mentions"]:
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
        if any(first[k] != other[k] for k in ("protocol", "ks")) or (
            first["splits"][split]["counts"] != other["splits"][split]["counts"]
        ):
            raise UserError(
                f"{first['name']} and {other['name']} have different protocols or counts "
                f"({first['protocol']} against {other['protocol']}); they cannot share a table"
            )
    known = first["splits"][split]["subsets"]
    for subset in subsets:
        check_known(f"{first['name']}: --subsets", subset, known)
    tables = [table(report, split, subsets) for report in reports]
    once: dict[tuple[str, ...], Sequence[str]] = {}
    for row in (row for one in tables for row in one.rows):
        once.setdefault(tuple(row[:3]), row)
    scopes = list(SCOPES.values())
    rows = sorted(once.values(), key=lambda r: (subsets.index(r[0]), scopes.index(r[1])))
    costs = [
        [
            report["system"],
            str(report["best_step"]),
            *(f"{report['seconds'][name]:.0f}" for name in ("prepare", "train", "evaluate")),
            f"{report['peak_memory_gb']:.2f}",
        ]
        for report in reports
    ]
    head = ["run", "best step", "prepare s", "train s", "evaluate s", "peak memory GB"]
    own = [dataclasses.replace(tables[0], rows=rows), decided(reports, split)]
    own.append(Table("", head, costs))
    return "\n\n".join(one.markdown() for one in own if one.rows)
