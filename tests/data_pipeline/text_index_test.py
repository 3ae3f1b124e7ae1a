"""What is found by which name, whatever was done to the knowledge base before."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tantivy

from data_pipeline.arrays.array_file import crc32
from data_pipeline.files import hold
from data_pipeline.kb import caches, text_index
from data_pipeline.kb.folded_names import bare, fold, forms
from data_pipeline.kb.knowledge_base import KnowledgeBase, open_kb
from data_pipeline.kb.text_index import TextIndex
from data_pipeline.schema import UserError
from tests.support import bases
from tests.support.bases import entity

PEOPLE = [
    entity("Q1", "John F. Kennedy", "35th president of the United States", "JFK"),
    entity("Q2", "Jacqueline Kennedy Onassis", "wife of the president"),
    entity("Q3", "Mercury (planet)", "the planet nearest to the sun"),
    entity("Q4", "Mercury (element)", "a chemical element, liquid quicksilver"),
    entity("Q5", "Ludwig van Beethoven", "composer of nine symphonies"),
    entity("Q6", "Beyoncé", "singer"),
    entity("Q7", "東京", "capital of Japan", "Tokyo"),
    entity("Q8", "محمد علي", "boxer", "Muhammad Ali"),
    entity("Q9", "हिन्दी", "language"),
    entity("Q10", "हद", "another word of the same consonants but one"),
    entity("Q11", "United States of America", "country", "United States"),
    entity("Q12", "🍕", "found by a picture alone"),
    entity("Q13", "", "has no name, but a rare word: xylophone"),
    entity("Q14", "n" * 10_000, "the longest name"),
    entity("Q15", "Quicksilver", "a band; its name is in another's description", "Mercury"),
]


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    return bases.build(tmp_path_factory.mktemp("people") / "kb", PEOPLE)


@pytest.fixture(scope="module")
def index(kb: KnowledgeBase) -> TextIndex:
    return TextIndex(kb)


# ---- names, folded


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Beyoncé", "beyonce"),
        ("BEYONCE\u0301", "beyonce"),
        ("Straße", "strasse"),
        ("İstanbul", "istanbul"),
        ("ﬁsh", "fish"),
        ("J. F. Kennedy,", "j f kennedy"),
        ("John_F._Kennedy", "john f kennedy"),
        ("  O'Neill–Smith\t", "o neill smith"),
        ("ｊａｐａｎ", "japan"),
        ("東京", "東京"),
        ("مُحَمَّد", "محمد"),
        # Vowels and voicing are no accents.
        ("हिन्दी", "हिन्दी"),
        ("ที่", "ที่"),
        ("ハス", "ハス"),
        ("パス", "\u30cf\u309aス"),
        ("می\u200cخواهم", "میخواهم"),
        # Signs are of the word that they end; what is nothing else is what it is.
        ("C++, C# & A+B", "c++ c# a b"),
        ("C++11, C++ 11", "c++ 11 c++ 11"),
        ("#Alfield# A++B", "alfield a b"),
        # Another form of the same letter is no other letter.
        ("葛\U000e0100城市", "葛城市"),
        ("\U0001e900\U0001e944\U0001e901", "\U0001e922\U0001e923"),
        ("👨\u200d👩 !!!", "👨👩 !!!"),
        ("\ud800 \x00", ""),
        ("Α/Ω", "α ω"),
        ("H₂O 24", "h2o 24"),
        ("🍕❤️1️⃣", "1"),
        ("...", "..."),
        ("\x00\x1b[2J", "2j"),
        ("\ud800a", "a"),
        ("", ""),
    ],
)
def test_fold(text: str, folded: str) -> None:
    assert fold(text) == folded
    assert fold(folded) == folded


@pytest.mark.parametrize(
    ("name", "alone"),
    [
        ("Mercury (planet)", "Mercury"),
        ("Mercury (planet) ", "Mercury"),
        ("Mercury(planet)", "Mercury"),
        ("(planet)", "(planet)"),
        ("Mercury (a) b", "Mercury (a) b"),
        ("Mercury (a) (b)", "Mercury (a)"),
        ("Mercury (a (b))", "Mercury (a (b))"),
        ("Mercury planet)", "Mercury planet)"),
        ("Mercury (planet", "Mercury (planet"),
        ("Mercury (", "Mercury ("),
        ("", ""),
    ],
)
def test_a_name_without_its_parenthesis(name: str, alone: str) -> None:
    assert bare(name) == alone


@pytest.mark.parametrize(
    ("name", "form"),
    [
        (" " * 200_000 + "x", []),
        ("(" * 200_000, ["(" * 200]),
        ("a " * 100_000 + ")", [("a " * 100).strip()]),
    ],
)
def test_odd_names_take_no_time(name: str, form: list[str]) -> None:
    """What looked at every pair of places in them would take an hour."""
    assert bare(name) == name
    assert forms(name) == form


def test_forms_are_names_and_aliases_once() -> None:
    assert forms("Mercury (planet)", ("mercury", "...", "Merkur")) == [
        "mercury planet",
        "mercury",
        "...",
        "merkur",
    ]


# ---- who is found


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("John F. Kennedy", ["Q1"]),
        ("JFK", ["Q1"]),
        ("J.F.K.", ["Q1"]),
        ("J. F. Kennedy", ["Q1"]),
        ("J Kennedy", ["Q1"]),
        ("Jon Kenedy", ["Q1"]),
        ("U.S.A.", ["Q11"]),
        ("USA", ["Q11"]),
        ("U.S.", ["Q11"]),
        ("United States", ["Q11"]),
        ("Mercury (planet)", ["Q3"]),
        ("LVB", ["Q5"]),
        ("beyonce", ["Q6"]),
        ("BEYONCÉ!", ["Q6"]),
        ("東京", ["Q7"]),
        ("tokyo", ["Q7"]),
        ("محمد علي", ["Q8"]),
        ("muhammad ali", ["Q8"]),
        ("हिन्दी", ["Q9"]),
        ("हद", ["Q10"]),
        ("🍕", ["Q12"]),
        ("n" * 10_000, ["Q14"]),
        ("n" * 200, ["Q14"]),
    ],
)
def test_the_best_name(kb: KnowledgeBase, index: TextIndex, name: str, first: list[str]) -> None:
    rows, scores = index.names(name, 4)
    assert [kb.ids[row] for row in rows[: len(first)]] == first
    assert (np.diff(scores) <= 0).all()
    assert len(set(rows.tolist())) == len(rows)


def test_an_alias_that_is_anothers_name_finds_both(kb: KnowledgeBase, index: TextIndex) -> None:
    rows, scores = index.names("Mercury", 3)
    assert [kb.ids[row] for row in rows] == ["Q3", "Q4", "Q15"]
    assert scores[0] == scores[1] == scores[2]  # a tie: in the order of the rows


@pytest.mark.parametrize("name", ["", "...", "🍔", "\x00\x01", "\ud800", " " * 10_000, "()", "ψ"])
def test_what_nobody_is_called_finds_nobody(index: TextIndex, name: str) -> None:
    assert len(index.names(name, 5)[0]) == 0
    assert not index.knows(fold(name))


def test_descriptions_are_found_by_their_rare_words(kb: KnowledgeBase, index: TextIndex) -> None:
    def found(text: str) -> list[str]:
        return [kb.ids[row] for row in index.words(text, 3)[0]]

    assert found("He plays the XYLOPHONE.") == ["Q13"]
    assert found("a \ud800 composer \x00") == ["Q5"]
    assert found("nine symphonies " * 1000)[0] == "Q5"
    assert found("") == found("... !") == found("wholly unrelated") == []
    # A word of everyone's, alone, is better than nothing.
    assert found("the the the")


def test_knows_whole_names_alone(index: TextIndex) -> None:
    for name in ("JFK", "Mercury", "Mercury (planet)", "東京", "Tokyo", "beyoncé"):
        assert index.knows(fold(name)), name
    for name in ("Kennedy", "Merc", "Onassis Kennedy Jacqueline"):
        assert not index.knows(fold(name)), name


def test_no_more_than_asked_for(index: TextIndex) -> None:
    assert len(index.names("Kennedy", 1)[0]) == 1
    assert len(index.names("Kennedy", 1000)[0]) == 2


# ---- whatever was done before


def found(kb: KnowledgeBase, index: TextIndex) -> dict[str, Any]:
    """Ids and scores by names and words, and what is known."""
    out: dict[str, Any] = {}
    for name in ("John F. Kennedy", "JFK", "Mercury", "Kennedy", "tokyo", "a"):
        rows, scores = index.names(name, 5)
        out[name] = [(kb.ids[row], round(float(s), 4)) for row, s in zip(rows, scores, strict=True)]
        out[f"knows {name}"] = index.knows(fold(name))
    rows, scores = index.words("the president and the planet", 5)
    out["words"] = [(kb.ids[row], round(float(s), 4)) for row, s in zip(rows, scores, strict=True)]
    return out


@pytest.mark.parametrize("pieces", [[15], [1, 14], [5, 5, 5], [1] * 15])
def test_the_same_is_found_however_it_was_put_in(
    kb: KnowledgeBase, index: TextIndex, tmp_path: Path, pieces: list[int]
) -> None:
    """By the index that grew with it, by one made anew, and by one of one segment."""
    wanted, path, begin = found(kb, index), tmp_path / "kb", 0
    for piece in pieces:
        some = PEOPLE[begin : begin + piece]
        grown = bases.add(path, some) if begin else bases.build(path, some)
        begin += piece
    assert found(grown, TextIndex(grown)) == wanted
    shutil.rmtree(path / "index")
    assert found(grown, TextIndex(grown)) == wanted
    compacted = bases.compact(path)
    assert found(compacted, TextIndex(compacted)) == wanted


def test_ties_at_the_end_of_the_list_are_in_the_order_of_the_rows(tmp_path: Path) -> None:
    """Of twelve of one name the first five, though tantivy has merged its segments anyhow."""
    path = tmp_path / "kb"
    bases.build(path, [entity("Q0", "Smith")])
    for i in range(1, 12):
        bases.add(path, [entity(f"Q{i}", "Smith"), entity(f"P{i}", f"Other {i}")])
    kb = open_kb(path)
    index = TextIndex(kb)
    for n in (3, 5, 11):
        assert [kb.ids[row] for row in index.names("smith", n)[0]] == [f"Q{i}" for i in range(n)]


def test_what_was_removed_is_never_found(tmp_path: Path) -> None:
    path = tmp_path / "kb"
    bases.build(path, PEOPLE)
    before = open_kb(path)
    bases.remove(path, "Q1", "Q7", "Q13")
    bases.add(path, [entity("Q3", "Planet of the day", "a ball")], update=True)
    kb = open_kb(path)
    index = TextIndex(kb)
    for name in ("JFK", "John F. Kennedy", "Tokyo", "Mercury (planet)"):
        assert not {"Q1", "Q7"} & {kb.ids[row] for row in index.names(name, 99)[0]}
        assert not index.knows(fold(name)), name
    assert [kb.ids[row] for row in index.names("planet of the day", 1)[0]] == ["Q3"]
    assert index.knows("mercury")  # Q4 and Q15 have it
    assert len(index.words("xylophone", 3)[0]) == 0
    # Who opened it before sees what was there then, and nothing of later.
    old = TextIndex(before)
    assert [before.ids[row] for row in old.names("JFK", 1)[0]] == ["Q1"]
    assert old.knows("jfk")
    assert not old.knows("planet of the day")
    assert all(row < len(PEOPLE) for row in old.names("planet of the day", 99)[0])


# ---- a cache


def _edit(name: str, change: Callable[[Any], Any]) -> Callable[[Path], object]:
    def edit(index: Path) -> None:
        path = index / name
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return edit


def _flip(index: Path) -> None:
    """A bit in the middle of the largest file."""
    path = max((index / "text").iterdir(), key=lambda file: file.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def _cut(index: Path) -> None:
    for path in (index / "text").glob("*.term"):
        path.write_bytes(path.read_bytes()[:-9])


def _foreign(index: Path) -> None:
    """Another index of tantivy's altogether, said to be this one."""
    shutil.rmtree(index / "text")
    (index / "text").mkdir()
    schema = tantivy.SchemaBuilder().build()
    tantivy.Index(schema, path=str(index / "text")).writer().commit()


def _another(index: Path) -> None:
    """The index of another knowledge base."""
    path = index.parent.with_name("another")
    bases.build(path, [entity("Q1", "Somebody Else")])
    shutil.rmtree(index)
    shutil.copytree(path / "index", index)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "state cut": lambda index: (index / "text.json").write_text('{"form": "2 '),
    "state empty": lambda index: (index / "text.json").write_bytes(b""),
    "state of another form": _edit("text.json", lambda state: state | {"form": "1 0.1"}),
    "state of nothing": _edit("text.json", lambda state: {}),
    "state a list": _edit("text.json", lambda state: [state]),
    "state of other segments": _edit("text.json", lambda state: state | {"segments": ["1-x"]}),
    "state away": lambda index: (index / "text.json").unlink(),
    "a bit": _flip,
    "cut": _cut,
    "foreign": _foreign,
    "another's": _another,
    "meta.json empty": lambda index: (index / "text/meta.json").write_bytes(b""),
    "meta.json away": lambda index: (index / "text/meta.json").unlink(),
    "meta.json edited": _edit("text/meta.json", lambda meta: meta | {"segments": []}),
    "files away": lambda index: [file.unlink() for file in (index / "text").iterdir()],
    "folder away": lambda index: shutil.rmtree(index / "text"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_made_anew(
    kb: KnowledgeBase,
    index: TextIndex,
    tmp_path: Path,
    damage: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a line that says so, where there was one; and then it is whole."""
    path = shutil.copytree(kb.path, tmp_path / "kb")
    DAMAGES[damage](path / "index")
    capsys.readouterr()
    copy = open_kb(path)
    assert found(copy, TextIndex(copy)) == found(kb, index)
    told = capsys.readouterr().err.splitlines()
    if damage == "folder away":
        assert told == []
    else:
        assert told == [f"{path}/index/text: is not of this knowledge base; made anew"]
    TextIndex(copy)
    assert capsys.readouterr().err == ""


def test_an_index_is_opened_and_not_made_again(kb: KnowledgeBase, tmp_path: Path) -> None:
    path = shutil.copytree(kb.path, tmp_path / "kb")

    def files() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in (path / "index").rglob("*")}

    before = files()
    copy = open_kb(path)
    TextIndex(copy)
    assert files() == before
    bases.add(path, [entity("Q99", "Newcomer")])
    kept = {file: when for file, when in before.items() if file.suffix == ".term"}
    assert kept.items() <= files().items(), "what was there is made again"
    assert [copy.ids[i] for i in TextIndex(copy).names("JFK", 1)[0]] == ["Q1"]


def test_where_nothing_can_be_written_the_index_is_in_memory(
    kb: KnowledgeBase, index: TextIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file stands where the folder should be: even root cannot make it."""
    path = shutil.copytree(kb.path, tmp_path / "kb")
    shutil.rmtree(path / "index")
    (path / "index").write_text("in the way")
    copy = open_kb(path)
    assert found(copy, TextIndex(copy)) == found(kb, index)
    assert "the index is made in memory" in capsys.readouterr().err
    assert (path / "index").read_text() == "in the way"


def test_another_process_at_the_index_is_waited_for_and_then_done_without(
    kb: KnowledgeBase,
    index: TextIndex,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = shutil.copytree(kb.path, tmp_path / "kb")
    (path / "index" / "text.json").unlink()
    monkeypatch.setattr(caches, "PATIENCE", 0.3)
    copy = open_kb(path)
    with hold(path / "index" / "lock"):
        assert found(copy, TextIndex(copy)) == found(kb, index)
    assert "in use by process" in capsys.readouterr().err
    assert not (path / "index" / "text.json").exists()


def test_a_disk_that_fills_up_costs_nothing_but_the_cache(
    kb: KnowledgeBase,
    index: TextIndex,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = shutil.copytree(kb.path, tmp_path / "kb")
    shutil.rmtree(path / "index")
    real = text_index.write_json

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(text_index, "write_json", full)
    copy = open_kb(path)
    assert found(copy, TextIndex(copy)) == found(kb, index)
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.setattr(text_index, "write_json", real)
    assert found(copy, TextIndex(copy)) == found(kb, index)


def test_a_reader_goes_on_when_its_files_are_deleted(
    kb: KnowledgeBase, index: TextIndex, tmp_path: Path
) -> None:
    path = shutil.copytree(kb.path, tmp_path / "kb")
    copy = open_kb(path)
    opened = TextIndex(copy)
    shutil.rmtree(path)
    assert found(copy, opened) == found(kb, index)
    assert [one.name for one in copy][:2] == ["John F. Kennedy", "Jacqueline Kennedy Onassis"]


@pytest.mark.parametrize(("kind", "cut"), [("idx", slice(20, 60)), ("fast", slice(0, 8))])
def test_an_index_forged_with_its_checksums_is_told(tmp_path: Path, kind: str, cut: slice) -> None:
    """tantivy trusts what it reads, and panics: one line that says what to delete."""
    people = [entity(f"Q{i}", f"Person {i} Smith{i}") for i in range(20)]
    first = TextIndex(bases.build(tmp_path / "first", people))
    assert len(first.names("Person 5", 20)[0]) == 20
    # A copy, as what is open stays mapped: cutting it would end the process.
    kb = open_kb(shutil.copytree(tmp_path / "first", tmp_path / "kb"))
    folder = tmp_path / "kb" / "index"
    state = json.loads((folder / "text.json").read_text())
    for file in (folder / "text").glob(f"*.{kind}"):
        content = bytearray(file.read_bytes())
        content[cut] = b"\xff" * len(content[cut])
        file.write_bytes(content)
        state["files"][file.name] = [len(content), crc32(file, lambda n: None)]
    (folder / "text.json").write_text(json.dumps(state))
    forged = TextIndex(kb)
    told = r"index/text: damaged \(.*\); delete it, and the next start"
    with pytest.raises(UserError, match=told):
        forged.names("Person 5 Smith5", 20)
    shutil.rmtree(folder / "text")
    assert len(TextIndex(kb).names("Person 5", 20)[0]) == 20
