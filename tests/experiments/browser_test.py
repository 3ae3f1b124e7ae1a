"""The report in a real browser: it opens alone, asks for nothing, and fits a narrow window."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from drin_jax.experiments import suite_report
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
  document.body.dataset.found = JSON.stringify({
    sticksOut: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    plots: [...document.images].map(i => i.naturalWidth * i.getBoundingClientRect().height),
    requests: performance.getEntriesByType('resource').map(e => e.name)
      .filter(n => !n.startsWith('data:')),
  });
});
</script>
"""


@pytest.mark.parametrize("width", [500, 1280])  # a browser's own window is no narrower
def test_the_page_opens_alone(width: int, tmp_path: Path) -> None:
    assert BROWSER is not None
    hostile = '<img src="http://example.invalid/x.png"><script>document.title = 1</script>'
    page, _ = suite_report.write(results("table2", hostile=hostile, seeds=2), tmp_path)
    page.write_text(page.read_text().replace("</body>", f"{PROBE}</body>"))
    done = subprocess.run(
        [
            *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *(
                "--enable-logging=stderr",
                "--virtual-time-budget=3000",
                f"--window-size={width},900",
            ),
            # No name resolves: what the page would fetch fails, and is told on the console.
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"),
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    assert "<title>Systems: sample world&lt;img" in done.stdout
    told = re.search(r'data-found="([^"]*)"', done.stdout)
    assert told is not None
    found = json.loads(unescape(told.group(1)))
    assert found["requests"] == []
    assert found["sticksOut"] <= 0
    assert len(found["plots"]) == 4
    assert all(size > 0 for size in found["plots"])
