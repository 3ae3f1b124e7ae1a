"""RichpediaMEL and MIMIC's form: what is read, what could leak the gold, what is refused."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.schema import Corpus, Mention
from tests.data_pipeline.readers_test import read, refused
from tests.support.paths import SHARED

DATA = SHARED / "data"


def real(folder: str, file: str) -> pytest.MarkDecorator:
    path = DATA / folder / file
    return pytest.mark.skipif(not path.is_file(), reason=f"no {path}")


def write(root: Path, **files: Any) -> Path:
    """JSON files; "__" in a name stands for "-", and a string is written as it is."""
    root.mkdir(exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (root / f"{name.replace('__', '-')}.json").write_text(text, encoding="utf-8")
    return root


def seen(corpus: Corpus) -> list[Mention]:
    """The mentions without their gold and without the path of a picture, which is only opened."""
    return [dataclasses.replace(m, gold=None, image=None) for m in corpus.mentions]


def counted(corpus: Corpus, **expected: int) -> None:
    assert {key: corpus.counts[key] for key in expected} == expected


# ---- RichpediaMEL ------------------------------------------------------------------------------

NAMES = {"Q9": "Otto Weininger", "Q10": "Hugh Diamond", "Q111": "Otto I"}
TEXTS = {"Q9": "Occupation: philosopher.", "Q10": "Occupation: physician."}


def sample(qid: str, sentence: str, surface: str) -> dict[str, Any]:
    fields = {"id": qid, "sentence": sentence, "mentions": surface, "entities": NAMES[qid]}
    return {qid: {**fields, "answer": qid}}


def richpedia(root: Path, train: dict[str, Any], **files: Any) -> Path:
    test = sample("Q10", "Diamond was a psychiatrist.", "Hugh Diamond")
    tables = {"qid2ne": NAMES, "qid2abs": TEXTS}
    return write(root, **{"train": train, "test": test, **tables, **files})


TRAIN = {
    **sample("Q9", "Otto was an Austrian thinker.", "Otto"),
    **sample("Q111", "Otto was an emperor.", "Otto"),
    **sample("Q10", "Otto was an Austrian thinker.", "Otto"),
}


def test_richpedia_reads_the_published_form(tmp_path: Path) -> None:
    richpedia(tmp_path, TRAIN, Richpedia__MEL_dev=sample("Q9", "Weininger.", "Weininger"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "Q111.jpg").touch()
    corpus = read("richpedia", tmp_path)
    by_text = {m.text: m for m in corpus.mentions}
    emperor = by_text["Otto was an emperor."]
    assert (emperor.name, emperor.start, emperor.end) == ("Otto", 0, 4)
    assert (emperor.split, emperor.gold) == ("train", "Q111")
    assert emperor.image == str(tmp_path / "images" / "Q111.jpg")
    assert by_text["Weininger."].split == "valid"
    assert by_text["Diamond was a psychiatrist."].start is None
    assert [(e.id, e.name, e.description) for e in corpus.entities] == [
        ("Q9", "Otto Weininger", "Occupation: philosopher."),
        ("Q10", "Hugh Diamond", "Occupation: physician."),
        ("Q111", "Otto I", ""),
    ]
    counted(corpus, span_not_found=1, missing_mention_images=4, train=3, valid=1, test=1)


def test_richpedia_shows_a_model_nothing_of_keys_ids_names_or_orders(tmp_path: Path) -> None:
    """Both files hold the same sentences; keys, golds, names of golds and all orders differ."""
    cycle = {"Q9": "Q10", "Q10": "Q111", "Q111": "Q9"}
    rows = list(TRAIN.items())
    shuffled = {
        cycle[key]: {**row, "id": cycle[key], "answer": cycle[key], "entities": "LEAK"}
        for key, row in reversed(rows)
    }
    one = read("richpedia", richpedia(tmp_path / "one", TRAIN))
    turned = {"qid2ne": dict(reversed(NAMES.items())), "qid2abs": dict(reversed(TEXTS.items()))}
    two = read("richpedia", richpedia(tmp_path / "two", shuffled, **turned))
    assert seen(one) == seen(two)
    assert one.entities == two.entities
    assert [m.gold for m in one.mentions] != [m.gold for m in two.mentions]
    assert len({m.id for m in one.mentions}) == len(one.mentions)
    shown = repr(seen(one)) + repr(seen(two))
    assert "LEAK" not in shown
    assert not any(qid in shown for qid in NAMES)


def test_richpedia_refuses_broken_files(tmp_path: Path) -> None:
    def message(train: Any, **files: Any) -> str:
        return refused("richpedia", richpedia(tmp_path, train, **files), source="Get it")

    assert "a list is the form of reader mimic" in message([1])
    assert "train.json: 'Q9' must be an object with \"answer\"" in message({"Q9": {}})
    assert "half a surrogate" in message(sample("Q9", "Otto", "Otto\ud800"))
    assert "train.json and x_train.json both look like the train" in message(TRAIN, x_train=TRAIN)
    (tmp_path / "x_train.json").unlink()
    assert "not one entity has a name" in message(TRAIN, qid2ne={"Q9": "", "Q10": " "})
    (tmp_path / "qid2abs.json").unlink()
    expected = f"{tmp_path / 'qid2abs.json'} is missing. Get it"
    assert refused("richpedia", tmp_path, source="Get it") == expected
    (tmp_path / "nothing").mkdir()
    assert "holds no train.json" in refused("richpedia", tmp_path / "nothing")


@real("richpedia_excerpt", "train.json")
def test_richpedia_real_excerpt() -> None:
    corpus = read("richpedia", DATA / "richpedia_excerpt")
    counted(corpus, mentions=300, train=240, test=60, entities=987, span_not_found=30)
    counted(corpus, span_not_found_test=7, entities_without_description=4, gold_outside_kb=0)
    golds = {m.gold for m in corpus.mentions}
    assert not golds & {word for m in seen(corpus) for word in (m.id, m.sample)}


# ---- MIMIC -------------------------------------------------------------------------------------


def mention_row(**changes: Any) -> dict[str, Any]:
    fields = {"id": "Q9", "sentence": "Zoë saw Ada.", "mentions": "Ada", "entities": "LEAK"}
    return {**fields, "answer": "Q9", "imgPath": "mention_54.PNG", **changes}


def entity_row(qid: str, **changes: Any) -> dict[str, Any]:
    fields = {"id": 0, "qid": qid, "type": "entity", "entity_name": "Ada_L%C3%B6", "attr": "a poet"}
    return {**fields, "image_list": [f"{qid}_1.jpg", f"{qid}_2.jpg"], **changes}


def mimic(root: Path, *rows: Any, kb: list[Any] | None = None) -> Path:
    entities = [entity_row("Q10"), entity_row("Q9", attr=None, image_list=[])] if kb is None else kb
    return write(root, X_train=list(rows), X_test=[mention_row()], kb_entity=entities)


def test_mimic_reads_the_published_form(tmp_path: Path) -> None:
    rows = [
        mention_row(cands=["Q10", "Q9"]),
        mention_row(answer="nil", imgPath=""),
        mention_row(mentions="Zo%C3%AB"),
    ]
    mimic(tmp_path, *rows)
    for picture in ("mention_images/mention_54.jpg", "kb_image/Q10_2.jpg"):
        (tmp_path / picture).parent.mkdir()
        (tmp_path / picture).touch()
    corpus = read("mimic", tmp_path)
    given, nil, encoded, test = corpus.mentions
    assert (given.id, given.gold, given.candidates) == ("train-0", "Q9", ("Q10", "Q9"))
    assert given.image == str(tmp_path / "mention_images" / "mention_54.jpg")
    assert (nil.gold, nil.image) == (None, None)
    assert (encoded.name, encoded.start, encoded.end) == ("Zoë", 0, 3)
    assert (test.split, test.candidates) == ("test", None)
    nine, ten = corpus.entities
    assert (nine.id, nine.name, nine.description, nine.image) == ("Q9", "Ada Lö", "", None)
    assert ten.image == str(tmp_path / "kb_image" / "Q10_2.jpg")  # the first that is there
    counted(corpus, nil=1, without_picture=1, span_not_found=0)


def test_mimic_shows_a_model_nothing_of_ids_and_names_of_golds(tmp_path: Path) -> None:
    other = mention_row(id="Q10", entities="Ada", answer="Q10")
    one = read("mimic", mimic(tmp_path / "one", mention_row()))
    turned = [entity_row("Q9", attr=None, image_list=[]), entity_row("Q10")]
    two = read("mimic", mimic(tmp_path / "two", other, kb=turned))
    assert seen(one) == seen(two)
    assert [dataclasses.replace(e, image=None) for e in one.entities] == [
        dataclasses.replace(e, image=None) for e in two.entities
    ]
    assert "LEAK" not in repr(one)
    assert "Q9" not in repr(seen(one))


def test_mimic_refuses_broken_files(tmp_path: Path) -> None:
    def message(*rows: Any, **options: Any) -> str:
        return refused("mimic", mimic(tmp_path, *rows, **options))

    lacking = {"id": 1, "sentence": "Ada", "answer": "Q9"}
    assert "at least one row" in message()
    where = f"{tmp_path / 'X_train.json'}: row 2"
    assert f'{where} must be an object with "imgPath", "mentions"' in message(
        mention_row(), lacking
    )
    assert f'{where}: "cands" must be a list' in message(mention_row(), mention_row(cands="Q9"))
    assert "row 1 has 1 mentions but 2 answers" in message(mention_row(answer=["Q9", "Q9"]))
    assert "entity id 'Q9' is given twice" in message(mention_row(), kb=[entity_row("Q9")] * 2)
    assert '"entity_name", "qid"' in message(mention_row(), kb=[{"id": 0}])
    assert '"image_list" must be a list' in message(
        mention_row(), kb=[entity_row("Q9", image_list="a.jpg")]
    )
    assert "not one entity has a name" in message(
        mention_row(), kb=[entity_row("Q9", entity_name="")]
    )
    assert "not one candidate, such as 'Q77', is in the knowledge base of 2" in message(
        mention_row(cands=["Q77"])
    )
    write(tmp_path, X_train={"Q9": mention_row()})
    assert "an object is the form of reader richpedia" in refused("mimic", tmp_path)
    (tmp_path / "kb_entity.json").unlink()
    (tmp_path / "X_train.json").unlink()
    assert "kb_entity.json is missing" in refused("mimic", tmp_path)


@real("mimic_excerpt", "wiki_diverse_test.json")
def test_mimic_real_excerpt(tmp_path: Path) -> None:
    shutil.copy(DATA / "mimic_excerpt" / "wiki_diverse_test.json", tmp_path)
    rows = json.loads((tmp_path / "wiki_diverse_test.json").read_text())
    kb = [entity_row(qid) for qid in {row["answer"] for row in rows}]
    corpus = read("mimic", write(tmp_path, kb_entity=kb))
    counted(corpus, mentions=200, test=200, span_not_found=0, nil=0, gold_outside_kb=0)
    assert len({m.image for m in corpus.mentions} - {None}) == 0  # no picture is there
