"""The tutorial: what it tells to type is what is run, and runs."""

import re
import shutil

import pytest

from benchmarks import tutorial
from tests.support import linkers
from tests.support.paths import ROOT

DOCUMENT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
PLACE = "<!-- end of output -->"


def test_nothing_is_told_that_is_not_run():
    shown = re.findall(r"```(?:sh|python)\n(.*?)\n```", DOCUMENT, re.DOTALL)
    steps = tutorial.steps_of(DOCUMENT)
    assert [step.shown for step in steps] == shown
    assert "pip install" in steps[0].shown
    assert steps[1].shown.startswith("drin-jax link --model=sample")
    assert all(step.wanted for step in steps[1:])


def test_what_it_shows_is_what_was_wanted():
    for match in tutorial.TYPED.finditer(DOCUMENT):
        printed = match[0].partition("-->")[2]
        for wanted in match["wanted"].splitlines():
            assert re.search(wanted, printed, re.MULTILINE), match["shown"]
        assert match["kind"] == "python" or re.search(r"^\(\d+\.\d s\)$", printed, re.MULTILINE)
    assert "first answer: " in tutorial.MEASURED.search(DOCUMENT)[0]


def test_its_commands_run_as_they_stand_there(tmp_path, monkeypatch):
    """But for those that start another process for what the Python does, too."""
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    other = r"```sh\n[^`]*--(?:explain|k=2)[^`]*```"
    done = tutorial.follow(re.sub(other, "", DOCUMENT), tmp_path / "new", linkers.trained())
    first, search, linked, added, saved, unsure = (one.output for one in done)
    assert re.search(r"1 │ .*│ .*\n.*\n", first)
    assert "1 │ rosa-bakery" in search
    assert re.search(r"^rosa-\w+ Rosa [\d.]+ (True|False)$", linked, re.MULTILINE)
    assert re.search(r"^cinema [\d.]+ (True|False)$", added, re.MULTILINE)
    assert saved.endswith("11 cinema")
    assert re.search(r"^Falk .* (True|False)$", unsure, re.MULTILINE)
    assert not any(str(tmp_path) in one.output for one in done)


def test_a_command_that_fails_or_finds_something_else_ends_it(tmp_path, monkeypatch):
    failing = f"```sh\necho lost; false\n```\n\n<!-- prints\n-->\n{PLACE}\n"
    with pytest.raises(SystemExit, match=r"ended with 1:\nlost"):
        tutorial.follow(failing, tmp_path / "failing", here=tmp_path)
    other = f"```sh\necho some\n```\n\n<!-- prints\nother\n-->\n{PLACE}\n"
    monkeypatch.setattr(tutorial, "wheel_of", lambda tree, folder: shutil.copy(__file__, folder))
    with pytest.raises(SystemExit, match=r"does not print 'other' but:\nsome"):
        tutorial.follow(other, tmp_path / "other")


def test_what_is_printed_is_written_behind_what_is_typed(tmp_path, monkeypatch):
    monkeypatch.setattr(tutorial, "wheel_of", lambda tree, folder: shutil.copy(__file__, folder))
    text = f"```sh\npwd; echo {{}}\n```\n\n<!-- prints\nx?\n-->\n{PLACE}\n"
    text += f"\n<!-- measured -->\n{PLACE}\n"
    done = tutorial.follow(text, tmp_path / "new")
    written = tutorial.written(text, done, r"soon \1")
    assert "-->\n```text\n.\n{}\n```\n\n(0." in written
    assert f"<!-- measured -->\nsoon \\1\n{PLACE}" in written
    assert tutorial.written(written, done, r"soon \1") == written
