"""The site: built strictly, whole, and shown without anything from elsewhere."""

import contextlib
import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("zensical", reason="the site is for extra docs")

from tests.support import browser
from tests.support.paths import ROOT

PAGES = ("", "tutorial/first_link/", "reference/library/", "reference/config/", "model/")


def tree(folder: Path) -> Path:
    """What the site is built from, with a `docs` of its own."""
    folder.mkdir()
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    for name in ("drin_jax", "data_pipeline", "configs"):
        (folder / name).symlink_to(ROOT / name, target_is_directory=True)
    return folder


def built(folder: Path) -> subprocess.CompletedProcess[str]:
    """`make docs`, but for its installing."""
    for command in (["docs.reference.make"], ["zensical", "build", "--strict", "--clean"]):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True
        )
        if done.returncode:
            break
    return done


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tree(tmp_path_factory.mktemp("site") / "tree")
    done = built(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "griffe" not in done.stdout + done.stderr  # a docstring that does not fit its code
    return folder / "build" / "site"


def test_every_page_is_there_and_what_is_generated_is_in_it(site: Path) -> None:
    pages = {page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")}
    for page in pages - {Path("index.md")}:
        assert (site / page.with_suffix("") / "index.html").exists(), page
    config = (site / "reference/config/index.html").read_text()
    assert "train.learning_rate" in config
    assert "drin-jax kb build" in (site / "reference/commands/index.html").read_text()
    library = (site / "reference/library/index.html").read_text()
    for name in re.findall(
        r"^::: ([\w.]+)$", (ROOT / "docs/reference/library.md").read_text(), re.M
    ):
        assert f'id="{name}"' in library, name
    assert (site / "model/index.html").read_text().count("<math") >= 10


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        ("model.md", "[lost](nowhere.md)"),
        ("model.md", "[lost](protocol.md#nowhere)"),
        ("reference/library.md", "::: drin_jax.linking.linker.Nobody"),
    ],
)
def test_what_leads_nowhere_fails(tmp_path: Path, page: str, wrong: str) -> None:
    folder = tree(tmp_path / "tree")
    with (folder / "docs" / page).open("a") as file:
        file.write(f"\n{wrong}\n")
    assert built(folder).returncode != 0


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.mark.skipif(bool(browser.missing()), reason=browser.missing())
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_reads_without_a_network(address: str, tmp_path: Path, width: int, scheme: str) -> None:
    with browser.browser() as chromium, contextlib.ExitStack() as stack:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        stack.callback(context.close)
        shown = context.new_page()
        asked: list[str] = []
        errors: list[str] = []
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("pageerror", lambda error: errors.append(str(error)))
        shown.on(
            "response", lambda answer: errors.append(answer.url) if answer.status >= 400 else None
        )
        for page in PAGES:
            shown.goto(address + page)
            shown.locator("h1").first.wait_for()
            shown.screenshot(path=browser.artefacts(tmp_path) / f"{page.replace('/', '_')}.png")
            wide = shown.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, (page, wide)
        assert [one for one in asked if not one.startswith((address, "data:", "blob:"))] == []
        assert errors == []
