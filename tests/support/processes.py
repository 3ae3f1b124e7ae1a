"""Several processes of one run, on this machine."""

import socket
import subprocess

from tests.support.commands import Command


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def finish(processes: list[Command]) -> list[subprocess.CompletedProcess]:
    """Their results, once all have ended."""
    outputs = [process.communicate(timeout=600) for process in processes]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *output)
        for process, output in zip(processes, outputs, strict=True)
    ]
