"""Our own form of data, what all readers share, and one line for each way a file can be wrong."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from data_pipeline import readers
from data_pipeline.schema import Corpus, UserError

ENTITIES: list[dict[str, Any]] = [
    {
        "id": "e1",
        "name": "Ada Lovelace",
        "description": "mathematician",
        "image": "pictures/e1.png",
    },
    {"id": "e2", "name": "Ada (town)", "description": "", "image": None},
]
MENTION: dict[str, Any] = {
    "id": "m1",
    "text": "Zoë saw Ada.",
    "start": 8,
    "end": 11,
    "image": "pictures/m1.jpg",
    "entity": "e1",
    "split": "train",
}


def write_lines(path: Path, rows: list[Any]) -> None:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def write_corpus(root: Path, mentions: list[Any], entities: list[Any] | None = None) -> Path:
    write_lines(root / "entities.jsonl", ENTITIES if entities is None else entities)
    write_lines(root / "mentions.jsonl", mentions)
    return root


def read(reader: str, root: Path | str, split: str = "published", **options: Any) -> Corpus:
    options = {"valid_fraction": 0.0, **options}
    return readers.read(reader, root, name="corpus", split=split, **options)


def refused(*args: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- our own form ------------------------------------------------------------------------------


def test_jsonl_reads_every_field(tmp_path: Path) -> None:
    second = {**MENTION, "id": "m2", "start": None, "end": None, "name": "Countess", "entity": None}
    second |= {"candidates": ["e2", "e1"], "sample": "s", "kind": "person", "split": "test"}
    write_corpus(tmp_path, [MENTION, "", second])
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "m1.jpg").touch()
    corpus = read("jsonl", tmp_path)

    first, other = corpus.mentions
    assert (first.id, first.text, first.name) == ("m1", "Zoë saw Ada.", "Ada")
    assert (first.start, first.end) == (8, 11)
    assert (first.split, first.gold, first.candidates, first.kind) == ("train", "e1", None, "")
    assert first.image == str(tmp_path / "pictures" / "m1.jpg")
    assert (other.name, other.start, other.end, other.gold) == ("Countess", None, None, None)
    assert (other.candidates, other.sample, other.kind) == (("e2", "e1"), "s", "person")
    assert not first.clean  # the test mention has its text and picture
    assert [entity.id for entity in corpus.entities] == ["e1", "e2"]
    assert corpus.entities[0].image is None  # the file is not there
    assert corpus.sources == {
        file: hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
        for file in ("entities.jsonl", "mentions.jsonl")
    }


def test_jsonl_counts_what_is_data_and_not_an_error(tmp_path: Path) -> None:
    unlocated = {"start": None, "end": None, "name": "Ada"}
    rows = [
        MENTION,
        {**MENTION, "id": "m2", "entity": "elsewhere", "image": None},
        {**MENTION, "id": "m3", "entity": None, "split": "test", "text": "Ada", **unlocated},
    ]
    counts = read("jsonl", write_corpus(tmp_path, rows)).counts
    expected = {"mentions": 3, "entities": 2, "nil": 1, "gold_outside_kb": 1}
    expected |= {"span_not_found": 1, "span_not_found_test": 1, "entities_without_description": 1}
    expected |= {"missing_mention_images": 2, "missing_entity_images": 1}
    expected |= {"train": 2, "valid": 0, "test": 1}
    assert {key: counts[key] for key in expected} == expected


def test_jsonl_sample_is_text_and_picture_unless_given(tmp_path: Path) -> None:
    rows = [
        MENTION,
        {**MENTION, "id": "m2", "start": 0, "end": 3},
        {**MENTION, "id": "m3", "image": None},
        {**MENTION, "id": "m4", "text": "Ada sawed Zoë."},
    ]
    one, two, three, four = read("jsonl", write_corpus(tmp_path, rows)).mentions
    assert one.sample == two.sample
    assert len({one.sample, three.sample, four.sample}) == 3


def test_sample_world_and_a_byte_order_mark_are_our_form(tmp_path: Path) -> None:
    expected = read("jsonl", write_corpus(tmp_path, [MENTION]))
    assert read("sample", tmp_path) == expected
    mentions = tmp_path / "mentions.jsonl"
    mentions.write_bytes(b"\xef\xbb\xbf" + mentions.read_bytes())  # as some editors save it
    assert read("jsonl", tmp_path).mentions == expected.mentions


def test_a_picture_and_a_gold_may_be_left_out(tmp_path: Path) -> None:
    bare = {key: value for key, value in MENTION.items() if key not in ("image", "entity")}
    entity = {key: value for key, value in ENTITIES[0].items() if key != "image"}
    corpus = read("jsonl", write_corpus(tmp_path, [bare], [entity]))
    (mention,) = corpus.mentions
    assert (mention.gold, mention.image, corpus.entities[0].image) == (None, None, None)
    null = {**bare, "image": None, "entity": None}
    again = read("jsonl", write_corpus(tmp_path, [null], [{**entity, "image": None}]))
    assert again.mentions == corpus.mentions


@pytest.mark.parametrize("image", ["../secret.png", "/etc/hostname", "a/../../secret.png"])
def test_pictures_outside_the_folder_need_a_word(tmp_path: Path, image: str) -> None:
    (tmp_path / "secret.png").touch()
    root = tmp_path / "data"
    root.mkdir()
    write_corpus(root, [{**MENTION, "image": image}])
    message = refused("jsonl", root)
    assert "the picture of mention 'm1'" in message
    assert "lies outside that folder" in message
    assert read("jsonl", root, outside=True).mentions[0].image is not None


def test_one_entry_that_cannot_be_read_hides_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A link to itself, which no file system can follow."""
    (tmp_path / "img").mkdir()
    names = [f"img/{name}.png" for name in "abcd"]
    for name in names[:3]:
        (tmp_path / name).touch()
    (tmp_path / names[3]).symlink_to("d.png")
    rows = [{**MENTION, "id": name, "image": name, "text": f"Zoë saw Ada {name}"} for name in names]
    corpus = read("jsonl", write_corpus(tmp_path, rows))
    assert [m.image is not None for m in corpus.mentions] == [True, True, True, False]
    assert corpus.counts["missing_mention_images"] == 1
    told = capsys.readouterr().err
    assert "warning: 1 files or folders cannot be read and count as missing: " in told
    assert f"{tmp_path / names[3]} (Too many levels of symbolic links)" in told


WRONG_MENTIONS = {
    "key 'id' occurs twice": '{"id": "m2", "id": "m3"}',
    "not valid JSON": '{"id": "m2",',
    "one JSON object a line, got a list": "[1]",
    "nested too deeply": "[" * 100_000,
    'key "text" is missing': {key: MENTION[key] for key in MENTION if key != "text"},
    'key "split" is missing': {key: MENTION[key] for key in MENTION if key != "split"},
    '"text" must be a string, got a number': {**MENTION, "id": "m2", "text": 7},
    '"image" must be a string, got true or false': {**MENTION, "id": "m2", "image": True},
    '"id" must not be empty': {**MENTION, "id": ""},
    "mention id 'm1' is given twice": MENTION,
    "must be whole numbers": {**MENTION, "id": "m2", "start": 8.0},
    "must be whole numbers, or": {**MENTION, "id": "m2", "start": None},
    "span -1:3": {**MENTION, "id": "m2", "start": -1, "end": 3},
    "span 8:13 is not inside its text of 12": {**MENTION, "id": "m2", "end": 13},
    "span 8:8": {**MENTION, "id": "m2", "end": 8},
    "\"split\" is 'dev'; known are train, valid, test": {**MENTION, "id": "m2", "split": "dev"},
    'give the surface form as "name"': {**MENTION, "id": "m2", "start": None, "end": None},
    '"candidates" must be a list': {**MENTION, "id": "m2", "candidates": "e1"},
    'each of "candidates" must be a string': {**MENTION, "id": "m2", "candidates": [1]},
    "half a surrogate pair": {**MENTION, "id": "m2", "text": "Zoë saw \ud800Ada"},
}


@pytest.mark.parametrize("reason", WRONG_MENTIONS)
def test_jsonl_refuses_a_line_by_file_and_number(tmp_path: Path, reason: str) -> None:
    message = refused("jsonl", write_corpus(tmp_path, [MENTION, WRONG_MENTIONS[reason]]))
    assert reason in message
    assert f"{tmp_path / 'mentions.jsonl'}:2: " in message


def test_jsonl_refuses_broken_entities(tmp_path: Path) -> None:
    write_corpus(tmp_path, [MENTION], [*ENTITIES, ENTITIES[0]])
    assert "entities.jsonl:3: entity id 'e1' is given twice" in refused("jsonl", tmp_path)
    write_corpus(tmp_path, [MENTION], [])
    assert "entities.jsonl is empty" in refused("jsonl", tmp_path)
    (tmp_path / "entities.jsonl").write_bytes(b'{"id": "\xff"}\n')
    assert "entities.jsonl:1: not UTF-8" in refused("jsonl", tmp_path)


# ---- what all readers share --------------------------------------------------------------------


def test_missing_data_says_what_to_download(tmp_path: Path) -> None:
    source = "Download it from https://example.org/data and unpack it there"
    (tmp_path / "entities.jsonl").touch()
    for reader, root in (("jsonl", tmp_path / "nowhere"), ("wikimel", tmp_path)):
        assert source in refused(reader, root, source=source)
        assert source not in refused(reader, root)
    assert "data.root is not set" in refused("jsonl", "")
    assert f"{tmp_path} holds neither Wikidata-MEL.json nor" in refused("wikimel", tmp_path)
    write_lines(tmp_path / "entities.jsonl", ENTITIES)
    expected = f"{tmp_path / 'mentions.jsonl'} is missing. {source}"
    assert refused("jsonl", tmp_path, source=source) == expected


def test_withheld_golds_leave_the_knowledge_base_and_nothing_else(tmp_path: Path) -> None:
    entities = [{"id": f"e{i}", "name": f"Name {i}", "description": ""} for i in range(300)]
    mentions = [
        MENTION | {"id": f"m{i}", "entity": f"e{i % 200}", "candidates": [f"e{i % 200}", "e299"]}
        for i in range(400)
    ]
    root = write_corpus(tmp_path, [m | {"image": None} for m in mentions], entities)
    whole, fewer = read("jsonl", root), read("jsonl", root, withheld=0.3)
    out = {e.id for e in whole.entities} - {e.id for e in fewer.entities}
    assert 30 <= len(out) <= 90  # of 200 golds
    assert out <= {f"e{i}" for i in range(200)}  # what nobody means stays
    assert fewer.counts["entities_withheld"] == len(out)
    assert fewer.counts["gold_outside_kb"] == 2 * len(out)  # in every split, each mention of it
    for one, other in zip(whole.mentions, fewer.mentions, strict=True):
        assert one.gold == other.gold
        assert other.candidates == tuple(c for c in one.candidates if c not in out)
    with pytest.raises(UserError, match="kb remove"):
        read("jsonl", root, withheld=0.3, kb=tuple(whole.entities))


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    assert "known: jsonl, wikimel, sample" in refused("csv", tmp_path)
    write_corpus(tmp_path, [MENTION])
    assert "known are disjoint, published" in refused("jsonl", tmp_path, split="random")
    assert "data.valid_fraction = 1.5" in refused("jsonl", tmp_path, valid_fraction=1.5)


def test_an_error_is_one_line_whatever_names_it_tells(tmp_path: Path) -> None:
    """Of a picture's path with a line break, and of a folder whose name is too long."""
    told = refused("jsonl", write_corpus(tmp_path, [{**MENTION, "image": "../a\nb.png"}]))
    assert "lies outside that folder" in told
    assert "is not a folder" in refused("jsonl", tmp_path / ("x" * 3000))
