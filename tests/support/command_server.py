"""Starts a command by forking a process that has already imported what commands need: 2 s of CPU
time less for each. Run by `commands`: python -m tests.support.command_server SOCKET

A command still has a process of its own, with the arguments, the environment, the files for stdout
and stderr and the end that `python -m` would give it; before the fork JAX has no device and no
thread. A request is one message of JSON with three files: stdout, stderr and where to write the
process's number and, later, how it ended.
"""

import contextlib
import json
import os
import runpy
import signal
import socket
import sys

import drin_jax.run  # noqa: F401  with jax, flax and orbax
from drin_jax.training import metric_log

with contextlib.suppress(ImportError):
    import torch  # noqa: F401  which transformers loads where it is installed

LONGEST = 1 << 17  # bytes of a request


def main() -> None:
    """Start what is asked for until nobody asks any more."""
    metric_log.tensorboard_writer()
    requests = socket.socket(fileno=int(sys.argv[1]))
    while True:
        message, files, _, _ = socket.recv_fds(requests, LONGEST, 3)
        if not message:
            break
        if not os.fork():
            requests.close()
            _watch(message, *files)
            return
        for file in files:
            os.close(file)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)  # what a failed test left
    with contextlib.suppress(ChildProcessError):
        while os.wait():  # so that their CPU time counts as the tests'
            pass


def _watch(message: bytes, out: int, err: int, answer: int) -> None:
    """Tell the number and the end of the process that becomes the command."""
    child = os.fork()
    if not child:
        os.close(answer)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.close(out)
        os.close(err)
        _become(**json.loads(message))
        return
    os.close(out)
    os.close(err)
    os.write(answer, b"%d\n" % child)
    os.write(answer, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)


def _become(module: str, arguments: list[str], environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    sys.orig_argv = [sys.executable, "-m", module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
