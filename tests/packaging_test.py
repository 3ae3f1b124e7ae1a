"""The wheel in a fresh environment does from an empty folder what the checkout does."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.support import compilation
from tests.support.paths import ROOT

PACKAGES = ("drin_jax", "data_pipeline", "configs")
SOURCES = ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE", *PACKAGES)
NO_CODE = shutil.ignore_patterns("__pycache__")


def call(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    """The command, out of reach of this checkout."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "COLUMNS": "160"}
    environment["XLA_FLAGS"] = compilation.flags(hasty=False)  # the whole sample is encoded
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build folder that is left over would be packed too."""
    tree = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=NO_CODE)
        else:
            shutil.copy(ROOT / name, tree / name)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    call(*pip, "--wheel-dir", "wheels", ".", cwd=tree)
    (found,) = (tree / "wheels").iterdir()
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, which borrows the packages it needs from this one."""
    folder = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install")
    call(*pip, "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_the_wheel_has_every_file_and_no_configs_of_its_own(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == {
        f"drin_jax/{name}" if name.startswith("configs/") else name for name in wanted
    }
    assert {"drin_jax/py.typed", "data_pipeline/py.typed", "drin_jax/configs/common.py"} <= packed


def test_it_trains_by_name_from_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    command = environment / "bin" / "drin-jax"
    assert "  train " in call(command, "--help", cwd=tmp_path).stdout
    assert "--workdir" in call(command, "train", "--help", cwd=tmp_path).stdout
    flags = ("--config=sample", "--workdir=w", "--config.train.epochs=1")
    told = call(command, "train", *flags, cwd=tmp_path).stdout
    assert "report: w/report.md" in told
    assert (tmp_path / "w" / "report.json").is_file()
    where = call(environment / "bin" / "python", "-c", "import drin_jax; print(drin_jax.__file__)",
                 cwd=tmp_path)  # fmt: skip
    assert where.stdout.startswith(str(environment))
