"""The wheel of this checkout, built and installed out of the checkout's reach."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.support import compilation
from tests.support.paths import ROOT

PACKAGES = ("drin_jax", "data_pipeline", "configs")
SOURCES = ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE", *PACKAGES)
NO_CODE = shutil.ignore_patterns("__pycache__")


def call(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    """The command, which must succeed, out of reach of this checkout."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "COLUMNS": "160"}
    environment["XLA_FLAGS"] = compilation.flags(hasty=False)  # the whole sample is encoded
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result


def build(tree: Path) -> Path:
    """The wheel, built from a copy in `tree`: a build folder that is left over would be packed."""
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=NO_CODE)
        else:
            shutil.copy(ROOT / name, tree / name)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    call(*pip, "--wheel-dir", "wheels", ".", cwd=tree)
    (found,) = (tree / "wheels").iterdir()
    return found


def install(wheel: Path, folder: Path) -> Path:
    """A fresh environment with the wheel, which borrows the packages it needs from this one;
    returns the folder of its programs."""
    call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install")
    call(*pip, "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"
