"""The report of a suite: `report.html`, one file that needs no other, and `report.md`."""

import base64
import time
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from data_pipeline.files import write_text
from drin_jax.config import card, flat
from drin_jax.evaluation.report import markdown_text
from drin_jax.experiments import suite_plots, suite_tables
from drin_jax.experiments.results import RUN_JSON, Results, hits
from drin_jax.experiments.suite_tables import LEAK
from drin_jax.experiments.table_forms import Cell, Table, to_markdown

_TIES = "Ties count by the gold's mean rank among them; no row ranks by luck."


def write(results: Results, workdir: Path) -> tuple[Path, Path]:
    """Write WORKDIR/report.html, report.md and plots/*.{svg,png}; returns the first two.

    Each is written under a temporary name and renamed. The HTML asks for nothing from anywhere:
    styles and plots stand in it, and it has no script. All that comes from data is escaped.
    """
    content = _content(results)
    for plot in content["plots"]:
        plot.save(workdir / "plots")
    template = resources.files("drin_jax.experiments").joinpath("suite_report.html")
    page = jinja2.Environment(autoescape=True).from_string(template.read_text("utf-8"))
    inline = [(plot, _address(plot)) for plot in content["plots"]]
    write_text(workdir / "report.html", page.render(content | {"plots": inline}))
    write_text(workdir / "report.md", _markdown(content))
    return workdir / "report.html", workdir / "report.md"


def _address(plot: suite_plots.Plot) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(plot.svg()).decode()


def _content(results: Results) -> dict[str, Any]:
    """What both forms of the report show."""
    published = suite_tables.published(results)
    return {
        "title": heading(results),
        "summary": summary(results),
        "warnings": [*filter(None, [leak_warning(results)]), *not_run(results)],
        "facts": facts(results),
        "main": [suite_tables.main(results), *([published] if published else [])],
        "plots": suite_plots.make(results),
        "against": suite_tables.comparisons(results),
        "further": suite_tables.further(results),
        "ties": _TIES,
        "audit": [finding["message"] for finding in results.audit],
        "settings": settings(results),
        "environment": results.environment,
        "command": results.command,
    }


def heading(results: Results) -> str:
    """`Systems: sample world`."""
    data = results.config.get("data.name") or results.config.get("data.reader", "")
    return f"{results.title}: {data}" if data else results.title


def summary(results: Results) -> str:
    """One paragraph: what was run, and which row is best by what measure."""
    rows, split = results.trained, results.split
    n = results.sizes(split).get("all", 0)
    counts = sorted({len(row.runs) for row in rows})
    many = " to ".join(map(str, counts[:1] + counts[1:][-1:]))
    text = (
        f"{len(rows)} of {len(results.rows)} rows of the suite {results.suite} were run, {many} "
        f"seed{'' if counts == [1] else 's'} each, and are judged on {n} mentions of {split}."
    )
    k = results.ks[0]
    scored = [
        (value, row.full_title)
        for row in rows
        if not row.leaks and (value := row.spread(hits(k), split))
    ]
    if scored:
        value, title = max(scored, key=lambda pair: pair[0].mean)
        text += (
            f" Best in Top-{k}, end to end: {title} with {value.percent()} % (mean ± standard "
            "deviation over seeds)."
        )
    return text


def facts(results: Results) -> dict[str, str]:
    """What every number here has to be read with."""
    out = {"suite": results.suite, "data": heading(results).removeprefix(f"{results.title}: ")}
    out["protocol"] = results.protocol
    counts = results.counts.get(results.split, {})
    # With a first stage a row, what can be answered differs by row.
    told = {k: n for k, n in counts.items() if results.suite != "retrieval" or k == "mentions"}
    out[f"mentions of {results.split}"] = ", ".join(f"{name} {n}" for name, n in told.items())
    out["seeds"] = ", ".join(
        map(str, sorted({run.seed for row in results.rows for run in row.runs}))
    )
    out["runs finished"] = _finished(results)
    return {name: text for name, text in out.items() if text}


def _finished(results: Results) -> str:
    """From when to when, in UTC, by the runs' files; empty where those are gone."""
    files = [run.folder / RUN_JSON for row in results.rows for run in row.runs]
    times = sorted(path.stat().st_mtime for path in files if path.is_file())
    if not times:
        return ""
    first, last = (time.strftime("%Y-%m-%d %H:%M", time.gmtime(t)) for t in (times[0], times[-1]))
    return f"{first} UTC" if first == last else f"{first} to {last} UTC"


def not_run(results: Results) -> list[str]:
    """Rows without all their runs, and why."""
    return [f"{r.full_title}: {r.remark}" for r in results.rows if r.why_not]


def leak_warning(results: Results) -> str:
    """What has to stand over results with leaking rows; empty where no row leaks."""
    titles = [row.full_title for row in results.rows if row.leaks]
    return f"{LEAK}. Rows: {'; '.join(titles)}." if titles else ""


def _pairs(slug: str, title: str, values: Mapping[str, Any]) -> Table:
    rows = [[Cell(name), Cell(_shown(value))] for name, value in values.items()]
    return Table(slug, title, ["field", "value"], rows, text_columns=2)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def settings(results: Results) -> list[Table]:
    """The fields that rows change, those that differ from the defaults, and all."""
    changed: dict[str, None] = {}
    for row in results.trained:
        own = row.runs[0].data["config"]
        names = (name for name in own if name != "seed" and own[name] != results.config.get(name))
        changed |= dict.fromkeys(names)
    out = []
    if changed:
        rows = [
            [
                Cell(r.full_title),
                *(Cell(_shown(r.runs[0].data["config"].get(f))) for f in changed),
            ]
            for r in results.trained
        ]
        head = ["row", *changed]
        out.append(Table("config-rows", "Fields that rows set", head, rows, (), len(head)))
    defaults = flat(card("common").get_config())
    own = {name: v for name, v in results.config.items() if defaults.get(name) != v}
    if own:
        out.append(_pairs("config-own", "Fields that differ from the defaults", own))
    out.append(_pairs("config-all", "Every field", results.config))
    return [*out, _pairs("machine", "Where it ran", results.environment)]


def _markdown(content: Mapping[str, Any]) -> str:
    """The same without the configuration, for a repository's pages; plots as files beside it."""
    lines = [f"# {markdown_text(content['title'])}", "", markdown_text(content["summary"]), ""]
    for text in content["warnings"]:
        lines += [f"> {markdown_text(text)}", ""]
    lines += [f"* {name}: {markdown_text(text)}" for name, text in content["facts"].items()]
    for table in [*content["main"], *content["against"][:1]]:
        lines += ["", f"## {markdown_text(table.title)}", "", to_markdown(table)]
    for plot in content["plots"]:
        lines += ["", f"## {markdown_text(plot.title)}", ""]
        lines += [f"![{markdown_text(plot.alt)}](plots/{plot.slug}.svg)", "", plot.note]
    for table in [*content["further"], *content["against"][1:]]:
        lines += ["", f"### {markdown_text(table.title)}", "", to_markdown(table)]
    if content["audit"]:
        lines += ["", "## Audit of the data", ""]
        lines += [f"* {markdown_text(message)}" for message in content["audit"]]
    if content["environment"]:
        told = ", ".join(f"{name} {_shown(v)}" for name, v in content["environment"].items())
        lines += ["", "## Environment", "", markdown_text(told)]
    if content["command"]:
        lines += ["", "## How to reproduce", "", f"    {' '.join(content['command'].split())}"]
    return "\n".join(lines) + "\n"
