"""How a command ends: with streams that can be written, and one line for what went wrong."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from data_pipeline.output import visible
from data_pipeline.schema import UserError

BROKEN_PIPE = 128 + signal.SIGPIPE


def fail(message: str) -> None:
    """The one line on stderr that says what went wrong."""
    print("error: " + visible(" ".join(message.split())), file=sys.stderr, flush=True)


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a command to its end: 0 or what `main` returns; 1 and one line for a mistake; 130 and
    143 after SIGINT and SIGTERM; 141 where nobody reads its output any more."""
    _open_streams()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as of what runs in a shell's background
            signal.signal(number, _leave)
    code = 1
    try:
        code = main() or 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
        if isinstance(left.code, str):
            print(left.code, file=sys.stderr)
    except UserError as error:
        fail(str(error))
    except BrokenPipeError:
        code = BROKEN_PIPE
    except OSError as error:
        fail(f"{error.filename or 'output'}: {error.strerror or error}")
    _end(code)


def _leave(number: int, frame: FrameType | None) -> None:
    """Leaves the way out to what is open. What is on disk can be gone on from at any moment."""
    signal.signal(number, signal.SIG_IGN)  # once is enough
    told = f"error: {signal.Signals(number).name}; nothing that was finished is lost: start again\n"
    with contextlib.suppress(OSError):
        os.write(2, told.encode())
    while frame:
        # From an import, extension modules may swallow what is raised.
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(128 + number)
        frame = frame.f_back
    sys.exit(128 + number)


def _open_streams() -> None:
    """A stream that is closed leads nowhere, and one of few characters shows others by number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number, this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r"))  # noqa: SIM115  until the end
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _end(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            code = code or BROKEN_PIPE
        except OSError as error:
            code = code or 1
            if stream is sys.stdout:
                fail(f"output: {error.strerror or error}")
    # Not sys.exit: then library threads that were interrupted complain at length, or crash where
    # a compilation was.
    os._exit(code)
