"""The service over a trained model: the library's answers, and a knowledge base that grows."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the service is for extra serve")
pytest.importorskip("httpx", reason="its tests are for extra dev")

from data_pipeline.schema import Mention
from drin_jax import Linker
from drin_jax.extract.corpus import read_corpus
from drin_jax.linking.server import answers
from drin_jax.workdir import open_run
from tests.linking.running_server import WRITER, Running, running
from tests.support import linkers
from tests.support.full_disk import full_beyond


@pytest.fixture(scope="module")
def linker(tmp_path_factory: pytest.TempPathFactory) -> Linker:
    """Over a copy of the knowledge base, which may be changed."""
    run = open_run(linkers.trained())
    kb = tmp_path_factory.mktemp("own") / "kb"
    shutil.copytree(run.store.kb.path, kb)
    return Linker.from_pretrained(run.workdir, kb=kb)


@pytest.fixture(scope="module")
def mentions() -> list[Mention]:
    run = open_run(linkers.trained())
    found = read_corpus(run.config).mentions
    return [one for one in found if one.split == "test" and one.image and one.start is not None]


@pytest.fixture(scope="module")
def service(linker: Linker) -> Iterator[Running]:
    with running(linker) as one:
        yield one


def test_it_answers_what_the_library_does(
    service: Running, linker: Linker, mentions: list[Mention]
) -> None:
    for mention in mentions[:3]:
        span = (mention.start or 0, mention.end or 0)
        shown = Path(mention.image or "").read_bytes()
        body = {"text": mention.text, "span": span, "k": 3, "explain": True}
        answer = service.http.post(
            "/link", json={**body, "image": base64.b64encode(shown).decode()}
        )
        assert answer.status_code == 200, answer.text
        answers.LinkAnswer.model_validate(answer.json())
        alone = linker.link(mention.text, span, image=shown, k=3)
        told, wanted = answer.json(), alone.to_dict(explain=True)
        assert told["candidates"] == [
            one | {key: pytest.approx(one[key], abs=1e-4) for key in ("probability", "score")}
            for one in wanted["candidates"]
        ]
        assert told["explanation"].keys() == wanted["explanation"].keys()


def test_many_at_once_are_those_of_one_by_one(
    service: Running, linker: Linker, mentions: list[Mention]
) -> None:
    asked = [
        {"text": one.text, "mention": one.name, "k": 1 + i % 4} for i, one in enumerate(mentions)
    ]
    asked = [*asked[:20], *asked[:20]]
    for body, (status, told) in zip(asked, service.at_once(asked), strict=True):
        alone = linker.link(body["text"], mention=body["mention"], k=body["k"])
        assert status == 200
        assert [one["id"] for one in told["candidates"]] == [one.id for one in alone.candidates]


def test_odd_texts_are_linked_or_refused(service: Running) -> None:
    for text in ("\x00", " ", "", "\u202e", "a" * 10_000, "𝔍ordan 👩‍👩‍👧", "\r\n", "'; DROP TABLE"):
        for path, body in (
            ("/link", {"text": text, "mention": "Jordan"}),
            ("/link", {"text": text or "x", "span": [0, len(text or "x")]}),
            ("/link", {"text": text, "mention": text or "x", "candidates": ["none"]}),
            ("/annotate", {"text": text[:100]}),
        ):
            answer = service.http.post(path, json=body)
            assert answer.status_code in (200, 400), answer.text
        found = service.http.get(
            "/entities", params={"name": text[:1000] or "x", "text": text[:2000]}
        )
        assert found.status_code == 200, found.text


def test_what_is_added_is_linked_to(service: Running, mentions: list[Mention]) -> None:
    http, shown = service.http, Path(mentions[0].image or "").read_bytes()
    row = {"name": "Zyxwabe", "description": "A city.", "aliases": ["Zyx"], "type": "city"}
    row["image"] = base64.b64encode(shown).decode()
    put = http.put("/entities/new%2F1", json=row, headers=WRITER)
    assert put.status_code == 200, put.text
    told = {name: value for name, value in row.items() if name != "image"}
    assert put.json() == told | {"id": "new/1", "has_image": True, "popularity": None}
    assert http.get("/entities/new%2F1/image").content == shown
    linked = http.post("/link", json={"text": "We went to Zyxwabe.", "mention": "Zyxwabe"}).json()
    assert "new/1" in [one["id"] for one in linked["candidates"]]
    assert linked["kb"] == http.get("/health").json()["kb"] == http.get("/kb").json()["version"]
    found = http.get("/entities", params={"name": "Zyxwabe", "k": 1}).json()["entities"]
    answers.FoundAnswer.model_validate({"entities": found})
    assert found[0]["id"] == "new/1"
    again = {"entities": [{"id": "new/1", "name": "x"}]}
    assert http.post("/entities", json=again, headers=WRITER).status_code == 409
    twice = {"entities": [{"id": "t", "name": "x"}] * 2}
    assert http.post("/entities", json=twice, headers=WRITER).status_code == 400
    line = http.put("/entities/a%0Ab", json={"name": "x"}, headers=WRITER)
    assert (line.status_code, line.json().keys()) == (400, {"error"})
    assert http.delete("/entities/new%2F1", headers=WRITER).status_code == 200
    assert http.get("/entities/new%2F1").status_code == 404


def test_a_full_disk_while_adding_is_told_and_loses_nothing(service: Running) -> None:
    http, before = service.http, service.http.get("/kb").json()
    row = {"name": "Wabezyx", "description": "A city. " * 200}
    with full_beyond(500):
        put = http.put("/entities/full", json=row, headers=WRITER)
        many = http.post("/entities", json={"entities": [{"id": "f", **row}]}, headers=WRITER)
    for answer in (put, many):
        assert answer.status_code == 507
        assert answer.json().keys() == {"error"}
        assert "cannot be written (File too large)" in answer.json()["error"]
    assert http.get("/kb").json() == before
    assert service.alive()
    assert http.put("/entities/full", json=row, headers=WRITER).status_code == 200
    assert http.get("/entities", params={"name": "Wabezyx"}).json()["entities"][0]["id"] == "full"
    assert http.delete("/entities/full", headers=WRITER).status_code == 200
