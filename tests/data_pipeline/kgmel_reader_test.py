"""KGMEL's form and candidate lists: what is read, what could leak the gold, what is refused."""

from pathlib import Path
from typing import Any

from tests.data_pipeline.more_readers_test import DATA, counted, real, seen, write
from tests.data_pipeline.readers_test import read, refused


def sentence(number: int, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": number,
        "sentence": f"The UK parliament in {number}.",
        "imgPath": f"mention_{number}.jpg",
        "mention": ["UK", "parliament"],
        "entity": ["United Kingdom", "Parliament"],
        "answer": ["Q145", "Q11010"],
        "img-url": f"https://upload.wikimedia.org/{number}.jpg",
    }
    return fields | changes


SPLIT = {"train": [0, 1, 2, 3], "val": [1, 2], "test": [2, 4]}


def kgmel(root: Path, rows: list[Any], **files: Any) -> Path:
    return write(root, **{"WikiDiverse": rows, "splits": SPLIT, **files})


def test_kgmel_reads_the_published_form(tmp_path: Path) -> None:
    rows = [sentence(i) for i in range(6)]
    rows[1] |= {"entity": ["UK", "Parliament"]}
    rows[3] |= {"answer": ["nil", "Q11010"]}
    rows[4] |= {"imgPath": "mention_54.jpg"}
    rows[5] |= {"imgPath": "mention_54.jpg"}
    del rows[5]["img-url"]
    corpus = read("kgmel", kgmel(tmp_path, rows, qid2abs={"Q145": "a state"}))
    splits = {m.sample: m.split for m in corpus.mentions}
    assert splits == {
        **{"0": "train", "1": "valid", "2": "test"},
        **{"3": "train", "4": "test", "5": "train"},
    }
    second = corpus.mentions[1]
    assert (second.id, second.name, second.start, second.gold) == ("0-1", "parliament", 7, "Q11010")
    assert [(e.id, e.name, e.description) for e in corpus.entities] == [
        ("Q145", "United Kingdom", "a state"),
        ("Q11010", "Parliament", ""),
    ]
    assert [bool(e.aliases) for e in corpus.entities] == [True, False]  # "UK", once
    counted(corpus, sentences_moved_from_train_to_valid=2, sentences_moved_from_valid_to_test=1)
    counted(corpus, sentences_in_no_split=1, sentences_with_a_stand_in_picture=2, nil=1)
    counted(corpus, entities_of_several_names=1, missing_mention_images=8)


def test_kgmel_finds_its_data_set_and_its_mapping(tmp_path: Path) -> None:
    kgmel(tmp_path, [sentence(0)], WikiMEL=[sentence(2)])
    (tmp_path / "splits.json").unlink()
    other = {"train": [2], "val": [], "test": []}
    write(tmp_path / "mapping", ids_split_mappings={"WikiDiverse": SPLIT, "WikiMEL": other})
    assert "several data sets (WikiDiverse, WikiMEL); set data.name" in refused("kgmel", tmp_path)
    (tmp_path / "WikiDiverse.json").unlink()
    corpus = read("kgmel", tmp_path)
    assert {(m.sample, m.split) for m in corpus.mentions} == {("2", "train")}
    assert set(corpus.sources) == {"WikiMEL.json", "mapping/ids_split_mappings.json"}


def test_kgmel_names_of_golds_name_the_knowledge_base_alone(tmp_path: Path) -> None:
    rows = [sentence(0), sentence(1)]
    other = [sentence(i, entity=["A", "B"], answer=["Q1", "Q2"]) for i in range(2)]
    one = read("kgmel", kgmel(tmp_path / "one", rows))
    two = read("kgmel", kgmel(tmp_path / "two", other))
    assert seen(one) == seen(two)
    assert [e.name for e in two.entities] == ["A", "B"]


def test_kgmel_refuses_broken_files(tmp_path: Path) -> None:
    def message(rows: Any, **files: Any) -> str:
        return refused("kgmel", kgmel(tmp_path, rows, **files))

    assert "row 2 must be an object with" in message([sentence(0), {"id": 1}])
    assert "row 1 has 2 mentions but 1 answers" in message([sentence(0, answer=["Q1"])])
    assert '"entity" must be a list of 2 names' in message([sentence(0, entity="UK")])
    assert "row 2: mention id '0-0' is given twice, first in" in message([sentence(0)] * 2)
    assert '"id" must be a number or a string' in message([sentence(0, id=None)])
    assert '"id" holds half a surrogate' in message([sentence(0, id="\ud800")])
    assert '"val" must be a list' in message([sentence(0)], splits={"train": []})
    assert "WikiDiverse must be an object" in message([sentence(0)], splits={"WikiDiverse": []})
    (tmp_path / "splits.json").unlink()
    assert "splits.json is missing" in refused("kgmel", tmp_path)
    (tmp_path / "WikiDiverse.json").unlink()
    assert "holds no WikiDiverse.json" in refused("kgmel", tmp_path)


@real("wikidiverse", "WikiDiverse.json")
def test_kgmel_real_wikidiverse() -> None:
    corpus = read("kgmel", DATA / "wikidiverse", "disjoint")
    counted(corpus, samples=7_405, mentions=14_851, entities=7_643, nil=0, span_not_found=0)
    counted(corpus, sentences_moved_from_train_to_valid=11, sentences_moved_from_train_to_test=11)
    counted(corpus, sentences_moved_from_valid_to_test=4, sentences_in_no_split=0)
    counted(corpus, sentences_with_a_stand_in_picture=238, entities_of_several_names=7)
    counted(corpus, test=2_044)


# ---- candidate lists ---------------------------------------------------------------------------


def listed(key: str, **changes: Any) -> dict[str, Any]:
    fields = {
        "key": key,
        "mention": "swans",
        "sentence": "Two swans in Rouen.",
        "candidates": [
            {"name": "Black_swan", "description": "a bird"},
            {"name": "Swans_(women%27s)", "description": "a team"},
        ],
        "gold": "Black_swan",
        "mention_image": "50aa.jpg",
        "image_annotations": "{'Caption': 'a goose'}",
    }
    return fields | changes


def test_candidate_lists(tmp_path: Path) -> None:
    again = listed("2", candidates=[{"name": "Black swan", "description": "a large bird"}])
    test = [listed("1"), again, listed("3", gold=None, mention_image=None)]
    write(tmp_path, candidates10_test=test, candidates10_dev=[listed("1")])
    corpus = read("candidates", tmp_path)
    first = next(m for m in corpus.mentions if m.id == "test-1")
    assert (first.start, first.end, first.gold) == (4, 9, "Black swan")
    assert first.candidates == ("Black swan", "Swans (women's)")
    assert [(e.id, e.description) for e in corpus.entities] == [
        ("Black swan", "a large bird"),
        ("Swans (women's)", "a team"),
    ]
    counted(corpus, valid=1, test=3, nil=1, entities_of_several_descriptions=1)
    assert "goose" not in repr(corpus)
    assert "mention id 'test-1' is given twice" in refused(
        "candidates", write(tmp_path, candidates10_test=[listed("1")] * 2)
    )
    assert '"candidates" must be a list' in refused(
        "candidates", write(tmp_path, candidates10_test=[listed("1", candidates=["Swan"])])
    )
    assert "no *candidates*.json" in refused("candidates", write(tmp_path / "none"))


@real("wikidiverse", "candidates10_test_60.json")
def test_candidate_lists_real_excerpt() -> None:
    corpus = read("candidates", DATA / "wikidiverse")
    counted(corpus, mentions=60, test=60, train=0, nil=13, gold_outside_kb=0, span_not_found=0)
    counted(corpus, entities=585, entities_without_description=0)
    assert {len(m.candidates or ()) for m in corpus.mentions} == {10}
    assert all(m.gold is None or m.gold in (m.candidates or ()) for m in corpus.mentions)
