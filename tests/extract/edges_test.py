"""The initial edges, by hand and against the equations."""

import numpy as np
import pytest

from drin_jax.extract import pairs as module
from drin_jax.extract.pairs import edges
from tests.support.tolerance import assert_close


def _tables(rng: np.random.Generator, mentions: int, entities: int) -> dict[str, np.ndarray]:
    """Random tables with CLIP rows at unit length; the last of each side lacks everything."""
    tables = {}
    for side, n in (("mention", mentions), ("entity", entities)):
        for name in ("text_edge", "clip_text", "clip_image", "objects"):
            rows = rng.normal(size=(n, 5)).astype(np.float32)
            if name.startswith("clip"):
                rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            rows[-1] = 0
            tables[f"{side}_{name}"] = rows
    return tables


def test_each_relation_compares_its_own_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """tt [6], tv [7] and vt [8] are cosines, vv [11] a product of means; what is missing is 0,
    and how many pairs go at once changes nothing."""
    tables = _tables(np.random.default_rng(0), 4, 6)
    mentions, candidates = np.array([2, 0, 3]), np.array([[0, 4], [5, -1], [1, 2]])
    found = edges(tables.__getitem__, mentions, candidates)
    assert found.shape == (3, 4, 2)
    assert found.dtype == np.float32

    def cosine(x: np.ndarray, y: np.ndarray) -> float:
        return float(x @ y / max(np.linalg.norm(x) * np.linalg.norm(y), 1e-9))

    for i, mention in enumerate(mentions):
        for j, entity in enumerate(candidates[i]):
            m = {name: rows[mention] for name, rows in tables.items() if name.startswith("m")}
            e = {name: rows[entity] for name, rows in tables.items() if name.startswith("e")}
            expected = [
                cosine(m["mention_text_edge"], e["entity_text_edge"]),
                cosine(m["mention_clip_text"], e["entity_clip_image"]),
                cosine(m["mention_clip_image"], e["entity_clip_text"]),
                float(m["mention_objects"] @ e["entity_objects"]),
            ]
            expected = expected if entity >= 0 else [0.0] * 4
            assert_close(found[i, :, j], expected)
    monkeypatch.setattr(module, "PAIRS", 2)
    assert_close(edges(tables.__getitem__, mentions, candidates), found)


def test_without_pictures_only_the_text_edge_is_there() -> None:
    tables = _tables(np.random.default_rng(1), 2, 3)
    for name in tables:
        if not name.endswith("text_edge"):
            tables[name] = tables[name][:, :0]
    found = edges(tables.__getitem__, np.array([0, 1]), np.array([[0, 1], [1, 0]]))
    assert found[0, 0].all()
    assert not found[:, 1:].any()


def test_the_product_of_means_is_equation_11() -> None:
    """Σ_ab s_a s'_b cos(v_a, v'_b) / (Σ_a s_a · Σ_b s'_b), from objects and scores."""
    rng = np.random.default_rng(2)
    v, s = rng.normal(size=(2, 3, 4)), rng.random((2, 3))
    unit = v / np.linalg.norm(v, axis=-1, keepdims=True)
    means = np.einsum("pk,pkd->pd", s, unit) / s.sum(1, keepdims=True)
    tables = _tables(rng, 1, 1) | {
        "mention_objects": means[:1].astype(np.float32),
        "entity_objects": means[1:].astype(np.float32),
    }
    expected = s[0] @ (unit[0] @ unit[1].T) @ s[1] / (s[0].sum() * s[1].sum())
    found = edges(tables.__getitem__, np.array([0]), np.array([[0]]))[0, 3, 0]
    assert found == pytest.approx(expected, abs=1e-6)
