"""The report in a real browser: it opens alone, asks for nothing, and fits a telephone."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from drin_jax.experiments import page
from tests.support.suite_results import results

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"no browser on PATH ({', '.join(BROWSERS)}); apt install chromium"
)

# Run inside the page by the test alone: what is drawn, what sticks out, and what was fetched.
PROBE = """
<script>
addEventListener('load', () => {
  const wide = document.documentElement.clientWidth;
  const inside = (e) => e.parentElement && (getComputedStyle(e.parentElement).overflowX === 'auto'
    || inside(e.parentElement));
  const out = {
    width: wide, scroll: document.documentElement.scrollWidth,
    plots: [...document.querySelectorAll('svg')].map(s => {
      const box = s.getBoundingClientRect(); return [box.width, box.height]; }),
    overflowing: [...document.body.querySelectorAll('*')].filter(e =>
      !e.closest('svg') && !inside(e) && e.getBoundingClientRect().right > wide + 1)
      .map(e => e.tagName + '.' + e.className),
    requests: performance.getEntriesByType('resource').map(e => e.name),
    rows: document.querySelectorAll('#table-test-all-end_to_end tbody tr').length,
    figures: getComputedStyle(document.querySelector('td.number')).fontVariantNumeric,
    ink: getComputedStyle(document.body).color,
    paper: getComputedStyle(document.body).backgroundColor,
  };
  parent.postMessage(JSON.stringify(out), '*');
});
</script>
"""
# A browser's own window is 500 pixels wide or more; a frame can be as narrow as a telephone.
FRAMES = """<!doctype html><body data-found="[]"><script>
const found = [];
addEventListener('message', (m) => {
  found.push(JSON.parse(m.data)); document.body.dataset.found = JSON.stringify(found); });
</script>
"""


def browse(path: Path, folder: Path, *flags: str) -> tuple[str, str]:
    """The document after scripts ran, and what the browser wrote on its console."""
    assert BROWSER is not None
    done = subprocess.run(
        [
            *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            "--hide-scrollbars",  # or a frame is narrower than it is
            *("--enable-logging=stderr", "--virtual-time-budget=3000", *flags),
            # No name resolves: what the page would fetch fails, and is told on the console.
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}"),
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def look(folder: Path, *flags: str) -> list[dict[str, Any]]:
    """What the probe finds in the page at 400 and at 1280 pixels, narrow first."""
    probed = (folder / "report.html").read_text().replace("</body>", f"{PROBE}</body>")
    frames = [
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{escape(probed)}"></iframe>'
        for width in (400, 1280)
    ]
    harness = folder / "frames.html"
    harness.write_text(FRAMES + "".join(frames))
    dom, console = browse(harness, folder, "--window-size=1400,1000", *flags)
    assert console == ""
    told = re.search(r'data-found="([^"]*)"', dom)
    assert told is not None
    return sorted(json.loads(unescape(told.group(1))), key=lambda found: found["width"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    hostile = '<img src="http://example.invalid/x.png"><script>document.title = 1</script>'
    page.write(results("table2", hostile=hostile, seeds=2), folder)
    return folder


def test_the_page_opens_alone(folder: Path) -> None:
    dom, console = browse(folder / "report.html", folder)
    assert console == ""
    assert dom.count("<svg") == 4
    assert "<title>Systems: sample world&lt;img" in dom


def test_plots_are_drawn_and_nothing_sticks_out(folder: Path) -> None:
    found = look(folder)
    assert [one["width"] for one in found] == [400, 1280]
    for one in found:
        assert one["overflowing"] == []
        assert one["scroll"] == one["width"]
        assert one["requests"] == []
        assert len(one["plots"]) == 4
        assert all(width > 300 and height > 100 for width, height in one["plots"])
        assert one["rows"] == 8
        assert "tabular-nums" in one["figures"]


def test_dark_is_dark(folder: Path) -> None:
    def brightness(colour: str) -> float:
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

    light, dark = (
        look(folder, *flags)[0] for flags in ((), ("--blink-settings=preferredColorScheme=0",))
    )
    assert brightness(light["paper"]) > 200 > 100 > brightness(light["ink"])
    assert brightness(dark["ink"]) > 200 > 100 > brightness(dark["paper"])
