"""Measurements in processes of their own, and their results."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def peak_gb() -> float:
    """Peak resident memory of this process in GB, pages of mapped files counted. Linux only."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def in_a_process(module: str, *args: str, **environment: str) -> dict[str, Any]:
    """The JSON of the last line that `python -m module args` prints; a failure ends this one."""
    result = subprocess.run(
        [sys.executable, "-m", module, *args],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if result.returncode:
        raise SystemExit(f"error: {module} {' '.join(args)} ended with {result.returncode}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def finish(result: dict[str, Any], file: Path | None) -> None:
    """Print the result as one JSON line, and write it where asked."""
    line = json.dumps(result)
    print(line)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(line + "\n")
