"""WikiMEL as published: samples, split files, and one line for each way a file can be wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data_pipeline.readers_test import read, refused
from tests.support.paths import SHARED

WIKIMEL = SHARED / "data" / "wikimel"
real_wikimel = pytest.mark.skipif(
    not (WIKIMEL / "Wikidata-MEL.json").is_file(), reason=f"no WikiMEL under {WIKIMEL}"
)

SAMPLES = {
    "7": {
        "id": "7",
        "sentence": "Powers with Noel Harrison; Powers left.",
        "mentions": ["Noel Harrison", "Powers", "noel"],
        "entities": ["LEAK", "LEAK", "LEAK"],
        "answer": ["Q2", "Q1", "Q9"],
    },
    "8": {
        "id": "8",
        "sentence": "Condon",
        "mentions": ["Condon"],
        "entities": ["LEAK"],
        "answer": ["Q1"],
    },
}


def write_wikimel(root: Path, **files: Any) -> Path:
    names = {"Q2": "Noel Harrison", "Q1": "Stefanie Powers"}
    files = {"qid2ne": names, "qid2abs": {"Q1": "Sex: female."}, **files}
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (root / f"{name.replace('__', '-')}.json").write_text(text, encoding="utf-8")
    return root


def test_wikimel_of_samples(tmp_path: Path) -> None:
    write_wikimel(tmp_path, Wikidata__MEL=SAMPLES, test_keys=["7-1", "99"])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "8.jpg").touch()
    corpus = read("wikimel", tmp_path)
    assert [(m.id, m.sample, m.start, m.end, m.split, m.gold) for m in corpus.mentions] == [
        ("7-0", "7", 12, 25, "train", "Q2"),
        ("7-1", "7", 0, 6, "test", "Q1"),  # the first of its two occurrences
        ("7-2", "7", None, None, "train", "Q9"),  # case counts
        ("8", "8", 0, 6, "train", "Q1"),
    ]
    assert [(e.id, e.name, e.description) for e in corpus.entities] == [
        ("Q2", "Noel Harrison", ""),
        ("Q1", "Stefanie Powers", "Sex: female."),
    ]
    assert [m.image for m in corpus.mentions[2:]] == [None, str(tmp_path / "images" / "8.jpg")]
    counts = {"span_not_found": 1, "gold_outside_kb": 1, "missing_mention_images": 3}
    counts["test_keys_unknown"] = 1
    assert {key: corpus.counts[key] for key in counts} == counts
    assert "LEAK" not in repr(corpus)


def test_wikimel_of_split_files(tmp_path: Path) -> None:
    rows = {
        split: {key: {"sentence": "Powers sings", "mentions": "Powers", "answer": "Q1"}}
        for split, key in (("train", "7-1"), ("valid", "8"), ("test", "7-0"))
    }
    write_wikimel(tmp_path, **{f"WIKIMEL_{split}": row for split, row in rows.items()})
    table = ["7-1\tQ1\tQ2", "8\t" + "\t".join(f"Q{i}" for i in range(101)), "99\tQ1"]
    (tmp_path / "candidates-answer.tsv").write_text("\n".join(table))
    corpus = read("wikimel", tmp_path, valid_fraction=0.5)
    assert [(m.id, m.sample, m.name, m.start, m.split, m.gold) for m in corpus.mentions] == [
        ("7-1", "7", "Powers", 0, "train", "Q1"),
        ("8", "8", "Powers", 0, "valid", "Q1"),
        ("7-0", "7", "Powers", 0, "test", "Q1"),
    ]
    hundred = tuple(f"Q{i}" for i in range(100))  # a 101st column would be the gold
    assert [m.candidates for m in corpus.mentions] == [("Q1", "Q2"), hundred, None]
    assert (corpus.counts["candidates_cut"], corpus.counts["candidate_rows_unknown"]) == (1, 1)
    assert "candidates-answer.tsv" in corpus.sources


def test_wikimel_refuses_broken_files(tmp_path: Path) -> None:
    write_wikimel(tmp_path, WIKIMEL_train=SAMPLES)
    assert refused("wikimel", tmp_path) == f"{tmp_path / 'WIKIMEL_valid.json'} is missing"
    write_wikimel(tmp_path, WIKIMEL_valid=SAMPLES)
    where = tmp_path / "WIKIMEL_train.json"
    assert f"id '7-0' is given twice, first in {where}" in refused("wikimel", tmp_path)
    for split in ("train", "valid"):
        (tmp_path / f"WIKIMEL_{split}.json").unlink()

    def message(**files: Any) -> str:
        write_wikimel(tmp_path, **{"Wikidata__MEL": SAMPLES, "test_keys": ["8"], **files})
        return refused("wikimel", tmp_path)

    assert "not one key is a mention" in message(test_keys=["1"])
    assert "expected a JSON list" in message(test_keys={"8": 1})
    assert "'7' has 3 mentions but 1 answers" in message(
        Wikidata__MEL={"7": {**SAMPLES["7"], "answer": "Q1"}}
    )
    assert "'7' must be an object with" in message(Wikidata__MEL={"7": {"id": "7"}})
    assert "at least one row" in message(Wikidata__MEL={})
    assert "Wikidata-MEL.json: not valid JSON" in message(Wikidata__MEL='{"7": ')
    assert "key 'Q1' occurs twice" in message(qid2ne='{"Q1": "a", "Q1": "b"}')
    assert "the name must be a string, got null" in message(qid2ne={"Q1": None})


@real_wikimel
def test_real_wikimel_is_what_was_measured() -> None:
    corpus = read("wikimel", WIKIMEL, "disjoint", valid_fraction=0.1)
    expected = {
        "samples": 22_136,
        "mentions": 25_846,
        "entities": 18_880,
        "span_not_found": 740,
        "span_not_found_test": 147,
        "missing_mention_images": 25_777,  # 38 pictures are there, of 69 mentions
        "dropped_shared_with_test": 1_395,
        "dropped_shared_with_valid": 0,
        "train": 17_359,
        "valid": 1_923,
        "test": 5_169,
        "clean_test": 4_002,
        "test_keys_unknown": 0,
        "gold_outside_kb": 0,
    }
    assert {key: corpus.counts[key] for key in expected} == expected
