"""The knowledge base: rows from files, changes, generations, damage, and what is found in it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from rapidfuzz import fuzz
from rapidfuzz.utils import default_process

from data_pipeline.kb import entity_files
from data_pipeline.kb.change import Change
from data_pipeline.kb.knowledge_base import KnowledgeBase, open_kb
from data_pipeline.kb.text_index import TextIndex, fold
from data_pipeline.retrieval.forms import fullest
from data_pipeline.retrieval.union import WEIGHTS, Vectors, by_union
from data_pipeline.schema import PADDING, Entity, Mention
from tests.support.fixtures import refusal

JORDANS = [
    Entity("Q1", "Michael Jordan", "basketball player of Chicago", aliases=("MJ", "Air Jordan")),
    Entity("Q2", "Michael I. Jordan", "computer scientist, machine learning"),
    Entity("Q/3", "Jordan (country)", "state in the Middle East", type="country", popularity=7.0),
    Entity("007", "John Fitzgerald Kennedy", ""),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    build(tmp_path / "kb")
    return tmp_path / "kb"


def build(path: Path, entities: list[Entity] = JORDANS) -> KnowledgeBase:
    with Change(path) as change:
        return change.build(entities, name="Jordans")


def names(kb: KnowledgeBase, name: str, n: int = 9) -> list[str]:
    return [kb[row].id for row in TextIndex(kb).names(name, n)[0].tolist()]


# ---- rows


def test_the_same_rows_from_every_kind_of_file(tmp_path: Path) -> None:
    rows = [
        {"id": "007", "name": "Ü, \"x\"", "aliases": ["a", "b"], "description": "one\ntwo",
         "type": "t", "popularity": 1.5, "images": ["p/1.png", "2.png"]},
        {"id": "Q/2", "name": "", "description": None},
    ]  # fmt: skip
    (tmp_path / "e.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "e.parquet")
    (tmp_path / "e.csv").write_text(
        "popularity,id,name,aliases,description,type,images,more\n"
        '1.5,007,"Ü, ""x""",a|b,"one\ntwo",t,p/1.png|2.png,5\n,Q/2,,,,,,\n'
    )
    wanted = [
        Entity("007", 'Ü, "x"', "one\ntwo", str(tmp_path / "p" / "1.png"), ("a", "b"), "t", 1.5,
               (str(tmp_path / "2.png"),)),
        Entity("Q/2", "", ""),
    ]  # fmt: skip
    for kind in ("jsonl", "csv", "parquet"):
        sources: dict[str, str] = {}
        found = [entity for _, entity in entity_files.read(tmp_path / f"e.{kind}", sources)]
        assert found == wanted, kind
        assert list(sources) == [f"e.{kind}"]
    kb = build(tmp_path / "kb", wanted)
    assert list(kb) == wanted
    assert kb[0].image == str(tmp_path / "p" / "1.png")


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("e.csv", "idd,name\n1,x\n", "has no column id; it has idd, name"),
        ("e.csv", "id,name\n", "holds not one row"),
        ("e.csv", "id,id,name\n1,2,x\n", "column id twice"),
        ("e.csv", "id,name\na,\xff\n", "cannot be read"),
        ("e.parquet", "PAR1", "cannot be read"),
        ("e.txt", "", "is none of .jsonl, .json, .csv, .parquet"),
        ("e.jsonl", '{"id": "a\\nb", "name": "x"}', "control character"),
        ("e.jsonl", '{"id": "", "name": "x"}', "must not be empty"),
        ("e.jsonl", '{"id": "a"}', 'key "name" is missing'),
        ("e.jsonl", '{"id": "a", "name": "x", "aliases": "y"}', "must be a list of strings"),
        ("e.jsonl", '{"id": "a", "name": "x", "popularity": true}', "must be a number"),
        ("e.jsonl", '{"id": "a", "name": "x", "image": "i", "images": []}', "not both"),
    ],
)
def test_odd_rows_are_one_line(file: str, content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(content.encode("latin-1"))
    assert told in refusal(lambda: list(entity_files.read(tmp_path / file, {})))


# ---- changes


def test_rows_are_added_replaced_and_removed_and_old_segments_stay(path: Path) -> None:
    before = {file: file.read_bytes() for file in (path / "000001").iterdir()}
    was = open_kb(path)
    with Change(path) as change:
        assert "has 'Q1' already" in refusal(lambda: change.add([JORDANS[0], Entity("n", "N", "")]))
        assert "nothing was added" in refusal(lambda: change.add([JORDANS[0]]))
        assert "'a' is given twice" in refusal(lambda: change.add([Entity("a", "A", "")] * 2))
        change.add([Entity("Q1", "Mike Jordan", "new"), Entity("Q5", "Nile", "")], update=True)
        assert "has no 'Q9'; nothing was removed" in refusal(lambda: change.remove(["Q2", "Q9"]))
        now = change.remove(["Q2"])
    assert {file: file.read_bytes() for file in (path / "000001").iterdir()} == before
    assert (now.generation, now.entity_count, len(now)) == (3, 4, 6)
    assert now.find(["Q1", "Q2", "Q5", "no"]).tolist() == [4, PADDING, 5, PADDING]
    assert now[4].name == "Mike Jordan"
    assert "Q2" not in names(now, "Michael I. Jordan")
    assert names(now, "Mike Jordan")[0] == "Q1"
    assert names(now, "Nile") == ["Q5"]
    # Who opened it before, or counts on what it was, has what was there.
    for old in (was, open_kb(path, at=was.reference())):
        assert list(old) == JORDANS
        assert names(old, "Michael I. Jordan")[0] == "Q2"
        assert names(old, "Nile") == []
    with Change(path) as change:
        folded = change.compact()
    assert (folded.generation, len(folded), len(folded.segments)) == (4, 4, 1)
    assert sorted(entity.id for entity in folded) == ["007", "Q/3", "Q1", "Q5"]
    assert sorted(entry.name for entry in path.iterdir()) == ["000004", "index", "kb.json", "lock"]
    assert list(was) == JORDANS
    assert "compacted since" in refusal(lambda: open_kb(path, at=was.reference()))
    folded.verify()


def test_what_was_done_already_changes_nothing(path: Path) -> None:
    """A command that was killed behind its last step is started again."""
    new = [Entity("Q5", "Nile", "")]
    for _ in range(2):
        assert build(path).generation == 1
    for _ in range(2):
        with Change(path) as change:
            assert change.add(new).generation == 2
    for _ in range(2):
        with Change(path) as change:
            assert change.remove(["Q5"]).generation == 3


def test_one_writer_at_a_time(path: Path) -> None:
    with Change(path):
        assert "in use by process" in refusal(lambda: Change(path))
        assert open_kb(path).entity_count == 4


def test_features_are_asked_for_and_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = rng.standard_normal((6, 3)).astype(np.float32)

    def fill(begin: int, dtype: str = "float32") -> Callable:
        def write(segment, entities):
            segment.write("entity_text", texts[begin : begin + len(entities)].astype(dtype))
            return {"written": len(entities)}

        return write

    with Change(tmp_path / "kb", fill(0)) as change:
        assert change.build(JORDANS, name="x").report == {"written": 4}
    new = [Entity("Q5", "Nile", ""), Entity("Q6", "Rhine", "")]
    with Change(tmp_path / "kb") as change:
        assert "takes its encoders" in refusal(lambda: change.add(new))
    with Change(tmp_path / "kb", fill(4, "float16")) as change:
        kb = change.add(new)
    array = kb.array("entity_text")
    assert array.shape == (6, 3)
    halved = np.concatenate([texts[:4], texts[4:].astype(np.float16).astype(np.float32)])
    np.testing.assert_array_equal(np.asarray(array), halved)
    np.testing.assert_array_equal(array[np.array([[5, 0], [-1, 2]])], halved[[[5, 0], [5, 2]]])
    np.testing.assert_array_equal(array[3:5], halved[3:5])
    with pytest.raises(IndexError):
        array[np.array([6])]
    with Change(tmp_path / "kb", fill(0)) as change:
        change.remove(["Q2"])
        kb = change.compact()
    np.testing.assert_allclose(kb.array("entity_text"), np.delete(halved, 1, 0), atol=1e-3)


# ---- damage


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda p: (p / "kb.json").unlink(), "kb.json: is missing"),
        (lambda p: (p / "kb.json").write_text("{"), "kb.json"),
        (lambda p: (p / "kb.json").write_text('{"form": 9}'), "is of form 9"),
        (lambda p: (p / "000001" / "rows.arrow").unlink(), "rows.arrow"),
        (lambda p: (p / "000001" / "rows.arrow").write_bytes(b"x" * 99), "rows.arrow"),
        (lambda p: (p / "000001" / "dead.npy").unlink(), "dead.npy"),
        (lambda p: shutil.rmtree(p / "000001"), "rows.arrow"),
        (lambda p: shutil.rmtree(p), "there is no knowledge base"),
    ],
)
def test_damage_is_told_by_name(damage: Callable[[Path], object], told: str, path: Path) -> None:
    damage(path)
    assert told in refusal(lambda: open_kb(path))


def test_every_byte_counts(path: Path) -> None:
    """Of rows when they are opened, of arrays when they are verified."""
    with Change(path) as change:
        kb = change.remove(["Q2"])
    dead = path / "000002" / "dead.npy"
    dead.write_bytes(dead.read_bytes()[:-8] + np.int64(2).tobytes())
    assert "damaged since it was written: 000002/dead.npy" in refusal(open_kb(path).verify)
    assert len(kb) == 4
    file = path / "000001" / "rows.arrow"
    file.write_bytes(file.read_bytes().replace(b"Chicago", b"Detroit"))
    assert "000001/rows.arrow: is cut, foreign or damaged" in refusal(lambda: open_kb(path))


@pytest.mark.parametrize(
    "damage",
    [
        lambda index: shutil.rmtree(index),
        lambda index: (index / "text.json").write_text("["),
        lambda index: [file.write_bytes(b"") for file in (index / "text").iterdir()],
        lambda index: (index / "text" / "meta.json").unlink(),
    ],
)
def test_an_index_is_made_anew(damage: Callable[[Path], object], path: Path) -> None:
    kb = open_kb(path)
    wanted = TextIndex(kb).names("Jordan", 9)
    damage(path / "index")
    found = TextIndex(kb).names("Jordan", 9)
    for one, other in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (path / "index" / "text.json").exists()


def test_an_index_that_cannot_be_written_is_in_memory(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kb = open_kb(path)
    shutil.rmtree(path / "index")
    (path / "index").write_text("no folder")
    assert names(kb, "Kennedy") == ["007"]
    assert "in memory" in capsys.readouterr().err


# ---- what is found


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("JFK", "007"),
        ("J.F.K.", "007"),
        ("J. F. Kennedy", "007"),
        ("kennedy", "007"),
        ("air JORDÁN", "Q1"),
        ("Jordan", "Q/3"),
    ],
)
def test_names(name: str, first: str, path: Path) -> None:
    assert names(open_kb(path), name)[0] == first


def test_names_that_are_no_names(path: Path) -> None:
    index = TextIndex(open_kb(path))
    for odd in ("", "…", "\0", "\ud800", "x" * 10_000):
        assert len(index.names(odd, 5)[0]) == 0, odd[:9]
        assert len(index.words(odd, 5)[0]) == 0, odd[:9]
    assert fold("  Ça_va? 東京・\u0939\u093f ") == "ca va 東京 ह"
    assert index.knows("jordan")
    assert not index.knows("michael")
    assert index.words("No scientist, no machines.", 5)[0].tolist() == [1]


@pytest.mark.parametrize(
    ("text", "name", "form"),
    [
        ("Then Michael Jordan scored.", "Jordan", "Michael Jordan"),
        ("Jordan scored. Nobody beats Michael Jordan.", "Jordan", "Michael Jordan"),
        ("Professor Yannick Jordan and Anna met.", "Jordan", "Professor Yannick Jordan"),
        ("the michael jordan of chess", "jordan", "michael jordan"),
        ("Ludwig van Beethoven's house", "Beethoven", "Ludwig van Beethoven"),
        ("John F. Kennedy spoke", "Kennedy", "John F. Kennedy"),
        ("He saw it. Jordan left.", "Jordan", "Jordan"),
        ("No such word", "Jordan", "Jordan"),
        ("", "…", "…"),
    ],
)
def test_the_fullest_form(text: str, name: str, form: str) -> None:
    known = {"michael jordan"}
    assert fullest(text, name, max(text.find(name), 0), known.__contains__) == form


def test_the_union_is_the_sum_it_says(path: Path) -> None:
    kb = open_kb(path)
    index = TextIndex(kb)
    text = "Jordan knows machine learning."
    mention = Mention("m", text, "Jordan", 0, 6, "test", "s", None)
    cosines = np.array([0.1, 0.5, 0.2, 0.3], np.float32)
    vectors = Vectors(np.array([[1, 3]], np.int32), lambda own, rows: cosines[rows])
    found = by_union(kb, index, [mention], 6, vectors)
    scores = np.zeros(4)
    for stage in ("names", "forms"):
        rows, bm25 = index.names("Jordan", 9)
        relative = np.zeros(4)
        relative[rows] = bm25 / bm25[0]
        alike = [
            max(fuzz.WRatio(*map(default_process, ("Jordan", one))) for one in forms)
            for forms in (
                *(["Michael Jordan", "MJ", "Air Jordan"], ["Michael I. Jordan"], ["Jordan"]),
                ["John Fitzgerald Kennedy"],
            )
        ]
        scores += WEIGHTS[stage] * (relative + np.array(alike) / 100) / 2
    rows, bm25 = index.words(text, 9)
    scores[rows] += WEIGHTS["words"] * bm25 / bm25[0]
    scores += WEIGHTS["vectors"] * cosines
    order = np.argsort(-scores)
    assert found.rows[0].tolist() == [*order.tolist(), PADDING, PADDING]
    np.testing.assert_allclose(found.scores[0, :4], scores[order], rtol=1e-5)
    assert found.ranks[0, :4, 3].tolist() == [{1: 0, 3: 1}.get(row, PADDING) for row in order]
    without = by_union(kb, index, [mention], 2)
    assert not without.evidence[:, :, 3].any()
