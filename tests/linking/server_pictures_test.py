"""Pictures and forms that callers send: what is taken, and what is refused before it is decoded."""

import zlib
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is for extra serve")
pytest.importorskip("httpx", reason="its tests are for extra dev")

from PIL import Image

from tests.linking.fake_linker import FakeLinker
from tests.linking.running_server import WRITER, Running, running
from tests.linking.sent_pictures import in_base64, picture

LINKED = {"text": "Yesterday Jordan scored.", "mention": "Jordan"}


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with running(FakeLinker(), text=1000, body=200_000, pixels=10_000, items=8) as one:
        yield one


def animation() -> bytes:
    frame = Image.new("RGB", (16, 16))
    return picture("GIF", save_all=True, append_images=[frame])


def bomb() -> bytes:
    """A PNG whose header claims 60,000 x 60,000 pixels."""
    data = bytearray(picture())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def webp_bomb() -> bytes:
    """A WebP whose frame claims 16,383 x 16,383 pixels."""
    data = bytearray(picture("WEBP"))
    size = data.index(b"\x9d\x01\x2a") + 3
    data[size : size + 4] = (16_383).to_bytes(2, "little") * 2
    return bytes(data)


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        ("/etc/passwd", "image is not base64 of a picture; paths and addresses are not read"),
        ("http://127.0.0.1/a.png", "image is not base64"),
        ("file:///etc/passwd", "image is not base64"),
        ("data:image/png;base64,AAAA", "image is not base64"),
        ("ü", "image is not base64"),
        ("AAA", "image is not base64"),
        (7, "image has to be a string"),
        (["a"], "image has to be a string"),
        (b"", "image is not a picture"),
        (b"\x00" * 100, "image is not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image is not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image is not a picture"),
        (picture()[:20], "image is not a picture"),
        (picture(size=(101, 100)), "image has 101 x 100 pixels; at most 10,000 are taken"),
        (bomb(), "image has more than 10,000 pixels"),
        (webp_bomb(), "image has more than 10,000 pixels"),
        (animation(), "image is animated"),
    ],
    ids=lambda value: value[:24].replace("/", "_") if isinstance(value, str) else "bytes",
)
def test_what_is_no_picture_is_refused(service: Running, shown: Any, told: str) -> None:
    sent = in_base64(shown) if isinstance(shown, bytes) else shown
    answer = service.http.post("/link", json={**LINKED, "image": sent})
    assert answer.status_code == 400, answer.text
    assert told in answer.json()["error"]
    if isinstance(shown, bytes) and shown:
        form = service.http.post("/link", data=LINKED, files={"image": ("a.png", shown)})
        assert (form.status_code, form.json()) == (400, answer.json())
        row = {"name": "x", "image": sent}
        put = service.http.put("/entities/P1", json=row, headers=WRITER)
        assert (put.status_code, put.json()) == (400, answer.json())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_pictures_are_taken(service: Running, kind: str) -> None:
    answer = service.http.post("/link", json={**LINKED, "image": in_base64(picture(kind))})
    assert answer.status_code == 200, answer.text


def form_of(*parts: bytes, kind: str = "multipart/form-data; boundary=b") -> dict[str, Any]:
    body = b"".join(b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts)
    return {"content": body + b"--b--\r\n", "headers": {"Content-Type": kind}}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"content": b"{}"}, 415),
        ({"content": b"{}", "headers": {"Content-Type": "text/plain"}}, 415),
        ({"content": b"{}", "headers": {"Content-Type": b"\xff"}}, 415),
        ({"data": LINKED}, 415),
        (form_of(kind="multipart/form-data; boundary=b; charset=punycode"), 415),
        (form_of(kind="multipart/form-data"), 400),
        (form_of(), 400),
        (form_of(b'name="text"\r\n\r\na'), 400),
        (form_of(b'name="text"\r\n\r\na', b'name="text"\r\n\r\na'), 400),
        (form_of(b'name="text"\r\n\r\na', b'name="who"\r\n\r\na'), 400),
        (form_of(b'name="text"; filename="a"\r\n\r\na'), 400),
        (form_of(b'name="text"\r\n\r\na', b'name="span"\r\n\r\n1-2'), 400),
        (form_of(b'name="text"\r\n\r\na', b'name="k"\r\n\r\nmany'), 400),
        (form_of(b'name="text"\r\n\r\na', b'name="image"\r\n\r\n/etc/passwd'), 400),
        (form_of(b"no name\r\n\r\na"), 400),
        (form_of(*[b'name="text"\r\n\r\na'] * 100), 400),
        ({**form_of(), "content": b"--b\r\n" + b"x" * 1000}, 400),
        ({**form_of(), "content": b"\x00" * 1000}, 400),
        (form_of(b'name="text"\r\n\r\n\xff', b'name="mention"\r\n\r\n\xff'), 200),
    ],
)
def test_odd_forms(service: Running, sent: dict[str, Any], status: int) -> None:
    answer = service.http.post("/link", **sent)
    assert answer.status_code == status, answer.text
    assert status == 200 or answer.json().keys() == {"error"}
