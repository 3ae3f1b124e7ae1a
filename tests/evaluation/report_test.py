"""Several runs in one table: every row once, and no table that mixes protocols."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.schema import UserError
from drin_jax.evaluation import report
from drin_jax.evaluation.evaluate import SplitView, evaluate_split
from drin_jax.report import __main__ as command
from tests.support.fixtures import refusal


def a_report(system: str, flip: bool = False) -> dict[str, Any]:
    """Two mentions, both answerable; the system ranks both golds first, or last."""
    view = SplitView(
        split="test",
        candidates=np.ones((2, 3), bool),
        retrieval_score=np.array([[2.0, 1, 0], [2, 2, 0]]),
        text_edge=np.zeros((2, 3)),
        gold=np.array([0, 1]),
        gold_any=np.array([0, 1]),
        retrieved=3,
        gold_entity=np.array([4, 5]),
        groups={"clean": np.array([True, False])},
    )
    scores = np.array([[1.0, 0, 0], [0, 1, 0]])
    systems = {"name matching": view.retrieval_score, system: -scores if flip else scores}
    return {
        "name": f"data: {system}",
        "system": system,
        "protocol": "candidates: names; gold in graph: only where retrieved",
        "gold_in_graph": False,
        "ks": [1, 3],
        "best_step": 7,
        "seconds": {"prepare": 1.0, "train": 2.0, "evaluate": 3.0},
        "peak_memory_gb": 0.5,
        "splits": {"test": evaluate_split(view, systems, (1, 3))},
    }


def test_one_table_of_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, flip in (("good", False), ("bad", True)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(a_report(name, flip)))
    command.main([str(tmp_path / "good"), str(tmp_path / "bad")])
    lines = capsys.readouterr().out.splitlines()
    assert "| all | end to end | good | 2 | 100.0 | 100.0 | 100.0 |" in lines
    assert "| all | end to end | bad | 2 | 0.0 | 100.0 | 33.3 |" in lines
    assert "| clean | end to end | name matching | 1 | 100.0 | 100.0 | 100.0 |" in lines
    # Once, however many runs tell it, and only where names tie.
    assert sum("name matching, ties optimistic" in line for line in lines) == 1
    assert not any("answerable |" in line for line in lines)  # all are: it would say it twice
    assert "| bad | 7 | 1 | 2 | 3 | 0.50 |" in lines


def test_readings_of_a_tie_are_told_where_they_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    told = a_report("[red]system|_", flip=True)
    mention = {"mention": "m1: [bold]right[/bold]", "text": "a | <b> [[b]]"}
    told["examples"] = {"told": "1 mention of test", "mentions": [mention]}
    paths = report.write(tmp_path, told)
    markdown = paths[1].read_text()
    assert json.loads(paths[0].read_text()) == json.loads(json.dumps(told))
    assert r"| all | end to end | \[red\]system\|\_ |" in markdown
    assert r"system\|\_, ties" not in markdown  # its scores do not tie
    assert markdown.count("name matching, ties pessimistic") == 1  # nor do names in "clean"
    assert r"* text: a \| &lt;b&gt; \[\[b\]\]" in markdown
    report.show(told)
    out = capsys.readouterr().out
    assert "m1: [bold]right[/bold]" in out
    # Its first line, and that of the page, compares it with what needs no training.
    verdict = "On test, [red]system|_ (MRR 33.3, hits@1 0.0) is behind name matching (MRR 83.3,"
    assert out.startswith(verdict)
    assert r"On test, \[red\]system\|\_ (MRR 33.3" in markdown.splitlines()[2]
    assert out.index("a | <b> [[b]]") < out.rindex("[red]system|_")
    assert "system (MRR 100.0, hits@1 100.0) is ahead of name" in report.verdict(a_report("system"))


def test_protocols_do_not_mix() -> None:
    honest, leaking = a_report("a"), copy.deepcopy(a_report("b"))
    leaking["protocol"] = "candidates: names; gold in graph: ALWAYS"
    with pytest.raises(UserError, match="cannot share a table"):
        report.compare([honest, leaking])


def test_missing_and_damaged_reports_in_one_line(tmp_path: Path) -> None:
    def told(*more: str) -> str:
        return refusal(lambda: command.main([str(tmp_path), *more]))

    assert "report.json: no such file" in told()
    (tmp_path / "report.json").write_text("{")
    assert "unreadable" in told()
    (tmp_path / "report.json").write_text(json.dumps(a_report("a")))
    assert "--subsets is 'kind:x'; known are all, clean" in told("--subsets", "kind:x")
