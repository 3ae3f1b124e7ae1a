"""drin-jax kb, as its user has it: files in, lines out."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.kb.change import Change
from data_pipeline.kb.knowledge_base import open_kb
from data_pipeline.schema import PADDING
from tests.support import bases
from tests.support.commands import assert_one_clear_line, run, start

ROWS = [
    {"id": "Q1", "name": "Michael Jordan", "aliases": ["MJ"], "description": "basketball player"},
    {"id": "Q2", "name": "Michael I. Jordan", "description": "professor of statistics"},
    {"id": "a/b", "name": "Jordan", "description": "country"},
    {"id": "Q4", "name": "\x1b[2Jsteers a terminal", "description": "[red]no markup[/red]"},
]


def kb(*args: Any) -> Any:
    return run("drin_jax.kb", *map(str, args))


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def search(path: Path, *args: str) -> list[dict[str, Any]]:
    result = kb("search", path, "--json", *args)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def info(path: Path) -> dict[str, Any]:
    result = kb("info", path, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_life_of_a_knowledge_base(tmp_path: Path) -> None:
    path, first = tmp_path / "my kb", lines(tmp_path / "first.jsonl", ROWS)
    built = kb("build", path, f"--entities={first}", "--name=mine")
    assert built.returncode == 0, built.stderr
    assert "mine, generation 1: 4 entities in 1 segments" in built.stdout
    assert "features: none, names and words alone" in built.stdout
    text = "--text=The professor, Jordan, spoke of statistics"
    assert [row["id"] for row in search(path, "--mention=Jordan", text, "--k=2")] == ["Q2", "a/b"]
    best = search(path, "--mention=MJ")[0]
    assert best["id"] == "Q1"
    evidence = best["names"] + best["forms"] + best["words"] / 2
    assert best["score"] == pytest.approx(evidence + 2)  # a stage found it first
    assert "no entity is found by 'zzzz'" in kb("search", path, "--mention=zzzz").stdout
    shown = kb("search", path, "--mention=steers a terminal").stdout
    assert "[red]no markup" in shown
    assert "\x1b" not in shown

    more = tmp_path / "more.csv"
    more.write_text("id,name,aliases\n007,James Bond,double o seven|JB\nQ1,Replaced,\n")
    refused = kb("add", path, f"--entities={more}")
    assert_one_clear_line(refused, "has 'Q1' already; nothing was added (--update replaces)")
    assert info(path)["generation"] == 1
    added = kb("add", path, f"--entities={more}", "--update")
    assert "2 entities put" in added.stdout
    again = kb("add", path, f"--entities={more}", "--update")
    assert "2 entities are there already" in again.stdout
    assert search(path, "--mention=JB")[0]["id"] == "007"
    assert [row["id"] for row in search(path, "--mention=Replaced")] == ["Q1"]
    assert "Q1" not in [row["id"] for row in search(path, "--mention=MJ")]

    assert_one_clear_line(kb("remove", path, "--ids=a/b,none"), "has no 'none'; nothing was")
    assert "1 entities removed" in kb("remove", path, "--ids=a/b").stdout
    told = info(path)
    assert told | {"bytes": 0} == {
        "name": "mine",
        "generation": 3,
        "entities": 4,
        "removed or replaced": 2,
        "segments": 3,
        "features": {},
        "encoders": {},
        "bytes": 0,
    }
    assert told["bytes"] > 1000
    before = search(path, "--mention=Michael Jordan", "--k=9")
    assert "4 entities in 1 segments" in kb("compact", path).stdout
    after = search(path, "--mention=Michael Jordan", "--k=1000000000")
    assert [row["id"] for row in after] == [row["id"] for row in before]
    whole = kb("verify", path)
    assert whole.stdout == f"{path}: whole, 4 entities at generation 4\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    path = folder / "kb"
    assert kb("build", path, f"--entities={lines(folder / 'e.jsonl', ROWS)}").returncode == 0
    return path


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("build", "{new}"), ("--entities is missing",)),
        (("build", "{new}", "--entities={none}.jsonl"), ("none.jsonl is missing",)),
        (("build", "{new}", "--entities={none}.xlsx"), ("is none of .jsonl",)),
        (("build", "{new}", "--entities={twice}"), ("twice.jsonl:2", "twice.jsonl:1", "'Q1'")),
        (("build", "{kb}", "--entities={more}"), ("holds a knowledge base already",)),
        (("build", "s3://bucket/kb", "--entities={more}"), ("only folders of this machine",)),
        (("add", "{new}", "--entities={more}"), ("there is no knowledge base",)),
        (("add", "{kb}", "--entities={more}", "--config=common"), ("--config is not taken by",)),
        (("remove", "{new}", "--ids=Q1"), ("there is no knowledge base",)),
        (("remove", "{kb}"), ("--ids is missing",)),
        (("remove", "{kb}", "--ids=\udcff"), ("nothing was removed",)),
        (("compact", "{new}"), ("there is no knowledge base",)),
        (("search", "{new}", "--mention=x"), ("there is no knowledge base",)),
        (("search", "{kb}"), ("--mention is missing",)),
        (("search", "{kb}", "--mention=x", "--k=0"), ("--k is 0",)),
        (("info", "{new}"), ("there is no knowledge base",)),
        (("verify", "{new}"), ("there is no knowledge base",)),
        (("destroy", "{kb}"), ("'destroy' is no action; there are build, add, remove",)),
    ],
)
def test_what_is_refused_in_one_line_leaves_nothing(
    base: Path, tmp_path: Path, args: tuple[str, ...], told: tuple[str, ...]
) -> None:
    row = [{"id": "Q9", "name": "more"}]
    places = {"new": tmp_path / "new", "kb": base, "none": tmp_path / "none"}
    places["more"] = lines(tmp_path / "more.jsonl", row)
    places["twice"] = lines(tmp_path / "twice.jsonl", [ROWS[0], ROWS[0]])
    before = (base / "kb.json").read_bytes()
    assert_one_clear_line(kb(*(arg.format(**places) for arg in args)), *told)
    assert (base / "kb.json").read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"more.jsonl", "twice.jsonl"}


def test_odd_mentions_are_searched(base: Path) -> None:
    for args in (
        ("--mention=\udcff",),
        ("--mention=\udcff", "--text=\udcff basketball"),
        ("--mention=" + "x" * 10_000,),
        ("--mention=...",),
        ("--mention=\x1b[2J",),
        ("--mention=)(", "--text=)("),
    ):
        search(base, *args)
    assert search(base, "--mention=...", "--text=... basketball")[0]["id"] == "Q1"


def test_kills_of_the_command_lose_nothing(tmp_path: Path) -> None:
    """kill -9 of adds at random moments, each started again until it is through."""
    path, rng = tmp_path / "kb", np.random.default_rng(1)
    file = lines(tmp_path / "e.jsonl", ROWS)
    assert kb("build", path, f"--entities={file}").returncode == 0
    killed = 0
    for number in range(4):
        rows = [{"id": f"N{number}-{i}", "name": f"new {number} {i}"} for i in range(200)]
        lines(file, rows)
        for patience in (rng.uniform(0, 0.1), rng.uniform(0.05, 0.25), 100):
            process = start("drin_jax.kb", "add", str(path), f"--entities={file}")
            deadline = time.monotonic() + patience
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
            if patience < 100:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                killed += process.returncode == -signal.SIGKILL
            now = open_kb(path)
            now.verify()
            there = now.find([row["id"] for row in rows]) != PADDING
            assert there.all() == there.any(), "half a change"
        assert process.wait() == 0, process.communicate()
        assert there.all()
        assert search(path, f"--mention=new {number} 7", "--k=1")[0]["id"] == f"N{number}-7"
    assert killed >= 2
    assert now.entity_count == len(ROWS) + 800


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "kb"
    file = lines(tmp_path / "e.jsonl", ROWS)
    assert kb("build", path, f"--entities={file}").returncode == 0
    lines(file, [{"id": "new", "name": "new"}])
    with Change(path):
        for args in (("add", f"--entities={file}"), ("remove", "--ids=Q1"), ("compact",)):
            result = kb(args[0], path, *args[1:])
            assert_one_clear_line(result, f"{path}: in use by process", "wait for it, or stop it")
        assert search(path, "--mention=MJ")[0]["id"] == "Q1"
    assert kb("add", path, f"--entities={file}").returncode == 0


def test_verify_names_a_damaged_file(base: Path, tmp_path: Path) -> None:
    data = bytearray((base / "000001" / "rows.arrow").read_bytes())
    data[len(data) // 2] ^= 1
    (base / "000001" / "rows.arrow").write_bytes(data)
    for action in ("verify", "info", "search"):
        result = kb(action, base, "--mention=x") if action == "search" else kb(action, base)
        assert_one_clear_line(result, f"{base}/000001/rows.arrow: is cut, foreign or damaged")
    data[len(data) // 2] ^= 1
    (base / "000001" / "rows.arrow").write_bytes(data)
    dead = base / "000001" / "dead.npy"
    whole = dead.read_bytes()
    dead.write_bytes(b"\x00" + whole[1:])
    assert_one_clear_line(kb("verify", base), "000001/dead.npy: is no .npy file")
    dead.write_bytes(whole)
    assert kb("verify", base).returncode == 0


@pytest.mark.parametrize(
    ("made_from", "told"),
    [
        ({"odd": 1}, "its settings are not of this program ('odd')"),
        ({"data.root": "/"}, "its settings are not of this program ('data.root')"),
        ({"encoders.max_length": "x"}, "its settings are not of this program"),
        ({"encoders.max_length": -1}, "encoders.max_length is -1; it must be from"),
        ({"encoder files": [1]}, "its 'encoder files' are odd"),
        ({"encoder files": {"text": 1}}, "its 'encoder files' are odd"),
    ],
)
def test_settings_that_were_tampered_with(
    tmp_path: Path, made_from: dict[str, Any], told: str
) -> None:
    path, file = tmp_path / "kb", lines(tmp_path / "e.jsonl", ROWS[:1])
    bases.build(path, [bases.entity("Q9")], features=True)
    meta = json.loads((path / "kb.json").read_text())
    (path / "kb.json").write_text(json.dumps(meta | {"made_from": made_from}))
    action = "info" if "encoder files" in made_from else "add"
    assert_one_clear_line(kb(action, path, *[f"--entities={file}"] * (action == "add")), told)
