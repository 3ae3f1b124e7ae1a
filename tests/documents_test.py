"""What README and docs tell to type is what there is, and runs."""

import functools
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.tutorial import Newcomer
from configs import common
from drin_jax.config import flat
from tests.support import documents
from tests.support.paths import ROOT

FIELDS = flat(common.get_config())
TARGETS = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
PAGES = documents.documents()
# Of the folder that documents tell to be in, or of another program's.
NOT_OURS = ("pytest", "pip", "venv", "build", "http.server")


@functools.cache
def helped(module: str) -> str:
    """What --help tells of a module."""
    command = [sys.executable, "-m", module, "--helpfull" if absl(module) else "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "Traceback" not in found.stderr, found.stderr  # absl's --helpfull ends with 1
    return found.stdout + found.stderr


@functools.cache
def absl(module: str) -> bool:
    """Whether it takes its flags by absl."""
    spec = importlib.util.find_spec(module)
    assert spec, module
    if spec.submodule_search_locations:
        spec = importlib.util.find_spec(f"{module}.__main__")
    assert spec, module
    assert spec.origin
    return "absl" in Path(spec.origin).read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_is_there_with_its_flags_and_fields(page: Path) -> None:
    for command in documents.commands(page):
        if command.module == "make":
            assert {word for word in command.words if "=" not in word} <= TARGETS, command
            continue
        if command.module.split(".")[0] in NOT_OURS:
            continue
        assert importlib.util.find_spec(command.module), command
        for word in command.words:
            if word == "--":
                break  # another program's
            flag, _, _ = word.partition("=")
            if not flag.startswith("--"):
                continue
            if flag.startswith("--config."):
                assert flag.removeprefix("--config.") in {*FIELDS, "field", "FIELD"}, command
            else:
                name = re.escape(flag.removeprefix("--"))
                pattern = rf"--(?:\[no\])?(?:no)?{name}(?![\w-])"
                assert re.search(pattern, helped(command.module)), (flag, command)


def test_the_pages_are_all_in_the_site() -> None:
    listed = set(re.findall(r"- (?:\w+: )?(\S+\.md)", (ROOT / "mkdocs.yml").read_text()))
    there = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if "docs" in page.parts}
    assert listed == there | {"reference/commands.md", "reference/config.md"}


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all newcomers: the sample's model is trained once."""
    return tmp_path_factory.mktemp("home")


@pytest.mark.documents
@pytest.mark.parametrize(
    "page", documents.pages_to_run(), ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_a_page_runs_from_top_to_bottom(page: Path, tmp_path: Path, home: Path) -> None:
    """With this tree, or what is installed in the environment that DRIN_INSTALLED names."""
    installed = os.environ.get("DRIN_INSTALLED")
    if installed:
        newcomer = Newcomer(tmp_path / "new", here=None)
        (newcomer.town / ".venv").symlink_to(Path(installed).absolute(), target_is_directory=True)
    else:
        newcomer = Newcomer(tmp_path / "new", here=tmp_path)
        (newcomer.town / "sample").unlink()  # the package's own
    newcomer.environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    for block in documents.blocks(page):
        if block.kind in documents.RUN and "pip install" not in block.text:
            newcomer.types(block.kind, block.text)
