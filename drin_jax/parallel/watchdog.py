"""The small parent of a process of a run, which tells in one line how its child ended.

Where another process is missing or lost, JAX aborts this one in C++, at length and past every
`except`. So the work is a child's, and JAX loads there only.
"""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from typing import Any, NoReturn

from data_pipeline.schema import UserError

_ABORT = re.compile(rb"JAX distributed service detected fatal errors.*absl::Status: (.*)")
LAST_WORDS = 2.0  # seconds for what an ended child wrote; what it started may hold the pipe open
PR_SET_PDEATHSIG = 1  # of prctl(2): the signal that comes when the parent dies
_CHILD = "DRIN_CHILD"  # file descriptors: the real stderr, the link to the parent


def work_as_child(missing: str, lost: str) -> int:
    """In the child a file descriptor, to write to once all processes are there; in the parent the
    end, with the child's exit code.

    Args:
        missing, lost: what to tell where JAX aborts, before and after that was written; "{}" is
            JAX's reason.

    Raises:
        UserError: the child was aborted or killed.
    """
    if _CHILD not in os.environ:
        _watch(missing, lost)
    words, link = (int(number) for number in os.environ.pop(_CHILD).split(","))
    # The parent reads what C++ writes to 2; what Python says needs no parent.
    sys.stderr = os.fdopen(words, "w", buffering=1, errors="backslashreplace")
    with contextlib.suppress(AttributeError):  # not Linux: then a killed parent leaves its child
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return link


def _watch(missing: str, lost: str) -> NoReturn:
    (link, childs_link), (noise, childs_noise), words = os.pipe(), os.pipe(), os.dup(2)
    child = subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        stderr=childs_noise,
        pass_fds=(words, childs_link),
        env=os.environ | {_CHILD: f"{words},{childs_link}"},
        process_group=0,  # Ctrl-C reaches it once, through here
    )
    os.close(childs_noise)
    os.close(childs_link)
    received: list[int] = []

    def forward(number: int, _: Any) -> None:
        received.append(number)
        child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    held: list[bytes] = []  # an abort and what follows it

    def pass_on() -> None:
        with open(noise, "rb") as lines:
            for line in lines:
                if held or _ABORT.search(line):
                    held.append(line)
                else:
                    os.write(2, line)

    reader = threading.Thread(target=pass_on, daemon=True)
    reader.start()
    code = child.wait()
    reader.join(LAST_WORDS)
    aborted = held and code == -signal.SIGABRT
    if held and not aborted:
        os.write(2, b"".join(held))
    if code >= 0:
        sys.exit(code)
    if received:
        sys.exit(128 + received[-1])
    if not aborted:
        raise UserError(f"this process was ended by {signal.Signals(-code).name}")
    found = _ABORT.search(held[0])
    assert found is not None
    told = lost if os.read(link, 1) else missing
    raise UserError(told.replace("{}", found[1].decode(errors="replace")))
