"""The pictures of the site, made by the product.

    python -m docs.reference.pictures --run=runs/sample

A linked mention and the linker's page come of the model `sample`, the case study and the
reliability plot of a finished run on the sample with pictures. The page needs the extras `serve`
and `dev`, and a Chromium; without one the rest is made.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PICTURES = Path(__file__).parents[1] / "pictures"
PORT = 8931


def main() -> None:
    """Make them."""
    parser = argparse.ArgumentParser("python -m docs.reference.pictures", description=__doc__)
    parser.add_argument("--run", required=True, type=Path, help="a finished run on the sample")
    args = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        mention, image = a_mention(Path(folder))
        linked(mention, image)
        page(image)
    explain = [sys.executable, "-m", "drin_jax.explain", f"--workdir={args.run}"]
    subprocess.run([*explain, "--mention=random", f"--out={PICTURES / 'case.svg'}"], check=True)
    shutil.copy(args.run / "calibration.svg", PICTURES / "calibration.svg")


def a_mention(folder: Path) -> tuple[dict[str, str], Path]:
    """A short test mention of the sample with a picture, and the picture."""
    command = [sys.executable, "-m", "data_pipeline.sample", f"--root={folder}"]
    subprocess.run(command, check=True)
    lines = map(json.loads, (folder / "mentions.jsonl").read_text(encoding="utf-8").splitlines())
    found = [one for one in lines if one["split"] == "test" and one["image"] and one["start"]]
    mention = min(found, key=lambda one: len(one["text"]))
    return mention, folder / mention["image"]


def linked(mention: dict[str, str], image: Path) -> None:
    """The mention, its candidates, and the relations between them."""
    from drin_jax import Linker

    linker = Linker.from_pretrained("sample")
    answer = linker.link(mention["text"], (mention["start"], mention["end"]), image=image)
    (PICTURES / "linked.svg").write_text(answer.explain("svg"), encoding="utf-8")


def page(image: Path) -> None:
    """The linker's page with an answer, where there is a browser."""
    from tests.support import browser

    if browser.missing():
        print(browser.missing())
        return
    command = [sys.executable, "-m", "drin_jax.serve", "--model=sample", f"--port={PORT}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout
        service.stdout.readline()  # it is there
        with browser.browser() as chromium:
            shown = chromium.new_page(viewport={"width": 1100, "height": 900})
            shown.goto(f"http://127.0.0.1:{PORT}/")
            shown.locator("#examples button").first.click()
            shown.locator("input[type=file]").first.set_input_files(image)
            shown.locator("#link").click()
            shown.locator("#graph svg").first.wait_for()
            shown.screenshot(path=PICTURES / "page.png", full_page=True)
        service.terminate()


if __name__ == "__main__":
    main()
