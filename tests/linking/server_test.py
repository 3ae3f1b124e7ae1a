"""What the service answers, request by request."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is for extra serve")
pytest.importorskip("httpx", reason="its tests are for extra dev")

from drin_jax.linking.server import answers, page_routes
from tests.linking.fake_linker import BROKEN, REFUSED, SECRET, FakeLinker
from tests.linking.running_server import JSON, Running, request, running
from tests.linking.sent_pictures import in_base64, picture

TEXT = "Yesterday Jordan scored."
LINKED = {"text": TEXT, "mention": "Jordan"}


@pytest.fixture(scope="module")
def linker() -> FakeLinker:
    return FakeLinker()


@pytest.fixture(scope="module")
def service(linker: FakeLinker) -> Iterator[Running]:
    with running(linker, text=1000, body=200_000, items=8) as one:
        yield one


@pytest.mark.parametrize(
    "asked", [{"span": [10, 16]}, {"mention": "Jordan"}, {"span": [10, 16], "mention": "Jordan"}]
)
def test_a_mention_is_linked(service: Running, asked: dict[str, Any]) -> None:
    answer = service.http.post("/link", json={"text": TEXT, **asked, "k": 3})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["text"], told["mention"], told["span"]) == (TEXT, "Jordan", asked.get("span"))
    assert [one["id"] for one in told["candidates"]] == ["Q0", "Q1", "Q2"]
    assert "explanation" not in told
    answers.LinkAnswer.model_validate(told)


def test_an_explanation_is_of_the_candidates_that_are_told(service: Running) -> None:
    told = service.http.post("/link", json={**LINKED, "k": 2, "explain": True}).json()
    assert [one["id"] for one in told["explanation"]["candidates"]] == ["Q0", "Q1"]
    answers.LinkAnswer.model_validate(told)


def test_a_form_is_what_json_is(service: Running, linker: FakeLinker) -> None:
    shown = picture("JPEG")
    fields = {"text": TEXT, "span": "10:16", "k": "2", "explain": "true", "candidates": "Q1, a/b"}
    form = service.http.post("/link", data=fields, files={"image": ("x.png", shown)})
    same = {"span": [10, 16], "k": 2, "explain": True, "candidates": ["Q1", "a/b"]}
    body = {"text": TEXT, "image": in_base64(shown), **same}
    assert form.status_code == 200, form.text
    assert form.json() == service.http.post("/link", json=body).json()
    assert linker.pictures[-2:] == [shown, shown]
    left_out = {"text": (None, TEXT), "mention": (None, "J"), "span": (None, "")}
    assert service.http.post("/link", files=left_out).status_code == 200
    found = service.http.post("/annotate", files={"text": (None, TEXT)}).json()
    assert len(found["mentions"]) == 2


def test_a_batch_keeps_its_order(service: Running) -> None:
    items: list[dict[str, Any]] = [{"text": f"{i}", "mention": f"{i}"} for i in range(8)]
    items[3] |= {"k": 1, "explain": True}
    told = service.http.post("/link/batch", json={"items": items, "k": 2}).json()["results"]
    assert [one["text"] for one in told] == [str(i) for i in range(8)]
    assert [len(one["candidates"]) for one in told] == [2, 2, 2, 1, 2, 2, 2, 2]
    assert ["explanation" in one for one in told] == [i == 3 for i in range(8)]
    assert service.http.post("/link/batch", json={"items": []}).json() == {"results": []}
    items[5]["text"] = REFUSED
    answer = service.http.post("/link/batch", json={"items": items})
    assert (answer.status_code, answer.json()) == (400, {"error": "items[5]: refused"})


def test_a_text_is_annotated(service: Running) -> None:
    told = service.http.post("/annotate", json={"text": TEXT, "k": 1, "explain": True}).json()
    assert told["text"] == TEXT
    assert [one["span"] for one in told["mentions"]] == [[0, 1], [10, 11]]
    answers.AnnotateAnswer.model_validate(told)


DEEP = b"[" * 100_000
MILLION = b'{"text":"a","mention":"a",' + b",".join(b'"%d":1' % i for i in range(20_000)) + b"}"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (DEEP, "recursion limit"),
        (b'{"text": "\\ud800", "mention": "a"}', "no JSON"),
        (b'{"text": "a\x00", "mention": "a"}', "no JSON"),
        (b'{"text": "a", "mention": "a", "k": NaN}', "no JSON"),
        (b'{"text": "a", "mention": "a", "k": ' + b"9" * 5000 + b"}", "no JSON"),
        (b"[1]", "the body has to be a JSON object"),
        (b"null", "the body has to be a JSON object"),
        (b"{}", "text: Field required"),
        (b'{"text": "a"}', "give span or mention"),
        (b'{"text": 1, "mention": "a"}', "text: Input should be a valid string"),
        (b'{"text": "a", "mention": ""}', "mention: String should have at least 1"),
        (b'{"text": "a", "span": [0]}', "span: List should have at least 2"),
        (b'{"text": "a", "span": [0, 2]}', "span 0:2 is not in the text of 1 characters"),
        (b'{"text": "a", "span": [1, 1]}', "span 1:1 is not in the text"),
        (b'{"text": "a", "span": [-1, 1]}', "span[0]: Input should be greater"),
        (b'{"text": "a", "span": [0, ' + b"9" * 300 + b"]}", "is not in the text"),
        (b'{"text": "a", "span": [0, 1.5]}', "span[1]: Input should be a valid integer"),
        (b'{"text": "a", "span": ["0", 1]}', "span[0]: Input should be a valid integer"),
        (b'{"text": "a", "mention": "a", "k": 0}', "k: Input should be greater"),
        (b'{"text": "a", "mention": "a", "k": -5}', "k: Input should be greater"),
        (b'{"text": "a", "mention": "a", "k": 101}', "k: Input should be less"),
        (b'{"text": "a", "mention": "a", "k": true}', "k: Input should be a valid integer"),
        (b'{"text": "a", "mention": "a", "explain": "yes"}', "explain: Input should be a valid"),
        (b'{"text": "a", "mention": "a", "candidates": []}', "candidates: List should have"),
        (b'{"text": "a", "mention": "a", "candidates": [1]}', "candidates[0]: Input should"),
        (b'{"text": "a", "mention": "a", "explian": true}', "'explian' is no field; there are"),
        (MILLION, "'0' is no field"),
        (b'{"text": "' + b"a" * 1001 + b'", "mention": "a"}', "text has 1,001 characters"),
    ],
)
def test_a_mistake_is_told_in_one_line(service: Running, body: bytes, told: str) -> None:
    answer = service.http.post("/link", content=body, headers=JSON)
    assert answer.status_code == 400, answer.text
    assert answer.json().keys() == {"error"}
    assert told in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert len(answer.json()["error"]) < 1000


def test_the_last_of_two_equal_keys_counts(service: Running) -> None:
    body = b'{"text": "a", "mention": "b", "mention": "a"}'
    assert service.http.post("/link", content=body, headers=JSON).json()["mention"] == "a"


def test_a_batch_tells_which_item_is_wrong(service: Running) -> None:
    good = {"text": "a", "mention": "a"}
    for items, told in (
        ([good, {}], "items[1].text: Field required"),
        ([good, {**good, "image": "x"}], "items[1] 'image' is no field"),
        ([good] * 9, "items has 9 items; at most 8 are taken"),
        ([good] * 1001, "items: List should have at most 1000"),
        ([{}] * 60_000, "items[0].text: Field required"),
    ):
        answer = service.http.post("/link/batch", json={"items": items})
        assert answer.status_code == 400
        assert told in answer.json()["error"]


def test_a_secret_of_the_machine_stays_there(
    service: Running, caplog: pytest.LogCaptureFixture
) -> None:
    broken = {"text": BROKEN, "mention": "a"}
    for path, body in (
        ("/link", broken),
        ("/link/batch", {"items": [broken, LINKED]}),
        ("/annotate", {"text": BROKEN}),
    ):
        caplog.clear()
        answer = service.http.post(path, json=body)
        assert (answer.status_code, answer.json()) == (500, {"error": "internal error"})
        assert "nosniff" in answer.headers["x-content-type-options"]
        assert SECRET in caplog.text


def test_addresses_and_methods_that_are_none(service: Running) -> None:
    assert service.http.get("/nowhere").json() == {"error": "there is no such address"}
    answer = service.http.delete("/link")
    assert (answer.status_code, answer.json()) == (405, {"error": "DELETE is not taken here"})
    assert service.http.request("BREW", "/link").status_code == 405
    for name in ("../app.py", "%2e%2e/app.py", "..%2fapp.py", "/etc/passwd", "", ".", "%00"):
        for below in ("/static/", "/docs/"):
            status, told = service.raw(request(below + name, b"", method="GET"))
            assert (status, json.loads(told).keys()) == (404, {"error"}), name


def test_every_answer_is_guarded(service: Running) -> None:
    for path in ("/health", "/nowhere", "/docs"):
        headers = service.http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]


def test_the_reference_needs_nobody_else(service: Running) -> None:
    page = service.http.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for name, kind in (("reference.js", "text/javascript"), ("reference.css", "text/css")):
        assert f'"docs/{name}"' in page.text
        answer = service.http.get(f"/docs/{name}")
        assert answer.headers["content-type"].startswith(kind)
        assert "//" not in answer.text.replace("// ", "")
    assert "http" not in page.text


def test_the_page_is_served_whole(service: Running) -> None:
    files = page_routes.files_of(page_routes.HERE / "page")
    for name, path in files.items():
        address = "/" if name == "index.html" else f"/static/{name}"
        assert service.http.get(address).content == path.read_bytes()
    if not files:
        assert service.http.get("/").status_code == 404


def test_openapi_tells_all(service: Running) -> None:
    api = service.http.get("/openapi.json").json()
    told = {(method, path) for path, methods in api["paths"].items() for method in methods}
    assert told == {
        *(("post", path) for path in ("/link", "/link/batch", "/annotate", "/entities")),
        *(("get", path) for path in ("/entities", "/entities/{id}", "/entities/{id}/image")),
        *(("get", path) for path in ("/kb", "/health", "/metrics")),
        *((method, "/entities/{id}") for method in ("put", "delete")),
    }
    assert "422" not in json.dumps(api)
    assert api["components"]["schemas"]["LinkBody"]["properties"]["text"]["maxLength"] == 1000
    for path, methods in api["paths"].items():
        for method, one in methods.items():
            assert ("requestBody" in one) == (method in ("post", "put")), path


def test_metrics_count(service: Running) -> None:
    def value(name: str) -> float:
        lines = service.http.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith(name + " ")).split()[-1])

    linked = 'drin_jax_requests_total{method="POST",path="/link",status="200"}'
    service.http.post("/link", json=LINKED)
    names = (linked, "drin_jax_mentions_total", "drin_jax_batch_size_sum")
    before = [value(name) for name in names]
    service.http.post("/link", json=LINKED)
    assert [value(name) for name in names] == [one + 1 for one in before]
    assert value("drin_jax_queue_length") == 0
    assert value("drin_jax_kb_entities") > 100
    assert value("drin_jax_kb_generation") >= 1
    service.http.get("/entities/Q1")
    assert value('drin_jax_requests_total{method="GET",path="/entities/{id}",status="200"}') >= 1
