"""The wheel holds what the checkout does; that it works is `sample_run_test.py`'s."""

import zipfile
from pathlib import Path

from tests.support import wheels
from tests.support.paths import ROOT


def test_the_wheel_has_every_file_and_no_configs_of_its_own(tmp_path: Path) -> None:
    wheel = wheels.build(tmp_path)
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in wheels.PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == {
        f"drin_jax/{name}" if name.startswith("configs/") else name for name in wanted
    }
    assert {"drin_jax/py.typed", "data_pipeline/py.typed", "drin_jax/configs/common.py"} <= packed
