"""A store from what needs no encoder: the authors' release, and what a config downloads first."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs import common
from data_pipeline.schema import UserError
from drin_jax.extract import preparation
from tests.support import release_fixtures


def config(root: Path | str, **fields: Any) -> Any:
    made = common.get_config()
    values = {"data.name": "release", "data.reader": "release", "data.root": str(root)}
    made.update_from_flattened_dict(values | fields)
    return made


def test_a_release_becomes_a_store_that_knows_its_release(tmp_path: Path) -> None:
    """Prepared once, opened afterwards, also where the release is gone; another one is refused."""
    arrays = release_fixtures.make_release("wikidiverse")
    root = release_fixtures.save_release(tmp_path / "wikidiverse", arrays)
    made = preparation.prepare(config(root), tmp_path / "work")
    assert made.name == "release"
    assert made.report["release"] == "wikidiverse"
    again = preparation.prepare(config(root), tmp_path / "work")
    assert again.specs == made.specs
    # No encoder made these features: what the config says of encoders is no difference.
    preparation.prepare(config(root, **{"encoders.text": "another"}), tmp_path / "work")
    answer = root / "answer_test.npy"
    np.save(answer, (np.load(answer) + 1) % 3)
    with pytest.raises(UserError, match="made with other settings"):
        preparation.prepare(config(root), tmp_path / "work")
    for path in root.iterdir():
        path.unlink()
    root.rmdir()
    assert preparation.prepare(config(root), tmp_path / "work").specs == made.specs


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"data.root": "not/there", "data.hint": "get it there"}, "get it there"),
        ({"data.source": "hub:a/b", "data.root": ""}, "data.root, the folder to download to"),
        ({"data.source": "ftp://x"}, "hub:"),
        ({"data.source": "hub:no slashes at all"}, "hub:"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(
    fields: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        preparation.prepare(config(tmp_path / "data", **fields), tmp_path / "work")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
