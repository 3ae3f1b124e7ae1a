"""WikiDiverse as its authors publish it: titles, pictures, offsets, and each way a row is wrong."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.readers import raw_files
from data_pipeline.readers.wikidiverse import picture, title
from data_pipeline.schema import Corpus
from tests.data_pipeline.readers_test import read, refused
from tests.support.paths import SHARED

WIKIDIVERSE = SHARED / "data" / "wikidiverse"
real_wikidiverse = pytest.mark.skipif(
    not (WIKIDIVERSE / "candidates10_test_60.json").is_file(),
    reason=f"no WikiDiverse under {WIKIDIVERSE}",
)

WIKI = "https://en.wikipedia.org/wiki/"
PHOTO = "https://upload.wikimedia.org/wikipedia/commons/0/06/Lions%2C_2007.jpg"
LOGO = "https://upload.wikimedia.org/wikipedia/en/c/ca/AC-DC.svg"


def row(**changes: Any) -> list[Any]:
    """A row in the published order of its eleven fields."""
    fields = {
        "sentence": "The Lions met the Lions (2007).",
        "picture": PHOTO,
        "mention": "Lions",
        "type": "Organization",
        "left": ["the"],
        "right": ["meet"],
        "gold": f"{WIKI}Detroit_Lions",
        "candidates": [f"{WIKI}Lion", f"{WIKI}Detroit_Lions", f"{WIKI}Lions_Club%E2%80%99s"],
        "topic": "sports",
        "start": 18,
        "end": 23,
    }
    assert not changes.keys() - fields.keys()
    return list((fields | changes).values())


def write(root: Path, train: list[Any] | None = None, **briefs: str) -> Path:
    """The three lists, `train` in the first, and the briefs."""
    root.mkdir(exist_ok=True)
    for split in ("train", "valid", "test"):
        rows = [row()] if split != "train" or train is None else train
        (root / f"{split}_w_10cands.json").write_text(json.dumps(rows))
        (root / f"entity2brief_{split}.json").write_text(json.dumps({"Lion": "a cat", **briefs}))
    return root


def first(root: Path, *rows: Any) -> Any:
    """What becomes of the first row."""
    return read("wikidiverse", write(root, list(rows))).mentions[0]


TITLES = {
    f"{WIKI}Detroit_Lions": "Detroit Lions",
    "nhttps://en.wikipedia.org/wiki/Detroit_Lions": "Detroit Lions",
    "]https://en.wikipedia.org/wiki/detroit_Lions ": "Detroit Lions",
    f"{WIKI}Detroit_Lions#History": "Detroit Lions",
    f"{WIKI}Detroit_Lions?oldid=3": "Detroit Lions",
    "https://en.wikipedia.org/w/index.php?title=Detroit_Lions&redirect=no": "Detroit Lions",
    f"{WIKI}AC/DC": "AC/DC",
    f"{WIKI}Who_Framed_Roger_Rabbit%3F": "Who Framed Roger Rabbit?",
    f"{WIKI}Z%25C3%25BCrich": "Zürich",
    "Zu\u0308rich": "Zürich",
    "https://www.wikidata.org/Q42/": "Q42",
    "People%27s_Republic_of_China": "People's Republic of China",
    WIKI: "",
}


@pytest.mark.parametrize("address", TITLES)
def test_a_title_has_one_spelling(address: str) -> None:
    assert title(address) == TITLES[address]
    assert title(title(address)) == TITLES[address]


def test_pictures_are_called_as_published() -> None:
    def md5(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    assert picture(PHOTO) == md5("Lions%2C_2007.jpg") + ".jpg"
    assert picture(LOGO) == md5("AC-DC.svg") + ".png"
    assert picture("http://x/a/Map.of.X.JPEG") == md5("Map.of.X.JPEG") + ".JPEG"
    assert picture("http://x/a/b.gif") == md5("b.gif") + "b.gif"  # an extension it does not know


@real_wikidiverse
def test_picture_names_are_those_of_the_real_files() -> None:
    """Of the 56 sentences that two files have in common, 3 changed their picture's address."""
    sentences = json.loads((WIKIDIVERSE / "WikiDiverse.json").read_text())
    address = {one["sentence"].strip(): one.get("img-url") for one in sentences}
    given = json.loads((WIKIDIVERSE / "candidates10_test_60.json").read_text())
    pairs = [(address.get(one["sentence"].strip()), one["mention_image"]) for one in given]
    same = [picture(url) == name for url, name in pairs if url]
    assert (len(same), sum(same)) == (56, 53)


def test_reads_every_field(tmp_path: Path) -> None:
    (tmp_path / "wikinewsImgs").mkdir()
    (tmp_path / "wikinewsImgs" / picture(PHOTO)).touch()
    mention = first(tmp_path, row())
    assert (mention.id, mention.text, mention.name) == ("train-1", row()[0], "Lions")
    assert (mention.start, mention.end, mention.gold) == (18, 23, "Detroit Lions")
    assert mention.candidates == ("Lion", "Detroit Lions", "Lions Club’s")
    assert (mention.kind, mention.split) == ("Organization", "train")
    assert mention.image == str(tmp_path / "wikinewsImgs" / picture(PHOTO))


def test_offsets_that_do_not_match_fall_back_to_the_first_occurrence(tmp_path: Path) -> None:
    rows = [
        row(start=17, end=22),
        row(start=None, end=None),
        row(mention="Tigers"),
        row(mention="lions"),  # the case is the annotator's
    ]
    corpus = read("wikidiverse", write(tmp_path, rows))
    spans = [(m.start, m.end) for m in corpus.mentions[: len(rows)]]
    assert spans == [(4, 9), (4, 9), (None, None), (18, 23)]
    assert (corpus.counts["offsets_not_matching"], corpus.counts["span_not_found"]) == (3, 1)


def test_the_knowledge_base_is_briefs_candidates_and_golds(tmp_path: Path) -> None:
    rows = [
        row(gold=f"{WIKI}Lions_(band)"),  # nobody else names it
        row(gold=f"{WIKI}detroit_lions"),  # in other case
        row(gold="nil"),
        row(gold=WIKI),
        row(candidates=[]),
    ]
    corpus = read("wikidiverse", write(tmp_path, rows, **{"Leo_(sign)": "stars", "Leo (sign)": ""}))
    golds = [m.gold for m in corpus.mentions[: len(rows)]]
    assert golds == ["Lions (band)", "Detroit Lions", None, None, "Detroit Lions"]
    assert {e.id: e.description for e in corpus.entities} == {
        "Detroit Lions": "",
        "Leo (sign)": "stars",
        "Lion": "a cat",
        "Lions (band)": "",
        "Lions Club’s": "",
    }
    assert [e.id for e in corpus.entities] == sorted(e.id for e in corpus.entities)
    expected = {"golds_that_nothing_else_names": 1, "golds_in_other_case": 1}
    expected |= {"golds_without_a_title": 1, "nil": 2, "gold_outside_kb": 0}
    assert {key: corpus.counts[key] for key in expected} == expected


def test_files_may_lie_in_folders_and_texts_in_the_long_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "lists")
    for brief in (tmp_path / "lists").glob("entity2brief_*"):
        brief.unlink()
    assert "holds neither entity2brief_train.json nor" in refused("wikidiverse", tmp_path)
    (tmp_path / "wikipedia_entity2desc_filtered.tsv").write_text(
        "Lion@@@@a cat@@@@of prey\nno separator\nTiger@@@@not in the knowledge base\n"
    )
    tables = tmp_path / "tables"
    tables.mkdir()
    urls = [LOGO, "http://x/second.png", "http://x/third.png"]
    (tables / "wikipedia_entity2imgs.tsv").write_text(f"Lion@@@@{'[AND]'.join(urls)}\n")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / picture(urls[1])).touch()
    corpus = read("wikidiverse", tmp_path)
    lion = {e.id: e for e in corpus.entities}["Lion"]
    assert lion.description == "a cat@@@@of prey"
    assert lion.image == str(tmp_path / "images" / picture(urls[1]))  # the first that is there
    assert len(corpus.entities) == 3
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(raw_files, "LONG_FILE", 0)
    assert read("wikidiverse", tmp_path) == corpus
    assert "reading wikipedia_entity2imgs.tsv: 0.0 MB\n" in capsys.readouterr().err
    assert {"lists/train_w_10cands.json", "tables/wikipedia_entity2imgs.tsv"} <= {*corpus.sources}


def gold_free(corpus: Corpus) -> list[Any]:
    return [(m.id, m.text, m.name, m.start, m.candidates, m.sample) for m in corpus.mentions]


def test_the_gold_decides_nothing_but_the_gold(tmp_path: Path) -> None:
    rows = [row(), row(gold=f"{WIKI}Lion")]
    other = [row(gold=f"{WIKI}Lion"), row(gold="nil")]
    one = read("wikidiverse", write(tmp_path / "one", rows))
    two = read("wikidiverse", write(tmp_path / "two", other))
    assert gold_free(one) == gold_free(two)
    assert one.entities == two.entities
    assert [m.gold for m in one.mentions] != [m.gold for m in two.mentions]


WRONG = {
    "must be a list of 11 fields, got 10 fields": row()[:10],
    "must be a list of 11 fields, got no list": {"sentence": "The Lions"},
    "the sentence must be a string, got null": row(sentence=None),
    "the mention must not be empty": row(mention=""),
    "the candidates must be a list of URLs": row(candidates=f"{WIKI}Lion"),
    "each candidate must be a string, got a list": row(candidates=[["Lion", 0.3]]),
    "the gold's URL must be a string, got a number": row(gold=3),
    "the picture's URL must be a string, got a list": row(picture=[PHOTO]),
}


@pytest.mark.parametrize("reason", WRONG)
def test_refuses_a_row_by_file_and_number(tmp_path: Path, reason: str) -> None:
    message = refused("wikidiverse", write(tmp_path, [row(), WRONG[reason]]))
    assert reason in message
    assert f"{tmp_path / 'train_w_10cands.json'}: row 2" in message


def test_refuses_what_cannot_be_used(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "test_w_10cands.json").unlink()
    missing = refused("wikidiverse", tmp_path, source="Download it")
    assert missing == f"{tmp_path / 'test_w_10cands.json'} is missing. Download it"
    assert "list with at least one entry" in refused("wikidiverse", write(tmp_path, []))
    half = refused("wikidiverse", write(tmp_path, **{"Lion\ud800": "a cat"}))
    assert "the title holds half a surrogate" in half
