"""Features of a knowledge base over its segments, in single and in half precision."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.kb.change import Change
from data_pipeline.schema import Entity
from tests.support.fixtures import refusal

FIRST = [Entity(f"Q{i}", f"name {i}", "") for i in range(1, 5)]


def test_features_are_asked_for_and_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = rng.standard_normal((6, 3)).astype(np.float32)

    def fill(begin: int, dtype: str = "float32") -> Callable:
        def write(segment, entities):
            segment.write("entity_text", texts[begin : begin + len(entities)].astype(dtype))
            return {"written": len(entities)}

        return write

    with Change(tmp_path / "kb", fill(0)) as change:
        assert change.build(FIRST, name="x").report == {"written": 4}
    new = [Entity("Q5", "Nile", ""), Entity("Q6", "Rhine", "")]
    with Change(tmp_path / "kb") as change:
        assert "takes its encoders" in refusal(lambda: change.add(new))
    with Change(tmp_path / "kb", fill(4, "float16")) as change:
        kb = change.add(new)
    array = kb.array("entity_text")
    assert array.shape == (6, 3)
    halved = np.concatenate([texts[:4], texts[4:].astype(np.float16).astype(np.float32)])
    np.testing.assert_array_equal(np.asarray(array), halved)
    np.testing.assert_array_equal(array[np.array([[5, 0], [-1, 2]])], halved[[[5, 0], [5, 2]]])
    np.testing.assert_array_equal(array[3:5], halved[3:5])
    with pytest.raises(IndexError):
        array[np.array([6])]
    with Change(tmp_path / "kb", fill(0)) as change:
        change.remove(["Q2"])
        kb = change.compact()
    np.testing.assert_allclose(kb.array("entity_text"), np.delete(halved, 1, 0), atol=1e-3)
