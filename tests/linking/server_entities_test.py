"""The knowledge base over HTTP: entities that are read, added and removed, and by whom."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the service is for extra serve")
pytest.importorskip("httpx", reason="its tests are for extra dev")

from PIL import Image

from data_pipeline.schema import Entity
from drin_jax.linking.server import answers
from tests.linking.fake_linker import REFUSED, FakeLinker
from tests.linking.running_server import TOKEN, WRITER, Running, running
from tests.linking.sent_pictures import in_base64, picture


@pytest.fixture(scope="module")
def linker() -> FakeLinker:
    return FakeLinker()


@pytest.fixture(scope="module")
def service(linker: FakeLinker) -> Iterator[Running]:
    with running(linker) as one:
        yield one


def test_a_life_of_an_entity(service: Running) -> None:
    http, row = service.http, {"name": "New", "aliases": ["N"], "popularity": 2.5}
    before = http.get("/kb").json()
    answers.BaseAnswer.model_validate(before)
    put = http.put("/entities/N%2F1", json=row, headers=WRITER)
    assert put.status_code == 200, put.text
    assert put.json() == {"id": "N/1", "description": "", "type": "", "has_image": False, **row}
    assert http.get("/entities/N%2F1").json() == put.json()
    rows = {"entities": [{"id": "N2", **row}, {"id": "N/1", **row}]}
    refused = http.post("/entities", json=rows, headers=WRITER)
    assert (refused.status_code, refused.json()["error"]) == (
        409,
        "there is an entity 'N/1'; nothing was added",
    )
    assert http.get("/entities/N2").status_code == 404
    added = http.post("/entities", json={**rows, "update": True}, headers=WRITER)
    assert added.json() == {"entities": 2, "kb": http.get("/health").json()["kb"]}
    for name in ("N%2F1", "N2"):
        assert http.delete(f"/entities/{name}", headers=WRITER).json()["entities"] == 1
        again = http.delete(f"/entities/{name}", headers=WRITER)
        assert (again.status_code, again.json().keys()) == (404, {"error"})
    after = http.get("/kb").json()
    assert (before["entities"], before["writable"]) == (after["entities"], True)
    bad = http.put("/entities/N3", json={"name": REFUSED}, headers=WRITER)
    assert (bad.status_code, bad.json()) == (400, {"error": "refused"})
    found = http.get("/entities", params={"name": "x", "k": 2}).json()
    answers.FoundAnswer.model_validate(found)
    assert len(found["entities"]) == 2
    assert http.get("/entities", params={"name": "x", "k": 0}).status_code == 400


def test_a_cut_picture_is_not_added(service: Running) -> None:
    cut = picture(size=(90, 90))[:-200]
    answer = service.http.put(
        "/entities/N4", json={"name": "x", "image": in_base64(cut)}, headers=WRITER
    )
    assert (answer.status_code, answer.json()["error"]) == (
        400,
        "the picture of 'N4' cannot be taken: cut or damaged",
    )


def test_who_may_write(service: Running) -> None:
    asks = [
        ("PUT", "/entities/Q1", {"name": "x"}),
        ("POST", "/entities", {"entities": [{"id": "Q1", "name": "x"}]}),
        ("DELETE", "/entities/Q1", None),
    ]
    given = (
        "Bearer",
        "Bearer x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Basic {TOKEN}",
        "ü",
    )
    wrong = [{}, *({"Authorization": one.encode()} for one in given)]
    for method, path, body in asks:
        for headers in wrong:
            answer = service.http.request(method, path, json=body, headers=headers)
            assert answer.status_code == 401, (headers, answer.text)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert TOKEN not in answer.text
    with running(FakeLinker(), token="") as closed:
        for method, path, body in asks:
            answer = closed.http.request(method, path, json=body, headers=WRITER)
            assert (answer.status_code, answer.json().keys()) == (403, {"error"})
        assert not closed.http.get("/kb").json()["writable"]


def test_pictures_of_entities(service: Running, linker: FakeLinker, tmp_path: Path) -> None:
    for kind, media in (
        *(("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")),
        *(("TIFF", "image/png"), ("BMP", "image/png")),
    ):
        path = tmp_path / kind
        path.write_bytes(picture(kind))
        linker.kb.held["I/1"] = Entity("I/1", "x", "", str(path))
        answer = service.http.get("/entities/I%2F1/image")
        assert answer.headers["content-type"] == media
        same = media == f"image/{kind.lower()}"
        assert (answer.content == path.read_bytes()) == same
        assert Image.open(io.BytesIO(answer.content)).size == (16, 16)
    path.write_text("no picture")
    assert service.http.get("/entities/I%2F1/image").status_code == 404
    path.unlink()
    assert service.http.get("/entities/I%2F1/image").status_code == 404
    assert service.http.get("/entities/Q1/image").status_code == 404
    assert service.http.get("/entities/I%2F1").json()["has_image"]
    del linker.kb.held["I/1"]
