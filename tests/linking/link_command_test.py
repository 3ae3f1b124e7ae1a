"""`drin-jax link`: one mention, a text, a file of them that is killed and gone on with."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.files import hold_file
from tests.support import linkers
from tests.support.commands import assert_one_clear_line, run
from tests.support.paths import ROOT

TEXT = "Snow fell on Kelfield."


def link(*flags: str) -> subprocess.CompletedProcess[str]:
    return run("drin_jax.link", f"--model={linkers.trained()}", *flags)


def answers(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_mention_by_span_or_name_as_table_or_json() -> None:
    shown = link(f"--text={TEXT}", "--span=13:21", "--k=3")
    assert shown.returncode == 0, shown.stderr
    assert "'Kelfield' (13:21)" in shown.stdout
    assert "none of them" in shown.stdout
    told = link(f"--text={TEXT}", "--mention=Kelfield", "--k=3", "--json", "--explain")
    answer = json.loads(told.stdout)
    assert answer["span"] == [13, 21]
    assert len(answer["candidates"]) == 3
    assert answer["explanation"]["candidates"][0]["reasons"]
    assert told.stderr == ""


def test_a_text_alone_is_looked_through() -> None:
    found = link(f"--text={TEXT}", "--json")
    assert found.returncode == 0, found.stderr
    assert {json.loads(line)["mention"] for line in found.stdout.splitlines()} <= {"Kelfield"}
    none = link("--text=nothing here")
    assert "no mention of an entity was found" in none.stdout


def test_many_are_linked_and_gone_on_with(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows: list[dict[str, Any]] = [
        {"id": f"m{i}", "text": f"{TEXT} {i}", "mention": "Kelfield"} for i in range(400)
    ]
    rows[3] = {"text": "", "span": "odd"}
    rows[4]["topic"] = "weather"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "drin_jax.link", f"--model={linkers.trained()}"]
    command += [f"--input={source}", f"--output={target}", "--batch=4", "--k=2"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and (not target.exists() or target.stat().st_size < 20_000):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with target.open("a") as file:
        file.write('{"id": "half')
    kept = target.read_bytes().count(b"\n")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "in.jsonl: not read: topic" in done.stderr
    if kept < 400:
        assert f"{kept} answers are there already" in done.stderr
    found = answers(target)
    assert [one["id"] for one in found] == [row.get("id", i) for i, row in enumerate(rows)]
    assert "error" in found[3]
    assert all(len(one["candidates"]) == 2 for i, one in enumerate(found) if i != 3)
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "400 answers are there already" in again.stderr
    assert answers(target) == found
    target.write_text(target.read_text().replace(found[0]["model"], "another"))
    other = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert_one_clear_line(other, "holds answers of another model")


ANSWER = '{"id": "%s", "question": "%s", "model": "a", "kb": "b"}\n'
QUESTION = "6dbded72129b5ded"  # of the line that the test below asks


@pytest.mark.parametrize(
    ("held", "told"),
    [
        ("my notes, one line without newline", "line 1 is no answer of ours"),
        ('{"everything": "I ever wrote"}', "line 1 is no answer of ours"),
        (ANSWER % ("m1", "no"), "answers 'm1', but --input has 'm0' there"),
        (ANSWER % ("m0", "no"), "answers 'm0', but --input asks something else there"),
        (2 * ANSWER % ("m0", QUESTION, "m0", QUESTION), "but --input ends before there"),
        (ANSWER % ("m0", QUESTION) + '{"id"', "of another model"),
    ],
)
def test_what_an_output_holds_already_stays(tmp_path: Path, held: str, told: str) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"id": "m0", "text": TEXT, "mention": "Kelfield"}))
    target.write_text(held)
    done = link(f"--input={source}", f"--output={target}")
    assert_one_clear_line(done, told)
    assert target.read_text() == held
    done = link(f"--input={source}", f"--output={source}")
    assert_one_clear_line(done, "is --input itself")
    assert source.read_text().startswith('{"id"')


def test_an_edited_question_is_another(tmp_path: Path) -> None:
    """Also where lines have no ids; lines that were added are linked."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    first, second = ({"text": f"{TEXT} {i}", "mention": "Kelfield"} for i in range(2))
    source.write_text(json.dumps(first))
    files = (f"--input={source}", f"--output={target}")
    assert link(*files).returncode == 0
    source.write_text(json.dumps(first) + "\n" + json.dumps(second) + "\n")
    assert link(*files).stdout.endswith("2 answers\n")
    assert [one["id"] for one in answers(target)] == [0, 1]
    source.write_text(json.dumps(second) + "\n" + json.dumps(first) + "\n")
    told = "line 1 answers 0, but --input asks something else there"
    assert_one_clear_line(link(*files), told)


def test_half_a_surrogate_pair_is_one_lines_error(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    odd = [
        '{"id": "\\ud800", "text": "Snow fell on Kelfield.", "mention": "Kelfield"}',
        '{"text": "Snow", "mention": "Snow", "image": "\\ud800.png"}',
        '{"text": "Snow \\ud800", "mention": "Snow"}',
        json.dumps({"text": TEXT, "mention": "Kelfield"}),
    ]
    source.write_text("\n".join(odd))
    for _ in range(2):
        done = link(f"--input={source}", f"--output={target}")
        assert done.returncode == 0, done.stderr
        assert "4 answers" in done.stdout
    assert [one["id"] for one in answers(target)] == ["\ud800", 1, 2, 3]
    assert ["error" in one for one in answers(target)][2:] == [True, False]


def test_two_do_not_write_one_output(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"text": TEXT, "mention": "Kelfield"}))
    with target.open("w") as file:
        hold_file(file)
        done = link(f"--input={source}", f"--output={target}")
    assert_one_clear_line(done, "another process writes it")
    assert link(f"--input={source}", f"--output={target}").stdout.endswith("1 answers\n")


def test_a_model_is_saved(tmp_path: Path) -> None:
    assert link(f"--save={tmp_path / 'model'}").returncode == 0
    text = (f"--text={TEXT}", "--mention=Kelfield", "--json")
    saved = run("drin_jax.link", f"--model={tmp_path / 'model'}", *text)
    assert json.loads(saved.stdout) == json.loads(link(*text).stdout)


def test_a_base_is_built_for_a_model(tmp_path: Path) -> None:
    (tmp_path / "town.csv").write_text("id,name,description\nA,Kelfield,a village of snow\n")
    base, model = tmp_path / "town", f"--model={linkers.trained()}"
    entities = f"--entities={tmp_path / 'town.csv'}"
    built = run("drin_jax.kb", "build", str(base), entities, model)
    assert built.returncode == 0, built.stderr
    found = link(f"--text={TEXT}", "--mention=Kelfield", f"--kb={base}")
    assert "never the answer" in found.stdout or "the answer from" in found.stdout
    assert "a village of snow" in found.stdout
    (tmp_path / "more.csv").write_text("id,name,description\nB,Kelfield,a band of four\n")
    added = run("drin_jax.kb", "add", str(base), f"--entities={tmp_path / 'more.csv'}")
    assert added.returncode == 0, added.stderr
    found = link(f"--text={TEXT}", "--mention=Kelfield", f"--kb={base}")
    assert "a band of four" in found.stdout
    both = run("drin_jax.kb", "build", str(base), entities, model, "--config=sample")
    assert_one_clear_line(both, "do not go together")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "give one of --text"),
        (("--text=x", "--span=3"), "write it as 13:20"),
        (("--text=x", "--save=y"), "give one of"),
        (("--input=a.jsonl",), "go together"),
        (("--input=a.jsonl", "--output=b", "--mention=x"), "is of a single text"),
        (("--input=nowhere.jsonl", "--output=b"), "nowhere.jsonl"),
        (("--text=Kelfield", "--span=0:99"), "is not within"),
        (("--text=Kelfield", "--mention=x", "--image=nowhere.png"), "no such file"),
        (("--text=x", "--kb=nowhere"), "there is no knowledge base"),
        (("--text=x", "--ner=odd"), "give spacy:PIPELINE"),
        (("--text=x", "--workdir=y"), "are not taken here"),
    ],
)
def test_mistakes_are_one_line(flags: tuple[str, ...], told: str, tmp_path: Path) -> None:
    flags = tuple(f.replace("=nowhere", f"={tmp_path}/nowhere") for f in flags)
    assert_one_clear_line(link(*flags), told)
