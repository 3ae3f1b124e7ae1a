"""The report of a suite: right numbers in each layout, nothing broken by what is missing."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from drin_jax.evaluation.tables import Best, Table
from drin_jax.experiments import suite_plots, suite_report, suite_tables
from drin_jax.experiments.results import Results, Row, Spread
from drin_jax.experiments.suite_tables import LEAK
from tests.support.suite_results import KINDS, results

HOSTILE = " <script>alert(\"x\")</script> | **b** & 'q' $\\frac"


class Page(HTMLParser):
    """A page's tags, ids, addresses and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = dict(attrs)
        self.ids += [named["id"] or ""] if "id" in named else []
        self.addresses += [named[name] or "" for name in ("src", "href") if name in named]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def cells(table: Table) -> dict[str, list[str]]:
    """First column -> the texts of the row's other cells."""
    return {row[0]: list(row[1:]) for row in table.rows}


def test_spread_by_hand() -> None:
    assert Spread.of([]) is None
    assert Spread.of([float("nan")]) is None
    assert Spread.of([0.5]).percent() == "50.0 ± n/a"
    assert Spread.of([0.5, 0.6, 0.7]).percent() == "60.0 ± 10.0"
    assert Spread.of([-0.01, 0.03]).percent(signed=True) == "+1.0 ± 2.8"


def test_the_systems_table_marks_the_best_and_what_differs() -> None:
    found = results("table2")
    table = suite_tables.main(found)
    assert list(table.head) == ["system", "seeds", "Top-1", "Top-3", "Top-5", "MRR"]
    rows = {row[0]: row for row in table.rows}
    assert list(rows)[:2] == ["name matching", "raw text edge R_tt"]
    assert [isinstance(cell, Best) for cell in rows["RELATIONAL"]] == [False] * 2 + [True] * 4
    assert not isinstance(rows["BERT"][2], Best)
    run = found.rows[0].runs[0].metrics("test")
    scores = [r.metrics("test")["hits@1"] for r in found.rows[0].runs]
    assert run["n"] == 120
    # Skill grows by row: BERT is far below DRIN over mentions and seeds, DRIN is not below itself.
    told = f"{100 * np.mean(scores):.1f} ± {100 * np.std(scores, ddof=1):.1f}"
    assert rows["BERT"][2] == f"{told} ▼"
    assert rows["DRIN"][2][-1].isdigit()
    assert any("below DRIN" in note for note in table.notes)


def test_every_layout_has_its_columns() -> None:
    layers = suite_tables.main(results("table4"))
    assert list(layers.head)[2:4] == ["valid Top-1", "valid Top-3"]
    assert list(cells(layers)) == [f"L = {n}" for n in range(1, 6)]
    stages = suite_tables.main(results("retrieval"))
    assert list(stages.head)[2:5] == ["recall@1", "recall@5", "recall@6"]
    assert "±" not in stages.rows[0][2]
    assert "±" in stages.rows[0][5]
    ablation = cells(suite_tables.main(results("table3")))
    assert list(ablation)[2:] == ["Full", "w/o tt", "w/o tv", "w/o vt", "w/o vv", "Static edges"]
    detectors = cells(suite_tables.main(results("table5")))
    assert detectors["Mask R-CNN"][0].startswith("not run: the config's objects are a file")


def test_choices_tell_nothing_of_test() -> None:
    found = results("choices")
    whole = [
        suite_tables.main(found),
        *suite_tables.further(found),
        *suite_tables.comparisons(found),
    ]
    assert suite_tables.main(found).title == "Open choices, on valid"
    for table in whole:
        assert "test" not in " ".join([table.title, *table.head])
    assert [p.title for p in suite_plots.make(found) if p.title.endswith("on test")] == []


def test_a_leak_is_written_on_every_column_that_leaks(tmp_path: Path) -> None:
    found = results("gold_slot")
    table = suite_tables.main(found)
    assert [LEAK in name for name in table.head[2:]] == [False, False, True, True]
    rows = cells(table)
    never, upstream = (
        {r.seed: r.metrics("test")["hits@1"] for r in found.row(f"drin_{slot}").runs}
        for slot in ("never", "upstream")
    )
    gaps = [100 * (upstream[s] - never[s]) for s in range(3)]
    assert rows["DRIN, GOLD IN GRAPH"][3] == f"{np.mean(gaps):+.1f} ± {np.std(gaps, ddof=1):.1f}"
    assert rows["DRIN"][3] == "–"
    assert [name for name in rows if "GOLD IN GRAPH" in name] == list(rows)[1::2]
    for further in suite_tables.further(found):
        for row in further.rows:
            assert not (isinstance(row[2], Best) and "GOLD IN GRAPH" in row[0])
    suite_report.write(found, tmp_path)
    assert f"\n> {LEAK}. Rows: BERT, GOLD IN GRAPH; " in (tmp_path / "report.md").read_text()


def test_published_numbers_stand_with_their_protocol() -> None:
    entry = dict.fromkeys(("dataset", "protocol", "source"), "theirs")
    entry |= {"system": "drin", "metric": "hits@1", "value": 0.5}
    found = results("table2", published=[entry, entry | {"system": "unknown"}])
    (table,) = suite_tables.published(found)
    assert table.rows[0][3:6] == ["theirs", "theirs", "50.0"]
    assert table.rows[0][6] == cells(suite_tables.main(found))["DRIN"][1]
    assert table.rows[1][6] == "–"
    assert suite_tables.published(results("table2")) == []


def test_a_table_is_escaped_in_markdown() -> None:
    table = Table(HOSTILE, ["row", HOSTILE], [[HOSTILE, Best("1 ▲")]], ["<i>"])
    lines = table.markdown().splitlines()
    assert len(re.findall(r"(?<!\\)\|", lines[2])) == 3
    assert lines[2].endswith("| **1 ▲** |")
    assert "<script" not in table.markdown()


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    folder = tmp_path_factory.mktemp("report")
    found = results("table2", hostile=HOSTILE)
    assert suite_report.write(found, folder) == (folder / "report.html", folder / "report.md")
    return found, folder


def test_the_page_is_one_file_that_data_cannot_break(hostile_page: tuple[Results, Path]) -> None:
    found, folder = hostile_page
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    # Every address is a place on this very page or stands in it.
    elsewhere = [a for a in page.addresses if not a.startswith(("#", "data:"))]
    assert elsewhere == []
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)
    assert not re.search(r"url\(|@import|https?://", text)
    assert sum(a.startswith("data:image/svg") for a in page.addresses) == 4
    shown = "".join(page.text)
    for told in (found.command, found.audit[0]["message"], found.first["protocol"]):
        assert told in shown
    assert found.rows[0].title in shown


def test_the_page_and_the_markdown_hold_every_table(hostile_page: tuple[Results, Path]) -> None:
    found, folder = hostile_page
    page = Page((folder / "report.html").read_text())
    shown = {text.strip() for text in page.text}
    markdown = (folder / "report.md").read_text()
    tables = [suite_tables.main(found), *suite_tables.further(found)]
    for table in [*tables, *suite_tables.comparisons(found)]:
        assert table.markdown() in markdown
        for row in table.rows:
            assert {cell.strip() for cell in row} <= shown


def test_plots_are_told_in_words_and_lie_beside_the_markdown(
    hostile_page: tuple[Results, Path],
) -> None:
    found, folder = hostile_page
    linked = re.findall(r"!\[.*\]\((plots/\w+\.svg)\)", (folder / "report.md").read_text())
    assert linked == [f"plots/{name}.svg" for name in ("hits", "kinds", "learning", "edges")]
    for name in linked:
        assert "<svg" in (folder / name).read_text()
        assert (folder / name).with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    by_slug = {plot.slug: plot for plot in suite_plots.make(found)}
    points = [f"{kind} (n = {n})" for kind, n in found.sizes("test").items() if "kind:" in kind]
    assert f"({', '.join(points)})".replace("kind:", "") in by_slug["kinds"].alt
    assert "BERT" in by_slug["kinds"].alt
    assert by_slug["hits"].files["svg"] == (folder / "plots/hits.svg").read_bytes()


def test_the_edges_plot_has_a_line_a_relation_and_side() -> None:
    edges = next(plot for plot in suite_plots.make(results("table2")) if plot.slug == "edges")
    shown = [axes for axes in edges.figure.axes if axes.get_visible()]
    assert [axes.get_title("left") for axes in shown] == ["all", *KINDS]
    handles, labels = shown[0].get_legend_handles_labels()
    assert len(labels) == 8
    lines = {label: handle[0] for label, handle in zip(labels, handles, strict=True)}
    np.testing.assert_allclose(lines["tv, other"].get_ydata(), 0.25)
    assert np.isnan(lines["vv, other"].get_ydata()).all()
    assert list(lines["tt, gold"].get_xdata()) == [0, 1, 2]


def bare(row: Row, seeds: int) -> Row:
    """The row with fewer runs, without kinds, curves and edges."""
    runs = []
    for run in row.runs[:seeds]:
        data = {k: v for k, v in run.data.items() if k not in ("valid_curve", "edges")}
        data["splits"] = {
            split: whole | {"subsets": {"all": whole["subsets"]["all"]}}
            for split, whole in run.data["splits"].items()
        }
        runs.append(dataclasses.replace(run, data=data))
    why = "" if runs else "failed: the loss is not finite"
    return dataclasses.replace(row, runs=runs, why_not=why)


@pytest.mark.parametrize("suite", ["table2", "table4", "gold_slot"])
def test_nothing_breaks_over_one_seed_a_failed_row_and_no_kinds(suite: str, tmp_path: Path) -> None:
    found = results(suite, seeds=1)
    rows = [bare(row, min(i, 1)) for i, row in enumerate(found.rows)]
    empty = {"comparisons": [], "audit": [], "environment": {}, "untrained": {}, "command": ""}
    html, markdown = suite_report.write(dataclasses.replace(found, rows=rows, **empty), tmp_path)
    text = html.read_text()
    assert "n/a" in text
    assert "failed: the loss is not finite" in text
    assert "failed: the loss is not finite" in markdown.read_text()
    assert {p.stem for p in (tmp_path / "plots").glob("*.svg")} <= {"hits", "table4"}


def test_the_main_table_on_a_terminal(capsys: pytest.CaptureFixture) -> None:
    suite_tables.main(results("table2")).show()
    out = capsys.readouterr().out
    assert "GHMFC" in out
    assert "Holm-corrected" in out
