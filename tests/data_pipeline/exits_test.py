"""How commands end: by a signal at any moment, without a reader, and with what data may hold."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.table import Table as RichTable
from rich.text import Text

from data_pipeline import output
from drin_jax.evaluation.tables import Table
from tests.support.commands import ROOT

HOSTILE = "a\x1b[31mred\x1b]0;title\x07\x9b2J\x7f[red]b[/red] :smile:"
SHOWN = "a␛[31mred␛]0;title␇�2J␡[red]b[/red] :smile:"


def test_control_characters_are_shown_as_symbols(capsys: pytest.CaptureFixture[str]) -> None:
    assert output.visible(HOSTILE) == SHOWN
    assert output.visible("a\tb\nc") == "a\tb\nc"
    output.say(HOSTILE)
    with output.Progress(HOSTILE, 1) as bar:
        bar.note(HOSTILE)
        bar.advance()
    rich = RichTable()
    rich.add_row(Text(HOSTILE))
    output.console().print(HOSTILE, rich)
    Table(HOSTILE, [HOSTILE], [[HOSTILE]], [HOSTILE]).show()
    told = capsys.readouterr()
    for text in told:
        assert not {*text} & {"\x1b", "\x07", "\x9b", "\x7f"}
        assert text.count("[red]b[/red] :smile:") + text.count("[/red] :") >= 2
    assert told.err.startswith(SHOWN)


BARS = """
from data_pipeline import output
with output.silent(passing={passing}):
    output.say("a line")
    print("a table")
    with output.Progress("the work", 3) as bar:
        bar.advance(3)
"""


@pytest.mark.parametrize("passing", [True, False])
def test_silence_may_let_bars_pass_on_a_terminal(passing: bool) -> None:
    command = [sys.executable, "-c", BARS.format(passing=passing)]
    here, terminal = pty.openpty()
    environment = os.environ | {"TERM": "xterm"}
    done = subprocess.run(
        command, cwd=ROOT, stdout=-1, stderr=terminal, env=environment, timeout=99
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
        while part := os.read(here, 1 << 16):
            shown += part
    os.close(here)
    assert (done.returncode, done.stdout) == (0, b"")
    assert (b"the work" in shown) == passing
    assert shown.endswith(b"\x1b[2K") == passing, "the bar is gone at the end"
    assert b"a line" not in shown
    piped = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=99)
    assert (piped.stdout, piped.stderr) == (b"", b"")


@pytest.mark.parametrize("width", [80, 60])
def test_tables_fit_and_cut_no_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """Columns that have no room are left out with a word; first and last of the numbers stay."""
    head = [
        "mentions",
        "scope",
        "system",
        "n",
        *(f"hits@{k}" for k in (1, 3, 5, 10, 20, 50)),
        "MRR",
    ]
    row = ["unseen_entity", "end to end", "DRIN (upstream form, upstream loss)", "12345"]
    numbers = ["10.1", "100.0", "30.3", "40.4", "50.5", "60.6", "70.7"]
    monkeypatch.setattr(output, "WIDTH", width)
    table = Table("test", head, [[*row, *numbers]], words=3)
    table.show()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    told = "".join(lines)
    for number in ("12345", "10.1", "70.7"):
        assert number in told.split()
    assert "left out for want of room: " in told
    assert "…" not in told
    monkeypatch.setattr(output, "WIDTH", 140)
    table.show()
    told = capsys.readouterr().out
    assert all(number in told.split() for number in numbers)
    assert "left out" not in told


COMMANDS = {
    "train": ["-m", "drin_jax.main", "--config=common", "--workdir=unused"],
    "script": ["-m", "drin_jax.cli", "experiments", "--help"],
    "validate": ["-m", "data_pipeline.validate", "--format=jsonl", "."],
    "sample": ["-m", "data_pipeline.sample", "--root=world"],
    "report": ["-m", "drin_jax.report", "."],
}


def started(arguments: list[str], folder: Path) -> subprocess.Popen:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_an_interrupt_at_any_moment_is_one_line_or_none(name: str, tmp_path: Path) -> None:
    """Python's own start, before any of our code runs, is left alone."""
    for after in (0.15, 0.4, 0.8):
        process = started(COMMANDS[name], tmp_path)
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
        if err.startswith("Fatal Python error: init_"):  # a busy machine was not that far
            continue
        assert "Traceback" not in err, err
        assert "KeyboardInterrupt" not in err, err
        if process.returncode == 130:
            last = err.splitlines()[-1]
            assert last == "error: SIGINT; nothing that was finished is lost: start again"


@pytest.mark.parametrize(
    "arguments", [["-m", "drin_jax.cli", "--help"], ["-m", "drin_jax.main", "--help"]], ids=str
)
def test_help_that_nobody_reads_to_its_end(arguments: list[str], tmp_path: Path) -> None:
    process = started(arguments, tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(120) == 141
