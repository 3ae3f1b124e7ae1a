"""The report of a suite: `report.html`, one file that needs no other, and `report.md`."""

import html
import time
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from data_pipeline.files import write_text
from drin_jax.config import card, flat
from drin_jax.experiments import accuracy_tables, comparison_tables, measures, plot_forms, plots
from drin_jax.experiments.measures import LEAK
from drin_jax.experiments.results import RUN_JSON, Results
from drin_jax.experiments.table_forms import Cell, Table, markdown_text, to_html, to_markdown

_TIES = "Ties count by the gold's mean rank among them; no row ranks by luck."


def write(results: Results, workdir: Path) -> tuple[Path, Path]:
    """Write WORKDIR/report.html, report.md and plots/*.{svg,png}; returns the first two.

    Each is written under a temporary name and renamed. The HTML asks for nothing from anywhere:
    styles and plots stand in it, and it has no script.
    """
    made = [(plot, plot_forms.svg(plot)) for plot in plots.make(results)]
    for plot, text in made:
        plot_forms.save(plot, text, workdir / "plots")
    pages = {
        "report.html": as_html(results, [(p, plot_forms.inline(text)) for p, text in made]),
        "report.md": as_markdown(results, [plot for plot, _ in made]),
    }
    for name, text in pages.items():
        write_text(workdir / name, text)
    return workdir / "report.html", workdir / "report.md"


def heading(results: Results) -> str:
    """`Systems: sample world`."""
    data = results.config.get("data.name") or results.config.get("data.reader", "")
    return f"{results.title}: {data}" if data else results.title


def summary(results: Results) -> str:
    """One paragraph: what was run, and which row is best by what measure."""
    rows, split = measures.trained(results), results.split
    n = measures.sizes(results, split).get("all", 0)
    counts = sorted({len(row.runs) for row in rows})
    many = " to ".join(map(str, counts[:1] + counts[1:][-1:]))
    text = (
        f"{len(rows)} of {len(results.rows)} rows of the suite {results.suite} were run, {many} "
        f"seed{'' if counts == [1] else 's'} each, and are judged on {n} mentions of {split}."
    )
    k = results.ks[0]
    scored = [
        (value, accuracy_tables.title_of(row))
        for row in rows
        if not measures.leaks(row) and (value := measures.spread(row, measures.hits(k), split))
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
    out["seeds"] = ", ".join(map(str, measures.seeds(results)))
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
    return [
        f"{accuracy_tables.title_of(r)}: {measures.why_not(r)}" for r in results.rows if r.why_not
    ]


def leak_warning(results: Results) -> str:
    """What has to stand over results with leaking rows; empty where no row leaks."""
    titles = [accuracy_tables.title_of(row) for row in results.rows if measures.leaks(row)]
    return f"{LEAK}. Rows: {'; '.join(titles)}." if titles else ""


def differing(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not at their default."""
    defaults = flat(card("common").get_config())
    return {name: value for name, value in config.items() if defaults.get(name) != value}


def _pairs(slug: str, title: str, values: Mapping[str, Any]) -> Table:
    rows = [[Cell(name), Cell(_shown(value))] for name, value in values.items()]
    return Table(slug, title, ["field", "value"], rows, text_columns=2)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def settings(results: Results) -> list[Table]:
    """The fields that rows change, those that differ from the defaults, and all."""
    changed: dict[str, None] = {}
    for row in measures.trained(results):
        own = row.runs[0].data["config"]
        names = (name for name in own if name != "seed" and own[name] != results.config.get(name))
        changed |= dict.fromkeys(names)
    out = []
    if changed:
        rows = [
            [
                Cell(accuracy_tables.title_of(r)),
                *(Cell(_shown(measures.setting(r, f))) for f in changed),
            ]
            for r in measures.trained(results)
        ]
        head = ["row", *changed]
        out.append(Table("config-rows", "Fields that rows set", head, rows, (), len(head)))
    own = differing(results.config)
    if own:
        out.append(_pairs("config-own", "Fields that differ from the defaults", own))
    return [*out, _pairs("config-all", "Every field", results.config)]


def as_html(results: Results, drawn: Sequence[tuple[plot_forms.Plot, str]]) -> str:
    """The page. Everything that comes from data is escaped; `drawn` pairs plots with their SVG."""
    title = html.escape(heading(results))
    style = resources.files("drin_jax.experiments").joinpath("page.css").read_text(encoding="utf-8")
    told = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>"
        for name, text in facts(results).items()
    )
    sections = {name: part for name, part in _sections(results, drawn).items() if part}
    links = "".join(f'<li><a href="#{_anchor(name)}">{name}</a></li>' for name in sections)
    body = [
        f'<header><p class="kicker">drin_jax experiments</p><h1>{title}</h1>',
        f'<p class="summary">{html.escape(summary(results))}</p>',
        _warning(leak_warning(results), []),
        _warning("Not run, or not whole:", not_run(results)) if not_run(results) else "",
        f'<dl class="facts">{told}</dl>',
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header><main>',
        *(
            f'<section id="{_anchor(name)}"><h2>{name}</h2>{part}</section>'
            for name, part in sections.items()
        ),
        "</main>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # An empty icon, or browsers ask the server for one.
        f'<title>{title}</title><link rel="icon" href="data:,"><style>{style}</style></head>'
        f"<body>{''.join(body)}</body></html>\n"
    )


def _sections(results: Results, drawn: Sequence[tuple[plot_forms.Plot, str]]) -> dict[str, str]:
    """Heading -> HTML, in order; empty where there is nothing to tell."""
    against = comparison_tables.comparisons(results)
    published = comparison_tables.published(results)
    command = results.command and f"<pre>{html.escape(results.command)}</pre>"
    shown = (
        f'<figure class="plot"><h3>{html.escape(plot.title)}</h3><div class="scroll" tabindex="0" '
        f'role="region" aria-label="{html.escape(plot.title)}">{text}</div>'
        f"<figcaption>{html.escape(plot.note)}</figcaption></figure>"
        for plot, text in drawn
    )
    found = "".join(f"<li>{html.escape(f['message'])}</li>" for f in results.audit)
    kept = "".join(_folded(table, opened=table.slug == "config-own") for table in settings(results))
    return {
        "Results": to_html(accuracy_tables.main(results))
        + (to_html(published) if published else ""),
        "Plots": f'<div class="grid">{"".join(shown)}</div>' if drawn else "",
        "Significance": "".join(map(to_html, against[:1])) + "".join(map(_folded, against[1:])),
        "Further tables": f"<p>{_TIES}</p>"
        + "".join(map(_folded, accuracy_tables.further(results))),
        "Audit of the data": found and f'<ul class="findings">{found}</ul>',
        "Configuration": f'<div class="config">{kept}</div>',
        "Environment": to_html(_pairs("machine", "Where it ran", results.environment))
        if results.environment
        else "",
        "How to reproduce": command,
    }


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _folded(table: Table, opened: bool = False) -> str:
    return (
        f"<details{' open' if opened else ''}><summary>{html.escape(table.title)}</summary>"
        f"{to_html(table)}</details>"
    )


def _warning(text: str, items: Sequence[str]) -> str:
    if not text:
        return ""
    listed = "".join(f"<li>{html.escape(item)}</li>" for item in items)
    return (
        f'<div class="warning" role="note"><p>{html.escape(text)}</p>'
        + (f"<ul>{listed}</ul>" if listed else "")
        + "</div>"
    )


def as_markdown(results: Results, drawn: Sequence[plot_forms.Plot]) -> str:
    """The same without the configuration, for a repository's pages; plots as files beside it."""
    lines = [f"# {markdown_text(heading(results))}", "", markdown_text(summary(results)), ""]
    for text in filter(None, [leak_warning(results), *not_run(results)]):
        lines += [f"> {markdown_text(text)}", ""]
    lines += [f"* {name}: {markdown_text(text)}" for name, text in facts(results).items()]
    found = comparison_tables.published(results)
    against = comparison_tables.comparisons(results)
    for table in [accuracy_tables.main(results), *([found] if found else []), *against[:1]]:
        lines += ["", f"## {markdown_text(table.title)}", "", to_markdown(table)]
    for plot in drawn:
        lines += ["", f"## {markdown_text(plot.title)}", ""]
        lines += [f"![{markdown_text(plot.alt)}](plots/{plot.slug}.svg)", "", plot.note]
    for table in [*accuracy_tables.further(results), *against[1:]]:
        lines += ["", f"### {markdown_text(table.title)}", "", to_markdown(table)]
    if results.audit:
        lines += ["", "## Audit of the data", ""]
        lines += [f"* {markdown_text(finding['message'])}" for finding in results.audit]
    if results.environment:
        told = ", ".join(f"{name} {_shown(v)}" for name, v in results.environment.items())
        lines += ["", "## Environment", "", markdown_text(told)]
    if results.command:
        lines += ["", "## How to reproduce", "", f"    {' '.join(results.command.split())}"]
    return "\n".join(lines) + "\n"
