"""The README's lines of Python run as they stand there, in an empty folder, with nothing kept."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT


def test_the_first_lines_link_a_mention(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    [lines] = re.findall(r"```python\n(from drin_jax import Linker\n.*?)```", text, re.DOTALL)
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **cache, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", lines]
    first, second = (
        subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        for _ in range(2)
    )
    assert first.returncode == 0, first.stderr
    name, probability, is_nil = first.stdout.split("\n")[0].split()
    assert name == "Alfield"
    assert 0 < float(probability) <= 1
    assert is_nil in ("True", "False")
    assert "its name equals this name" in first.stdout
    assert "training the embedded sample's model, once" in first.stderr
    assert second.stdout == first.stdout
    assert second.stderr == ""
