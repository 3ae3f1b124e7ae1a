"""Recall tables: counted by hand, and the command that writes them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs import common
from data_pipeline.retrieval import recall
from data_pipeline.schema import NIL, OUTSIDE_KB, PADDING, Corpus, Entity, Mention, UserError
from drin_jax.recall import __main__ as command
from tests.support.commands import assert_one_clear_line, run

ROWS = np.array([[3, 1, 2], [1, 3, PADDING], [2, 1, 0], [0, PADDING, PADDING], [1, 2, 3]], np.int32)


def test_recall_counts_misses_and_leaves_nil_out() -> None:
    """Golds at rank 0, at rank 1, not found, NIL, and outside the knowledge base."""
    found = recall.recall(ROWS, np.array([3, 3, 3, NIL, OUTSIDE_KB]), (1, 2, 3))
    assert (found.asked, found.outside, found.nil) == (4, 1, 1)
    assert found.share == {1: 1 / 4, 2: 2 / 4, 3: 2 / 4}


def test_padding_is_nobodys_gold() -> None:
    found = recall.recall(ROWS[[1, 3]], np.array([OUTSIDE_KB, 2]), (3,))
    assert found.share == {3: 0}


def test_recall_refuses_what_it_cannot_tell() -> None:
    with pytest.raises(UserError, match="recall@4 cannot be told from 3 candidates"):
        recall.recall(ROWS, np.zeros(5, int), (1, 4))
    with pytest.raises(UserError, match="none has a gold"):
        recall.recall(ROWS, np.full(5, NIL), (1,))


def corpus() -> Corpus:
    """Seven test mentions, one of them under another's name, and two of valid, one of them NIL."""
    entities = [Entity(f"Q{i}", f"Name {i}", f"thing {i}") for i in range(9)]
    golds: list[str | None] = [f"Q{i}" for i in range(9)]
    golds[8] = None
    mentions = [
        Mention(f"m{i}", f"see {golds[i]}", "Name 0" if i == 6 else f"Name {i}", None, None,
                "test" if i < 7 else "valid", f"s{i}", golds[i], clean=i != 3,
                candidates=("Q1", "Q2"))
        for i in range(9)
    ]  # fmt: skip
    return Corpus("nine", entities, mentions, {}, {})


def test_the_table_has_valid_test_and_clean_test() -> None:
    rows = np.arange(9, dtype=np.int32)[:, None]
    rows[6] = 0
    found = recall.table(corpus(), rows, (1,))
    assert {name: (r.asked, r.nil, r.share[1]) for name, r in found.items()} == {
        "valid": (1, 1, 1),
        "test": (7, 0, 6 / 7),
        recall.CLEAN: (6, 0, 5 / 6),
    }
    only_test = [m for m in corpus().mentions if m.split == "test"]
    less = dataclasses.replace(corpus(), mentions=only_test)
    assert list(recall.table(less, rows[:7], (1,))) == ["test", recall.CLEAN]


def measure(*methods: str, of: Corpus | None = None) -> dict[str, Any]:
    return command.measure(common.get_config(), of or corpus(), methods, Path("unused"))


def test_each_method_is_measured_at_the_same_depths(tmp_path: Path) -> None:
    found = command.measure(common.get_config(), corpus(), command.METHODS, tmp_path)
    assert found["ks"] == (1, 3, 5, 10, 20, 50, 100)
    at_one = {
        name: method["subsets"]["test"]["share"][1] for name, method in found["methods"].items()
    }
    stages = dict.fromkeys(("union", "its names", "its forms", "names", "statistics"), 6 / 7)
    assert at_one == stages | {"given": 1 / 7}
    assert found["methods"]["given"]["subsets"]["test"]["share"][100] == 2 / 7
    rows = command.shown(found).rows
    assert rows[0][:4] == ["valid", "union", "1", "100.0"]
    assert [row[:2] for row in rows[6:12]] == [["test", name] for name in found["methods"]]


def test_what_cannot_be_measured_is_told() -> None:
    with pytest.raises(
        UserError, match="--methods is 'dense'; known are union, names, statistics, given"
    ):
        measure("names", "dense")
    with pytest.raises(
        UserError, match="--methods is ''; known are union, names, statistics, given"
    ):
        measure()
    without = dataclasses.replace(corpus().mentions[0], candidates=None)
    with pytest.raises(UserError, match="'m0' comes without candidates"):
        measure("given", of=dataclasses.replace(corpus(), mentions=[without]))
    nil = dataclasses.replace(corpus(), mentions=corpus().mentions[8:])
    with pytest.raises(UserError, match="nine: no mention of valid or test has a gold"):
        measure("given", of=nil)


def test_the_command_prints_and_writes_the_table(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    given = corpus()
    (raw / "entities.jsonl").write_text(
        "\n".join(json.dumps(dataclasses.asdict(entity)) for entity in given.entities)
    )
    lines = [
        {"id": m.id, "text": m.text, "start": None, "end": None, "name": m.name, "image": None,
         "entity": m.gold, "split": m.split, "sample": m.sample}
        for m in given.mentions
    ]  # fmt: skip
    (raw / "mentions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = ["--config=configs/common.py", f"--config.data.root={raw}", "--config.eval.ks=(1,2)"]
    work = tmp_path / "work"
    result = run("drin_jax.recall", *options, f"--workdir={work}")
    assert result.returncode == 0, result.stderr
    written = json.loads((work / "recall.json").read_text())
    united = ["union", "its names", "its forms"]  # nothing is encoded, no description is in a text
    assert list(written["methods"]) == [*united, "names", "statistics"]  # nor candidates given
    assert written["methods"]["names"]["subsets"]["valid"]["nil"] == 1
    markdown = (work / "recall.md").read_text()
    assert "| mentions | method | n | recall@1 | recall@2 | recall@100 |" in markdown
    assert "| test | names | 7 | 85.7 | 85.7 | 100.0 |" in markdown
    assert "recall@100" in result.stdout
    assert str(work / "recall.md") in result.stdout
    wrong = run("drin_jax.recall", *options, f"--workdir={work}", "--methods=names,fuzzy")
    assert_one_clear_line(wrong, "--methods is 'fuzzy'", "names, statistics, given")
