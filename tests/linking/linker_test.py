"""The linker as a library: the same answers as evaluation, pictures, NIL, a base that grows."""

import dataclasses
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from data_pipeline import files
from data_pipeline.files import draft
from data_pipeline.kb.change import open_change
from data_pipeline.kb.folded_names import fold
from data_pipeline.schema import PADDING, Mention, UserError
from drin_jax import Linker, Query
from drin_jax.extract.corpus import read_corpus
from drin_jax.linking import places, spans
from drin_jax.linking.query import mention_of
from drin_jax.linking.result import LinkResult
from drin_jax.workdir import FinishedRun, open_run
from tests.support import bases, commands, linkers
from tests.support.hub_stand_in import StandIn
from tests.support.odd_pictures import photo
from tests.support.paths import ROOT

CLOSE = 2e-2  # of scores of some units: evidence is kept in float16


@pytest.fixture(scope="module")
def run() -> FinishedRun:
    return open_run(linkers.trained())


@pytest.fixture(scope="module")
def linker(run: FinishedRun) -> Linker:
    return Linker.from_pretrained(run.workdir)


@pytest.fixture(scope="module")
def mentions(run: FinishedRun) -> list[Mention]:
    """Those of test, in the order of the store."""
    found = {mention.id: mention for mention in read_corpus(run.config).mentions}
    ids = run.store.strings("mention_id")
    return [found[ids[row]] for row in np.asarray(run.store.array("test_mention"))]


def query_of(mention: Mention) -> Query:
    span = None if mention.start is None else (mention.start, mention.end or 0)
    return Query(mention.text, span, mention.name, mention.image)


@pytest.fixture
def own(run: FinishedRun, tmp_path: Path) -> Linker:
    """A linker over a copy of the knowledge base that may be changed."""
    Linker.from_pretrained(run.workdir).save_pretrained(tmp_path / "model")
    return Linker.from_pretrained(tmp_path / "model")


def refused(call: Any) -> str:
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


def test_it_ranks_the_test_split_as_evaluation_does(
    run: FinishedRun, linker: Linker, mentions: list[Mention]
) -> None:
    scores = run.scores("test")
    candidates, ids = np.asarray(run.store.array("test_candidates")), run.store.kb.ids
    answers = [*linker.link_many(map(query_of, mentions), batch=16, k=1000)]
    alone = [linker.link(*dataclasses.astuple(query_of(m))[:4], k=1000) for m in mentions[:12]]
    for one, other in zip(answers, alone, strict=False):
        assert [e.id for e in one.candidates] == [e.id for e in other.candidates]
    for row, answer in enumerate(answers):
        there = np.flatnonzero(candidates[row] != PADDING)
        order = there[np.argsort(-scores[row, there], kind="stable")]
        assert [e.id for e in answer.candidates] == [ids[candidates[row, i]] for i in order]
        told = [e.score for e in answer.candidates]
        np.testing.assert_allclose(told, scores[row, order], atol=CLOSE)


def test_probabilities_and_nil_are_those_of_calibration(linker: Linker) -> None:
    found = linker.link("Snow fell on Kelfield.", mention="Kelfield", k=1000)
    total = sum(e.probability for e in found.candidates) + found.nil_probability
    assert total == pytest.approx(1)
    assert found.best is found.candidates[0]
    assert (found.entity is None) == found.is_nil
    assert [e.rank for e in found.candidates] == [*range(1, len(found.candidates) + 1)]
    nobody = linker.link("Zzyzx qqq wrote xylophones.", mention="Zzyzx")
    assert nobody.nil_probability > found.nil_probability


def test_the_threshold_of_nil_may_be_given(run: FinishedRun) -> None:
    for threshold, is_nil in ((0.0, True), (1.1, False)):
        linker = Linker.from_pretrained(run.workdir, nil_threshold=threshold)
        assert linker.link("Snow fell on Kelfield.", mention="Kelfield").is_nil == is_nil


def test_a_picture_comes_as_path_bytes_picture_or_array(
    linker: Linker, mentions: list[Mention]
) -> None:
    mention = next(m for m in mentions if m.image)
    assert mention.image is not None
    with Image.open(mention.image) as file:
        picture = file.convert("RGB")
    forms: list[Any] = [mention.image, Path(mention.image), Path(mention.image).read_bytes()]
    forms += [picture, np.asarray(picture)]
    answers = [linker.link(mention.text, mention=mention.name, image=form) for form in forms]
    own = [e.score for e in answers[0].candidates]
    for answer in answers[1:]:
        # Of a picture of the data set the file of boxes tells objects; of a new one nothing does.
        np.testing.assert_allclose([e.score for e in answer.candidates][:1], own[:1], atol=2)
    by_content = [[e.score for e in answer.candidates] for answer in answers[2:]]
    np.testing.assert_allclose(by_content[0], by_content[1], atol=CLOSE)
    np.testing.assert_allclose(by_content[0], by_content[2], atol=CLOSE)
    blind = linker.link(mention.text, mention=mention.name)
    assert [e.score for e in blind.candidates] != own


def test_candidates_may_be_given(linker: Linker) -> None:
    some = linker.link("Snow fell on Kelfield.", mention="Kelfield", k=4)
    ids = [e.id for e in some.candidates[1:3]]
    found = linker.link("Snow fell on Kelfield.", mention="Kelfield", candidates=ids)
    assert {e.id for e in found.candidates} == {*ids}
    asked = [Query("Snow fell on Kelfield.", mention="Kelfield", candidates=c) for c in (None, ids)]
    free, bound = linker.link_many(asked)
    assert [e.id for e in free.candidates[:4]] == [e.id for e in some.candidates]
    assert {e.id for e in bound.candidates} == {*ids}


def test_it_says_why(linker: Linker) -> None:
    found = linker.link("Snow fell on Kelfield.", mention="Kelfield", k=3)
    text = found.explain()
    assert "Snow fell on" in text
    assert "its name equals this name" in text
    assert "gold" not in text
    drawn = found.explain("svg")
    assert "<svg" in drawn
    assert "wrong" not in drawn
    told = json.loads(json.dumps(found.to_dict(explain=True), allow_nan=False))
    assert told == found.to_dict(explain=True)
    reasons = told["explanation"]["candidates"][0]
    assert reasons["id"] == found.candidates[0].id
    assert len(reasons["edges"]) == told["explanation"]["layers"] + 1
    assert reasons["reasons"].keys() >= {"names"}
    assert refused(lambda: found.explain("png")).startswith("the form of an explanation")


def test_an_entity_is_linked_to_once_it_is_added(own: Linker) -> None:
    text, entity = "The lamplighter Ottoline Quex sang.", {"id": "X1", "name": "Ottoline Quex"}
    before = own.kb.version
    own.kb.add([entity | {"description": "a lamplighter who sang"}])
    found = own.link(text, mention="Ottoline Quex")
    assert found.best is not None
    assert found.best.id == "X1"
    assert found.kb == own.kb.version != before
    assert own.kb.search("Quex", k=1)[0].id == "X1"
    assert "has 'X1' already" in refused(lambda: own.kb.add([entity]))
    own.kb.update([entity | {"description": "a song"}])
    assert own.kb.get("X1").description == "a song"  # type: ignore[union-attr]
    own.kb.remove(["X1"])
    assert own.kb.get("X1") is None
    assert "X1" not in {e.id for e in own.link(text, mention="Ottoline Quex", k=99).candidates}
    own.kb.remove(["X1"])  # again, as a killed command does
    assert "has no 'X2'" in refused(lambda: own.kb.remove(["X2"]))


def test_what_is_remembered_of_an_entity_stays_with_its_id(
    run: FinishedRun, own: Linker, mentions: list[Mention]
) -> None:
    mention = next(m for m in mentions if own.kb.get(m.gold or ""))
    old = own.kb.get(mention.gold or "")
    assert old is not None
    before = own.link(mention.text, mention=mention.name, k=99).to_dict(explain=True)
    own.kb.update([old])
    after = own.link(mention.text, mention=mention.name, k=99).to_dict(explain=True)

    def votes(told: dict[str, Any]) -> str:
        candidates = told["explanation"]["candidates"]
        return next(c for c in candidates if c["id"] == old.id)["reasons"]["votes"]

    assert votes(before) == votes(after)


def test_changes_of_a_borrowed_base_go_with_the_process(
    run: FinishedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = Linker.from_pretrained(run.workdir)
    borrowed = Linker(base._model, run.store.kb, borrowed=True)
    borrowed.kb.add([{"id": "X9", "name": "Nobody"}])
    assert "is not changed" in capsys.readouterr().err
    assert borrowed.kb.get("X9") is not None
    assert Linker.from_pretrained(run.workdir).kb.get("X9") is None


def test_a_picture_given_as_bytes_is_kept_with_the_base(own: Linker) -> None:
    with Image.open(next(iter_pictures(own))) as file:
        picture = file.convert("RGB")
    own.kb.add([{"id": "X1", "name": "Pictured", "image": np.asarray(picture)}])
    kept = own.kb.get("X1")
    assert kept is not None
    assert kept.image is not None
    with Image.open(kept.image) as file:
        assert file.size == picture.size
    found = own.link("Pictured stood there.", mention="Pictured")
    assert found.best is not None
    assert found.best.has_image


def iter_pictures(linker: Linker) -> Iterator[str]:
    kb = linker._state.kb
    return (one.image for one in kb if one.image)


def test_threads_share_a_linker(linker: Linker, mentions: list[Mention]) -> None:
    queries = [query_of(mention) for mention in mentions[:16]]
    alone = [one.to_dict() for one in linker.link_many(queries)]
    found: dict[int, Any] = {}

    def link(i: int) -> None:
        own = queries[i]
        found[i] = linker.link(own.text, own.span, own.mention, own.image).to_dict()

    threads = [threading.Thread(target=link, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, one in enumerate(alone):
        assert [c["id"] for c in found[i]["candidates"]] == [c["id"] for c in one["candidates"]]


def test_nothing_is_compiled_after_the_warm_up(linker: Linker, mentions: list[Mention]) -> None:
    linker.warm_up(16)
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None
    )
    queries = [query_of(mention) for mention in mentions[:13]]
    for size in (1, 2, 5, 13):
        assert len([*linker.link_many(queries[:size])]) == size
    linker.link("word " * 90 + "Kelfield", mention="Kelfield").to_dict(explain=True)
    linker.annotate("Snow fell on Kelfield and Corder.")
    assert compiled == []
    jax.jit(lambda x: x * 3.25 + len(queries))(np.ones(7))
    assert compiled  # the listener hears


def test_many_are_linked_in_order_with_errors_in_their_place(linker: Linker) -> None:
    asked = [{"text": "Snow fell on Kelfield.", "mention": "Kelfield"}, {"text": ""}]
    found = [*linker.link_many([*asked, asked[0]], errors=True)]
    assert str(found[1]) == "the text is empty"
    assert found[0].candidates == found[2].candidates
    assert refused(lambda: [*linker.link_many(asked)]) == "query 1: the text is empty"
    assert [*linker.link_many([])] == []


def test_batches_that_overlap_are_told_in_order(linker: Linker, mentions: list[Mention]) -> None:
    queries = [query_of(mention) for mention in mentions[:11]]

    def said(answer: LinkResult) -> tuple[str, str]:
        return answer.text, answer.best.id

    apart = [said(linker.link(**dataclasses.asdict(query))) for query in queries]

    def broken() -> Iterator[Query]:
        yield from queries
        raise ValueError("no more is read")

    answers = linker.link_many(broken(), batch=3)
    assert [said(next(answers)) for _ in range(9)] == apart[:9]  # the whole batches before it
    with pytest.raises(ValueError, match="no more is read"):
        next(answers)
    first = linker.link_many(iter(queries), batch=2)
    assert said(next(first)) == apart[0]
    first.close()  # whoever has heard enough


def test_a_saved_model_answers_the_same(own: Linker, linker: Linker, tmp_path: Path) -> None:
    text = "Snow fell on Kelfield."
    assert own.model == linker.model
    mine, other = own.link(text, mention="Kelfield"), linker.link(text, mention="Kelfield")
    assert mine == other, (mine, other)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "hits@1" in card
    own.kb.add([{"id": "X1", "name": "Later"}])
    again = Linker.from_pretrained(tmp_path / "model")
    assert again.kb.get("X1") is not None
    assert "is there already" in refused(lambda: own.save_pretrained(tmp_path / "model"))
    own.save_pretrained(tmp_path / "other", with_kb=False)
    assert not (tmp_path / "other" / "kb").exists()
    other = Linker.from_pretrained(tmp_path / "other")
    assert other.kb.version == own.kb.version  # it is the same, with what was added


def change(file: Path) -> None:
    file.write_text(file.read_text().replace('"r": 8', '"r": 7'))


def test_an_export_links_where_it_was_asked_to(
    run: FinishedRun, linker: Linker, tmp_path: Path
) -> None:
    export = ("drin_jax.export", f"--workdir={run.workdir}", "--platforms=cpu")
    for out, flags in (("export", ["--linker"]), ("bare", [])):
        done = commands.run(*export, f"--out={tmp_path / out}", *flags)
        assert done.returncode == 0, done.stderr
    found = Linker.from_pretrained(tmp_path / "export").link("Snow.", mention="Kelfield")
    assert found == linker.link("Snow.", mention="Kelfield")
    assert "has a scorer and no linker" in refused(
        lambda: Linker.from_pretrained(tmp_path / "bare")
    )


def test_examples_to_try_are_of_different_names(linker: Linker) -> None:
    found = linker.examples()
    assert len({one["title"] for one in found}) == len(found) == 4
    for one in found:
        begin, end = one["span"]
        assert one["text"][begin:end] == one["title"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda f: (f / "model.safetensors").write_bytes(b"x"), "damaged"),
        (lambda f: (f / "model.json").write_text("{}"), "is of version None"),
        (lambda f: change(f / "model.json"), "damaged, it is not as it was written"),
        (lambda f: (f / "model.json").unlink(), "holds no finished run"),
        (lambda f: (f / "memory.jsonl").unlink(), "cannot be read"),
        (lambda f: (f / "weights.pkl").write_bytes(b"cos\nsystem\n"), "can run programs"),
        (lambda f: (f / "kb" / "kb.json").unlink(), "its knowledge base cannot be read"),
    ],
)  # fmt: skip
def test_a_damaged_model_is_refused(own: Linker, tmp_path: Path, damage: Any, told: str) -> None:
    damage(tmp_path / "model")
    assert told in refused(lambda: Linker.from_pretrained(tmp_path / "model"))


@pytest.mark.parametrize(
    ("name", "made", "told"),
    [
        ("association.context", lambda x: x + 2**18, "does not fit together"),
        ("association.table", lambda x: x[1:], "does not fit together"),
        ("association.table", lambda x: None, "has no 'association.table'"),
        ("memory.around", lambda x: x + 2**18, "its memory is odd"),
        ("memory.around_ends", lambda x: x[::-1].copy(), "its memory is odd"),
        ("memory.around_ends", lambda x: x[:0], "its memory is odd"),
    ],
)
def test_forged_arrays_are_refused(
    own: Linker, tmp_path: Path, name: str, made: Any, told: str
) -> None:
    """Also where every checksum is right."""
    folder = tmp_path / "model"
    arrays = load_file(folder / "model.safetensors")
    changed = arrays | {name: made(arrays[name])}
    kept = {key: value for key, value in changed.items() if value is not None}
    save_file(kept, folder / "model.safetensors")
    content = json.loads((folder / "model.json").read_text())
    content["files"]["model.safetensors"] = files.sha256(folder / "model.safetensors")
    content["checksum"] = files.own_checksum(content)
    (folder / "model.json").write_text(json.dumps(content))
    assert told in refused(lambda: Linker.from_pretrained(folder))


def test_what_is_saved_links_to_what_it_linked_to(
    run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To another base than the model's, and to what was added; a file's own base stays as it is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "mine.jsonl"
    rows = [{"id": "A", "name": "Kelfield", "description": "a village"}, {"id": "B", "name": "Bo"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    linker = Linker.from_pretrained(run.workdir, kb=file)
    linker.kb.add([{"id": "C", "name": "Kelfield", "description": "a later one"}])
    assert "too, with_kb=True" in refused(
        lambda: linker.save_pretrained(tmp_path / "refers", with_kb=False)
    )
    linker.save_pretrained(tmp_path / "saved")
    again = Linker.from_pretrained(tmp_path / "saved")
    assert again.kb.version == linker.kb.version
    text = "Snow fell on Kelfield."
    found = again.link(text, mention="Kelfield")
    assert {one.id for one in found.candidates} == {"A", "B", "C"}
    assert found == linker.link(text, mention="Kelfield")
    assert Linker.from_pretrained(run.workdir, kb=file).kb.get("C") is None
    own = Linker.from_pretrained(tmp_path / "saved", kb=tmp_path / "saved" / "kb")
    own.kb.add([{"id": "D", "name": "Dora"}])
    own.save_pretrained(tmp_path / "grown")
    assert Linker.from_pretrained(tmp_path / "grown").kb.get("D") is not None


def test_a_file_of_entities_becomes_a_base(
    run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "mine.csv"
    file.write_text(
        "id,name,description\nA,Kelfield,a village of snow\nB,Kelfield,a bank of money\n"
    )
    linker = Linker.from_pretrained(run.workdir, kb=file)
    found = linker.link("Snow fell on the village Kelfield.", mention="Kelfield")
    assert {e.id for e in found.candidates} == {"A", "B"}
    again = Linker.from_pretrained(run.workdir, kb=file)
    assert again.kb.version == linker.kb.version
    assert len([*(tmp_path / "cache").rglob("kb.json")]) == 1


def test_a_picture_that_changes_makes_another_base(
    run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or one that comes later: what was encoded is kept by what the pictures were."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "mine.csv").write_text("id,name,image\nA,Kelfield,a.png\n")
    made = []
    for size in (0, 20, 30):
        if size:
            photo(size, size).save(tmp_path / "a.png")
        linker = Linker.from_pretrained(run.workdir, kb=tmp_path / "mine.csv")
        made.append(linker.kb.info()["path"])
    assert len({*made}) == 3


def test_two_do_not_save_to_one_place(own: Linker, tmp_path: Path) -> None:
    place = tmp_path / "twice"
    with draft(place):
        assert "in use by" in refused(lambda: own.save_pretrained(place))
    assert not place.exists()
    own.save_pretrained(place)
    assert [*tmp_path.glob("twice*")] == [place]


PICTURELESS = {"mention": "Kelfield"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"text": ""}, "the text is empty"),
        ({"text": "Kelfield"}, "no mention is named"),
        ({"text": "Kelfield", "span": (3, 99)}, "is not within the 8 characters"),
        ({"text": "Kelfield", "span": (3, 3)}, "is not within"),
        ({"text": "Kelfield", "span": (-1, 3)}, "is not within"),
        ({"text": "Kelfield \ud83d", "span": (0, 3)}, "half a surrogate pair"),
        ({"text": "cafe\u0301 Kelfield", "span": (0, 4)}, "divides a character"),
        ({"text": "a \U0001f468\u200d\U0001f469", "span": (2, 3)}, "divides a character"),
        ({"text": "Kelfield", "span": (0, 3), "mention": "field"}, "the span holds 'Kel'"),
        ({"text": "Kelfield", "mention": " "}, "the mention is empty"),
        (
            {"text": "Kelfield", "mention": "Kelfield", "candidates": ["none"]},
            "no candidate 'none'",
        ),
        ({"text": "Kelfield", "mention": "Kelfield", "k": 0}, "k is 0"),
        ({"text": "x" * 1_000_001, "mention": "x"}, "1,000,000 are read at most"),
        ({"text": "Kelfield", "mention": "Kelfield", "image": "nowhere.png"}, "no such file"),
        ({"text": "Kelfield", "mention": "Kelfield", "image": b"<svg/>"}, "not a picture"),
        ({"text": "Kelfield", "mention": "Kelfield", "image": "https://x.y/z.png"}, "of the web"),
        ({"text": "Kelfield", "mention": "Kelfield", "image": np.zeros((2, 2))}, "has to be uint8"),
        ({"text": "Kelfield", "mention": "Kelfield", "image": 7}, "the picture is int"),
    ],
)
def test_what_cannot_be_linked_is_told(linker: Linker, arguments: Any, told: str) -> None:
    message = refused(lambda: linker.link(**arguments))
    assert told in message
    assert "\n" not in message


WRONG = [  # what no type checker would let pass, and what is told of it
    ("linker.link('Kelfield', mention='Kelfield', candidates=5)", "candidates are 5"),
    ("linker.link('Kelfield', mention='Kelfield', k=2.0)", "k is 2.0"),
    ("linker.kb.add({'id': 'm', 'name': 'n'})", "give a list of them"),
    ("linker.kb.add(None)", "entities are None"),
    ("linker.kb.add(['x'])", "entity 0 is 'x', no mapping"),
    ("linker.kb.remove('Q1')", "ids are 'Q1'"),
    ("linker.kb.remove([1])", "ids are texts"),
    ("linker.kb.get(5)", "an id is a text"),
    ("linker.kb.search(5)", "no text"),
    ("linker.kb.search('a', k='x')", "k is 'x'"),
    ("[*linker.link_many(5)]", "queries are 5"),
    ("[*linker.link_many([], batch=2.5)]", "batch is 2.5"),
    ("linker.annotate('Kelfield', least='x')", "least is 'x'"),
    ("linker.save_pretrained(None)", "folder is None"),
    ("Linker.from_pretrained(5)", "place is 5"),
    ("Linker.from_pretrained('.', kb=5)", "kb is 5"),
]


def test_arguments_of_other_types_are_told() -> None:
    """In a process of its own, where nothing checks types."""
    lines = [
        "import numpy as np",
        "from drin_jax import Linker",
        "from data_pipeline.schema import UserError",
        f"linker = Linker.from_pretrained({str(linkers.trained())!r})",
        f"for wrong in {[wrong for wrong, _ in WRONG]!r}:",
        "    try:",
        "        print(eval(wrong))",
        "    except UserError as error:",
        "        print(error)",
        "print(len(linker.link('Kelfield', mention='Kelfield', k=np.int64(1)).candidates))",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    *told, last = done.stdout.splitlines()
    assert len(told) == len(WRONG)
    for (wrong, wanted), one in zip(WRONG, told, strict=True):
        assert wanted in one, wrong
    assert last == "1"


def test_a_long_text_is_linked(linker: Linker) -> None:
    text = "Some words of no matter. " * 20_000
    found = linker.link(f"{text}Snow fell on Kelfield.", mention="Kelfield")
    assert found.best is not None
    assert found.best.name == "Kelfield"


def test_a_report_of_an_earlier_state_is_refused(run: FinishedRun, tmp_path: Path) -> None:
    """A training that went on and was killed leaves the calibration of what was best before."""
    shutil.copytree(run.workdir, tmp_path / "run")
    report = tmp_path / "run" / "report.json"
    told = json.loads(report.read_text())
    report.write_text(json.dumps(told | {"best_step": told["best_step"] + 1}))
    assert "start its command again" in refused(lambda: Linker.from_pretrained(tmp_path / "run"))


def test_places_that_hold_no_model_are_told(tmp_path: Path) -> None:
    assert "there is no such folder" in refused(lambda: Linker.from_pretrained("no such place"))
    assert "holds no finished run" in refused(lambda: Linker.from_pretrained(tmp_path))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "The University of Oxford met Michael Jordan.",
            ["University", "University of Oxford", "Oxford", "Michael Jordan"],
        ),
        ("An iPhone rang.", ["iPhone"]),
        ("She saw Bob. He left.", ["Bob"]),
        ("Obama went home.", ["Obama"]),
        ("Yesterday it rained.", []),
        ("they love new york", []),
        ("A day in New York. Obama sang.", ["New York", "Obama"]),
        ("Jordan's ball", ["Jordan"]),
        ("We like Beyonce\u0301 a lot.", ["Beyonce\u0301"]),
        ("मैं दिल्ली गया।", ["दिल्ली"]),
        ("昨天我去了北京市。", ["北京市"]),
        ("กรุงเทพสวย", ["กรุงเทพ"]),
        ("昨日佐々木は東京へ行った", ["佐々木"]),
        ("in C++ and C#.", ["C++", "C#"]),
        ("they saw #Obama# there", ["Obama"]),
        ("", []),
    ],
)
def test_where_mentions_stand(text: str, found: list[str]) -> None:
    names = {
        *map(
            fold,
            ("Michael Jordan", "New York", "iPhone", "दिल्ली", "北京市", "กรุงเทพ", "C++", "佐々木"),
        )
    }
    places = spans.find(text, names.__contains__, {"obama", "jordan", *names})
    assert [text[a:b] for a, b in places] == found


@pytest.mark.parametrize(
    ("text", "mention", "start"),
    [
        ("Xavier posted on X today.", "X", 17),
        ("Clara wrote it in C.", "C", 18),
        ("Xavier posted", "X", 0),
        ("我去了北京市", "北京", 3),
        ("Cafe\u0301 Cafe", "Cafe", 6),
        ("Cafe\u0301", "Cafe", None),
        ("a" + 10_000 * "\u0301", "\u0301", None),  # at once
        ("a b", "c", None),
    ],
)
def test_a_mention_is_where_it_is_a_word(text: str, mention: str, start: int | None) -> None:
    assert mention_of(Query(text, mention=mention), 0, None).start == start


def test_of_places_that_overlap_the_likelier_stays() -> None:
    places = [(0, 5), (3, 9), (8, 12), (20, 22)]
    assert spans.apart(places, [0.5, 0.9, 0.4, 0.1]) == [1, 3]
    assert spans.apart([(0, 5), (0, 9)], [0.5, 0.5]) == [1]


def test_annotate_finds_mentions_and_asks_a_recogniser(run: FinishedRun) -> None:
    plain = Linker.from_pretrained(run.workdir)
    name = plain._state.kb[0].name
    text = f"On Monday we drove to {name} by car."
    found = plain.link(text, mention=name)
    there = {one.mention for one in plain.annotate(text, least=0)}
    assert (name in there) == (not found.is_nil)
    asked = Linker.from_pretrained(run.workdir, ner=lambda text: [(text.index("car"), len(text))])
    more = {one.mention for one in asked.annotate(text, least=0)}
    assert more - there == ({"car."} if not plain.link(text, mention="car.").is_nil else set())
    assert plain.annotate(text, least=1.1) == ()
    assert "give spacy:PIPELINE" in refused(lambda: Linker.from_pretrained(run.workdir, ner="x"))
    none: Any = lambda text: None  # noqa: E731
    unplaced = Linker.from_pretrained(run.workdir, ner=none)
    assert "the places of ner are None" in refused(lambda: unplaced.annotate(text))


def test_recognisers_go_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both libraries stood in for by what is used of them."""
    entity = types.SimpleNamespace(start_char=3, end_char=7)
    pipeline = types.SimpleNamespace(ents=[entity])
    spacy: Any = types.ModuleType("spacy")
    spacy.load = {"pipe": lambda text: pipeline}.__getitem__
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    assert spans.recogniser("spacy:pipe")("to Oxford") == [(3, 7)]
    asked: list[Any] = []

    class Model:
        @classmethod
        def from_pretrained(cls, place: str) -> "Model":
            asked.append(place)
            return cls()

        def predict_entities(self, text: str, labels: list[str]) -> list[dict[str, Any]]:
            asked.append(labels)
            return [{"start": 0, "end": 2, "label": labels[0], "score": 0.9}]

    gliner: Any = types.ModuleType("gliner")
    gliner.GLiNER = Model
    monkeypatch.setitem(sys.modules, "gliner", gliner)
    assert spans.recogniser("gliner:owner/name#city,river")("to Oxford") == [(0, 2)]
    assert asked == ["owner/name", ["city", "river"]]
    monkeypatch.setitem(sys.modules, "spacy", None)
    assert 'pip install "drin_jax[ner]"' in refused(lambda: spans.recogniser("spacy:pipe"))


def test_addresses_of_pictures_are_fetched_where_that_is_allowed(
    run: FinishedRun, mentions: list[Mention], tmp_path: Path
) -> None:
    linker = Linker.from_pretrained(run.workdir, urls=True)
    image = next(m.image for m in mentions if m.image)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=Path(image).parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_address[1]}"
        text = ("Snow fell on Kelfield.", (13, 21))
        fetched = linker.link(*text, image=f"{place}/{Path(image).name}")
        assert fetched == linker.link(*text, image=Path(image).read_bytes())
        told = refused(lambda: linker.link(*text, image=f"{place}/none.png"))
        assert "cannot be fetched" in told
        server.shutdown()
    assert "only http://" in refused(lambda: linker.link(*text, image="file:///etc/passwd"))


def test_a_model_comes_from_the_hub_and_goes_there(
    own: Linker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = tmp_path / "model"
    files = {
        p.relative_to(saved).as_posix(): p.read_bytes() for p in saved.rglob("*") if p.is_file()
    }
    script = (
        "import sys; from drin_jax import Linker\n"
        "linker = Linker.from_pretrained('me/linker')\n"
        "print(linker.link('Snow fell on Kelfield.', mention='Kelfield').best.id)\n"
    )
    with StandIn({("models", "me/linker"): files}) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        environment = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hub")}
        command = [sys.executable, "-c", script]
        for _ in range(2):  # the second time of the cache
            done = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            best = own.link("Snow fell on Kelfield.", mention="Kelfield").best
            assert best is not None
            assert done.stdout.strip() == best.id
        hub.shutdown()
    pushed: dict[str, Any] = {}

    class Api:
        def create_repo(self, name: str, **options: Any) -> str:
            pushed.update(options, name=name)
            return f"https://hub/{name}"

        def upload_folder(self, *, repo_id: str, folder_path: Path) -> None:
            pushed["files"] = {p.name for p in folder_path.iterdir()}

    monkeypatch.setattr(places, "HfApi", Api)
    assert own.push_to_hub("me/linker") == "https://hub/me/linker"
    assert pushed["private"]
    assert pushed["files"] >= {"model.json", "README.md", "kb"}
    assert "write OWNER/NAME" in refused(lambda: own.push_to_hub("linker"))


def test_a_base_of_other_encoders_is_refused(run: FinishedRun, tmp_path: Path) -> None:
    bases.build(tmp_path / "bare", [bases.entity("Q1", "One")])
    told = refused(lambda: Linker.from_pretrained(run.workdir, kb=tmp_path / "bare"))
    assert "has no features" in told
    bases.build(tmp_path / "other", [bases.entity("Q1", "One")], features=True)
    told = refused(lambda: Linker.from_pretrained(run.workdir, kb=tmp_path / "other"))
    assert "was built by other encoders" in told


def test_a_change_that_another_process_makes_is_waited_for_by_hand(own: Linker) -> None:
    with open_change(own._state.kb.path):
        told = refused(lambda: own.kb.add([{"id": "X1", "name": "Two writers"}]))
    assert "in use by" in told
    own.kb.add([{"id": "X1", "name": "Two writers"}])
    assert own.kb.get("X1") is not None
