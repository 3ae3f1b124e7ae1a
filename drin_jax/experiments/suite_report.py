"""The report of a suite: `report.html`, one file that needs no other, and `report.md`."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from data_pipeline.files import write_text, write_whole
from drin_jax.config import card, flat
from drin_jax.evaluation.tables import Table, markdown_text
from drin_jax.experiments import suite_plots, suite_tables
from drin_jax.experiments.results import RUN_JSON, Results


def write(results: Results, workdir: Path) -> tuple[Path, Path]:
    """Write WORKDIR/report.html, report.md and plots/*.{svg,png}, and the main table to stdout;
    returns the first two paths.

    Each is written under a temporary name and renamed. The HTML asks for nothing from anywhere:
    styles and plots stand in it, and it has no script. All that comes from data is escaped, by one
    rule a form: Jinja's own, and `markdown_text` for whatever a template of Markdown says.
    """
    content = _content(results)
    (workdir / "plots").mkdir(parents=True, exist_ok=True)
    for plot in content["plots"]:
        for form, content_of in plot.files.items():
            path = workdir / "plots" / f"{plot.slug}.{form}"
            write_whole(path, lambda file, content=content_of: file.write(content))  # type: ignore[misc]
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    page = jinja2.Environment(loader=loader, autoescape=True)
    plain = jinja2.Environment(
        loader=loader,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else markdown_text(value),
    )
    paths = workdir / "report.html", workdir / "report.md"
    for path, forms in zip(paths, (page, plain), strict=True):
        write_text(path, forms.get_template(f"suite_{path.name}").render(content, verbatim=Markup))
    content["main"][0].show()
    if not results.published:
        print("published numbers: none bundled; pass --published")
    return paths


def _content(results: Results) -> dict[str, Any]:
    """What both forms of the report show."""
    leaking = [row.title for row in results.rows if row.leaks]
    warnings = [f"{suite_tables.LEAK}. Rows: {'; '.join(leaking)}."] if leaking else []
    return {
        "title": _heading(results),
        "summary": _summary(results),
        "warnings": warnings + [f"{r.title}: {r.why_not}" for r in results.rows if r.why_not],
        "facts": {name: text for name, text in _facts(results).items() if text},
        "main": [suite_tables.main(results), *suite_tables.published(results)],
        "plots": suite_plots.make(results),
        "against": suite_tables.comparisons(results),
        "further": suite_tables.further(results),
        "audit": [finding["message"] for finding in results.audit],
        "settings": _settings(results),
        "environment": ", ".join(f"{k} {_shown(v)}" for k, v in results.environment.items()),
        "command": " ".join(results.command.split()),
    }


def _heading(results: Results) -> str:
    """`Systems: sample world`."""
    data = results.config.get("data.name") or results.config.get("data.reader", "")
    return f"{results.title}: {data}" if data else results.title


def _summary(results: Results) -> str:
    """One paragraph: what was run, and which row is best by what measure."""
    rows, split, k = results.trained, results.split, results.first["ks"][0]
    n = results.sizes(split).get("all", 0)
    counts = sorted({len(row.runs) for row in rows})
    many = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    text = (
        f"{len(rows)} of {len(results.rows)} rows of the suite {results.suite} were run, {many} "
        f"seed{'' if counts == [1] else 's'} each, and are judged on {n} mentions of {split}."
    )
    scored = [
        (value, row.title)
        for row in rows
        if not row.leaks and (value := row.spread(f"hits@{k}", split))
    ]
    if scored:
        value, title = max(scored, key=lambda pair: pair[0].mean)
        text += (
            f" Best in Top-{k}, end to end: {title} with {value.percent()} % (mean ± standard "
            "deviation over seeds)."
        )
    return text


def _facts(results: Results) -> dict[str, str]:
    """What every number here has to be read with."""
    counts = results.first["splits"][results.split]["counts"]
    # With a first stage a row, what can be answered differs by row.
    told = {k: n for k, n in counts.items() if results.suite != "retrieval" or k == "mentions"}
    runs = [run for row in results.rows for run in row.runs]
    files = [run.folder / RUN_JSON for run in runs]
    times = sorted(path.stat().st_mtime for path in files if path.is_file())
    ends = [time.strftime("%Y-%m-%d %H:%M", time.gmtime(t)) for t in (*times[:1], *times[-1:])]
    return {
        "suite": results.suite,
        "data": _heading(results).removeprefix(f"{results.title}: "),
        "protocol": results.first["protocol"],
        f"mentions of {results.split}": ", ".join(f"{name} {n}" for name, n in told.items()),
        "seeds": ", ".join(map(str, sorted({run.seed for run in runs}))),
        "runs finished": " to ".join(dict.fromkeys(ends)) + " UTC" if ends else "",
    }


def _settings(results: Results) -> list[Table]:
    """The fields that rows change, those that differ from the defaults, and all."""
    configs = {row.title: row.runs[0].data["config"] for row in results.trained}
    changed = dict.fromkeys(
        name
        for config in configs.values()
        for name, value in config.items()
        if name != "seed" and value != results.config.get(name)
    )
    defaults = flat(card("common").get_config())
    pairs = ["field", "value"]
    told: dict[str, tuple[list[str], Iterable[Iterable[Any]]]] = {
        "Fields that rows set": (
            ["row", *changed],
            [(title, *map(own.get, changed)) for title, own in configs.items() if changed],
        ),
        "Fields that differ from the defaults": (
            pairs,
            [(k, v) for k, v in results.config.items() if defaults.get(k) != v],
        ),
        "Every field": (pairs, results.config.items()),
        "Where it ran": (pairs, results.environment.items()),
    }
    tables = [
        Table(title, head, [[*map(_shown, row)] for row in rows], words=len(head))
        for title, (head, rows) in told.items()
    ]
    return [table for table in tables if table.rows]


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
