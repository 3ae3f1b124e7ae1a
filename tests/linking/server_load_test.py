"""Many callers at once, callers that hang up or send without end, and the end of the service."""

import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is for extra serve")
pytest.importorskip("httpx", reason="its tests are for extra dev")

from tests.linking.fake_linker import BROKEN, REFUSED, FakeLinker
from tests.linking.running_server import Running, request, running

LINKED = {"text": "Jordan scored.", "mention": "Jordan"}


def told(text: str, k: int = 1) -> dict[str, Any]:
    return {"text": text, "mention": "a", "k": k}


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Its result, once it is called."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()

    def result() -> Any:
        thread.join(60)
        return results[0]

    return result


def until(true: Callable[[], bool]) -> None:
    """Wait for it, two minutes at most."""
    pause, end = threading.Event(), time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        pause.wait(0.002)


def waiting(service: Running) -> int:
    return len(service.service._linking)


def occupied(service: Running, linker: FakeLinker) -> Callable[[], list[Any]]:
    """Both of the linker's threads are held until it goes on; what they answer then."""
    linker.goes_on.clear()
    answers = []
    for number in (1, 2):
        answers.append(in_thread(lambda: service.at_once([told("first")])))
        until(lambda number=number: len(linker.begun) == number)
    return lambda: [answer for one in answers for answer in one()]


def test_200_at_once_are_answered_right_and_together() -> None:
    linker = FakeLinker()
    with running(linker) as service:
        first = occupied(service, linker)
        bodies = [told(f"text {i}", k=1 + i % 3) for i in range(200)]
        answers = in_thread(lambda: service.at_once(bodies))
        until(lambda: waiting(service) == 200)
        linker.goes_on.set()
        for body, (status, answer) in zip(bodies, answers(), strict=True):
            assert (status, answer["text"]) == (200, body["text"])
            assert len(answer["candidates"]) == body["k"]
        assert [status for status, _ in first()] == [200, 200]
        assert sorted(linker.batches) == [1, 1, 8, 64, 64, 64]


def test_one_that_fails_fails_alone() -> None:
    linker = FakeLinker()
    with running(linker) as service:
        first = occupied(service, linker)
        bodies = [told(f"text {i}") for i in range(20)]
        bodies[3], bodies[11], bodies[17] = told(REFUSED), told(BROKEN), told(BROKEN)
        answers = in_thread(lambda: service.at_once(bodies))
        until(lambda: waiting(service) == 20)
        linker.goes_on.set()
        statuses = [status for status, _ in answers()]
        wanted = [200] * 20
        wanted[3], wanted[11], wanted[17] = 400, 500, 500
        assert statuses == wanted
        first()


def test_2000_at_once_do_not_harm() -> None:
    linker = FakeLinker()
    with running(linker, queue=300) as service:
        bodies = [told(f"text {i}") for i in range(2000)]
        for body, (status, answer) in zip(bodies, service.at_once(bodies), strict=True):
            assert status in (200, 429)
            assert answer["text"] == body["text"] if status == 200 else answer.keys() == {"error"}
        assert service.alive()


def test_a_full_queue_says_when_to_come_back() -> None:
    linker = FakeLinker()
    with running(linker, queue=4, items=4, batch=4) as service:
        first = occupied(service, linker)
        queued = in_thread(lambda: service.at_once([LINKED] * 3))
        until(lambda: waiting(service) == 3)
        batch = service.http.post("/link/batch", json={"items": [LINKED] * 2})
        assert (batch.status_code, batch.headers["retry-after"]) == (429, "1")
        assert batch.json() == {"error": "too many requests; come back later"}
        assert waiting(service) == 3
        assert service.http.get("/health").status_code == 200
        linker.goes_on.set()
        assert [status for status, _ in first() + queued()] == [200] * 5


def test_a_long_text_does_not_hold_up_mentions() -> None:
    linker = FakeLinker()
    with running(linker) as service:
        linker.reads_on.clear()
        text = in_thread(lambda: service.http.post("/annotate", json={"text": "Long"}))
        assert [status for status, _ in service.at_once([LINKED] * 10)] == [200] * 10
        linker.reads_on.set()
        assert len(text().json()["mentions"]) == 1


def test_who_hangs_up_leaves_the_queue() -> None:
    linker = FakeLinker()
    with running(linker, queue=8, items=8, batch=8) as service:
        first = occupied(service, linker)
        for _ in range(4):
            with socket.create_connection(service.place) as gone:
                gone.sendall(request("/link", json.dumps(LINKED).encode()))
                until(lambda: waiting(service) > 0)
            until(lambda: waiting(service) == 0)
        linker.goes_on.set()
        assert [status for status, _ in first()] == [200, 200]
        assert service.alive()
        assert linker.batches == [1, 1, 1]


def test_too_much_is_refused_before_it_is_read() -> None:
    with running(FakeLinker(), body=10_000) as service:
        head = request("/link", b"", "Connection: close").replace(b"Length: 0", b"Length: 9000000")
        status, answer = service.raw(head)
        assert (status, json.loads(answer)["error"]) == (413, "the body has more than 10,000 bytes")
        head = head.replace(b"Content-Length: 9000000", b"Transfer-Encoding: chunked")
        chunk = b"3e8\r\n" + b" " * 1000 + b"\r\n"
        assert service.raw(head + chunk * 11)[0] == 413
        form = head.replace(b"application/json", b"multipart/form-data; boundary=b")
        part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        start = b"%x\r\n" % len(part) + part + b"\r\n"
        assert service.raw(form + start + chunk * 11)[0] == 413
        assert service.http.post("/link", content=b" " * 9_999).status_code == 415
        assert service.http.post("/nowhere", content=b" " * 20_000).status_code == 413
        assert service.alive()


def test_bodies_that_fill_the_memory_together_are_refused() -> None:
    """Each is small enough, and none comes to its end."""
    with running(FakeLinker(), body=1000) as service:
        part = request("/link", b" " * 1000)[:-1]
        callers = [socket.create_connection(service.place) for _ in range(64)]
        try:
            for caller in callers:
                caller.sendall(part)
            until(lambda: service.raw(part)[0] == 429)
        finally:
            for caller in callers:
                caller.close()
        until(service.alive)


def test_half_a_body() -> None:
    with running(FakeLinker(), patience=0.2) as service:
        body = json.dumps(LINKED).encode()
        status, answer = service.raw(request("/link", body)[:-5])
        assert (status, json.loads(answer)["error"]) == (408, "the body did not arrive in time")
        with socket.create_connection(service.place) as gone:
            gone.sendall(request("/link", body)[:-5])
        assert service.alive()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00" * 1000 + b"\r\n\r\n",
        b"GET / HTML/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"A: b\r\n" * 100_000,
        b"GET /" + b"a" * 1_000_000,
        b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 1_000_000,
        b"POST /link HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /link HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST /link HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
    ],
    ids=range(8),
)
def test_what_is_no_http_is_refused(sent: bytes) -> None:
    with running(FakeLinker(), patience=1) as service:
        try:
            status, answer = service.raw(sent)
        except ConnectionError:  # it was closed while this was still sent
            status, answer = 400, b""
        assert status in (400, 408, 413)
        assert b"Traceback" not in answer
        assert service.alive()


def test_what_was_taken_is_finished() -> None:
    linker = FakeLinker()
    with running(linker, batch=4, items=4) as service:
        first = occupied(service, linker)
        queued = in_thread(lambda: service.at_once([told(f"text {i}") for i in range(9)]))
        until(lambda: waiting(service) == 9)
        service.stop()

        def closed() -> bool:
            try:
                socket.create_connection(service.place).close()
            except ConnectionError:
                return True
            return False

        until(closed)
        linker.goes_on.set()
        assert [status for status, _ in first() + queued()] == [200] * 11
    assert sorted(linker.batches) == [1, 1, 1, 4, 4]


def test_health_tells_that_it_stops() -> None:
    with running(FakeLinker()) as service:
        assert service.http.get("/health").json() == {
            "status": "ok",
            "model": "fake",
            "kb": "1-fake",
        }
        service.service.stopping = True
        assert service.http.get("/health").status_code == 503
