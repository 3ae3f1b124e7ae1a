"""The validator: each oddity is found in a data set that has it, and the exit code says how bad."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from configs import common
from data_pipeline.release import convert
from data_pipeline.validate import __main__ as validate
from data_pipeline.validate import examination
from drin_jax.extract import preparation
from tests.data_pipeline.readers_test import ENTITIES, MENTION, write_corpus
from tests.support.commands import assert_one_clear_line, run, user_error

CLEAN_ENTITIES = [{**entity, "image": None, "description": "text"} for entity in ENTITIES]


def mention(number: int, split: str = "train", **changes: Any) -> dict[str, Any]:
    """One that shares nothing with another of another number."""
    text = f"Zoë saw Ada {number}."
    fields = {"id": f"m{number}", "text": text, "split": split, "sample": f"{number}"}
    return {**MENTION, "image": None, **fields, **changes}


CLEAN = [mention(1), mention(2, "valid"), mention(3, "test")]


def code_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = validate.main(arguments)
    told = capsys.readouterr()
    return code, told.out, told.err


def found(root: Path, **options: Any) -> dict[str, tuple[str, int | None]]:
    result = validate.validate("jsonl", root, **options)
    return {finding.name: (finding.level, finding.count) for finding in result.findings}


def test_a_clean_data_set_has_no_findings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path, CLEAN, CLEAN_ENTITIES)
    code, out, err = code_of(["--format=jsonl", "--strict", str(tmp_path)], capsys)
    assert (code, err) == (0, "")
    assert out.endswith("usable: 0 errors, 0 warnings\n")
    assert "test: mentions: 1\n" in out


ODD = {
    "no valid split is published": (None, [CLEAN[0], CLEAN[2]]),
    "gold outside the knowledge base": (1, [*CLEAN, mention(4, entity="e9")]),
    "gold not among the given candidates": (1, [mention(4, candidates=["e2"])]),
    "candidates outside the knowledge base": (1, [mention(4, candidates=["e1", "e9"])]),
    "the same candidate twice": (1, [mention(4, candidates=["e1", "e1"])]),
    "mention not found in its text": (1, [mention(4, start=None, end=None, name="Byron")]),
    "offsets that show something else": (1, [mention(4, name="Byron")]),
    "empty text": (1, [mention(4, text="", start=None, end=None, name="Ada")]),
    "the same mention twice in one split": (1, [CLEAN[0], {**CLEAN[0], "id": "again"}]),
    "test mention that shares its sample with train": (1, [mention(4, "test", sample="1")]),
    "test mention that shares its text with train": (
        1,
        [mention(4, "test", text=CLEAN[0]["text"])],
    ),
    "test mention that shares its picture with valid": (
        1,
        [mention(4, "valid", image="a.png"), mention(5, "test", image="a.png")],
    ),
    "mention picture named but not there": (1, [mention(4, image="a.png")]),
    "not one mention picture is there": (2, [mention(i, image=f"{i}") for i in (4, 5)]),
    "picture of more than 20 different texts": (1, [mention(i, image="a") for i in range(4, 25)]),
}


@pytest.mark.parametrize("name", ODD)
def test_each_oddity_of_mentions_is_a_warning(tmp_path: Path, name: str) -> None:
    count, rows = ODD[name]
    rows = rows if rows[0] is CLEAN[0] else [*CLEAN, *rows]
    assert found(write_corpus(tmp_path, rows, CLEAN_ENTITIES))[name] == ("warning", count)


def test_oddities_of_entities_are_warnings(tmp_path: Path) -> None:
    first = CLEAN_ENTITIES[0]
    entities = [
        *CLEAN_ENTITIES,
        {**first, "id": "twin"},
        {**first, "id": "nameless", "name": " "},
        {**first, "id": "bare", "name": "Bare", "description": ""},
        {**first, "id": "lost", "name": "Lost", "image": "lost.png"},
    ]
    names = found(write_corpus(tmp_path, CLEAN, entities))
    assert names["entities of the same name and description"] == ("warning", 1)
    assert names["entity without a name"] == ("warning", 1)
    assert names["entity without a description"] == ("warning", 1)
    assert names["entity picture named but not there"] == ("warning", 1)


def test_pictures_that_cannot_be_opened_are_counted(tmp_path: Path) -> None:
    write_corpus(tmp_path, [mention(i, image=f"{i}.png") for i in range(4)], CLEAN_ENTITIES)
    for i in range(4):
        if i == 2:
            (tmp_path / "2.png").write_text("<html>not here</html>")
        else:
            Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
    assert found(tmp_path)["unreadable picture (of 4 tried)"] == ("warning", 1)
    assert "unreadable picture (of 2 tried)" in found(tmp_path, images=2)  # 0.png and 2.png
    assert not any("unreadable" in name for name in found(tmp_path, images=0))


UNUSABLE = {
    "no gold is in the knowledge base": [mention(1, entity="e9")],
    "no gold is among the given candidates": [mention(1, candidates=["e2"])],
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_data_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    write_corpus(tmp_path, UNUSABLE[name], CLEAN_ENTITIES)
    code, out, _ = code_of(["--format=jsonl", str(tmp_path)], capsys)
    assert code == 1
    assert f"error: {name}: 1, such as m1" in out
    assert "\nunusable: " in out


def shares(number: int, split: str) -> dict[str, Any]:
    return mention(number, split, sample="shared")


# What training refuses is refused here, in the same words.
REFUSED = {
    "the train split is empty": CLEAN[1:],
    "the valid split is empty": [CLEAN[0], CLEAN[2]],
    "the test split is empty": CLEAN[:2],
    "2 mentions share their sample, text or picture with a later split": [
        *(shares(1, "train"), shares(2, "train"), mention(3, "valid"), shares(4, "test")),
    ],
    "nothing can be learnt from the valid split: all are NIL": [
        *(CLEAN[0], mention(2, "valid", entity=None), CLEAN[2]),
    ],
    "from the train split: not one gold is in the knowledge base": [
        *(mention(1, entity="e9"), *CLEAN[1:]),
    ],
    '30 different values of "kind"': [
        *(mention(i, kind=f"kind {i}") for i in range(4, 34)),
        *CLEAN,
    ],
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_training_refuses_is_an_error(tmp_path: Path, why: str) -> None:
    root = write_corpus(tmp_path, REFUSED[why], CLEAN_ENTITIES)
    assert any(why in name for name, (level, _) in found(root).items() if level == "error")
    if "share" in why:  # the other split keeps them
        assert not any("empty" in name for name in found(root, split="published"))
    config = common.get_config()
    config.data.root = str(root)
    assert why in user_error(lambda: preparation.prepare(config, tmp_path / "work"))


def test_json_is_printed_of_what_cannot_be_read_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = code_of(["--format=jsonl", "--json", str(tmp_path)], capsys)
    assert (code, err) == (1, "")
    (finding,) = json.loads(out)["findings"]
    assert finding["level"] == "error"
    assert "mentions.jsonl is missing" in finding["name"]


def test_strict_exits_3_on_warnings_and_json_holds_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path, [*CLEAN, mention(4, entity="e9")], CLEAN_ENTITIES)
    arguments = ["--format=jsonl", "--json", str(tmp_path)]
    code, out, _ = code_of(arguments, capsys)
    told = json.loads(out)
    assert code == 0
    assert told["splits"]["train"]["gold outside the knowledge base"] == 1
    assert told["counts"]["entities that are a gold"] == 1
    outside = {"name": "gold outside the knowledge base", "examples": ["m4"]}
    assert {"level": "warning", "count": 1, **outside} in told["findings"]
    assert code_of([*arguments, "--strict"], capsys)[0] == 3


def test_on_a_terminal_it_draws_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    write_corpus(tmp_path, [*CLEAN, mention(4, entity="[e9]")], CLEAN_ENTITIES)
    code, out, _ = code_of(["--format=jsonl", str(tmp_path)], capsys)
    assert code == 0
    assert "┃" in out
    assert "gold outside the knowledge base" in out


def test_release_asks_its_own_module(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "check", lambda root: [f"{root / 'a.npy'} is cut"])
    code, out, _ = code_of(["--format=release", str(tmp_path)], capsys)
    assert (code, out.splitlines()[0]) == (1, f"error: {tmp_path / 'a.npy'} is cut")
    monkeypatch.setattr(convert, "check", lambda root: [])
    assert code_of(["--format=release", str(tmp_path)], capsys)[0] == 0
    monkeypatch.undo()
    assert code_of(["--format=release", str(tmp_path / "no")], capsys)[0] == 1


def test_every_reader_has_a_format() -> None:
    assert set(validate.FORMATS) == {*validate.readers.READERS, "release"} - {"sample"}


def test_wrong_flags_and_wrong_folders_end_in_one_line(tmp_path: Path) -> None:
    module = "data_pipeline.validate"
    assert_one_clear_line(run(module, "--format=csv", "x"), "csv", "wikidiverse", code=2)
    for form in ("wikidiverse", "richpedia", "mimic", "kgmel", "candidates"):
        with pytest.raises(validate.UserError, match=r"holds no|missing"):
            validate.validate(form, tmp_path)
    missing = run(module, "--format=jsonl", str(tmp_path / "no"))
    assert_one_clear_line(missing, f"{tmp_path / 'no'} is not a folder")


def test_examine_needs_no_files(tmp_path: Path) -> None:
    corpus = validate.readers.load("jsonl", write_corpus(tmp_path, CLEAN), name="x")
    for path in tmp_path.iterdir():
        path.unlink()
    assert examination.examine(corpus, corpus).counts["entities"] == 2
