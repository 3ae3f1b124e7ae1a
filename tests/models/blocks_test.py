"""Blocks of mentions: whole ones, no larger than asked, on CPUs only, and the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drin_jax.models import blocks
from drin_jax.models.blocks import in_blocks


def sizes_seen(b: int, r: int, block_bytes: int, monkeypatch) -> set[tuple[int, ...]]:
    """Shapes that a function sees of a float32 array [b, r, 8]."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    seen = set()

    def look(x: jax.Array) -> jax.Array:
        seen.add(x.shape)
        return x

    assert in_blocks(look, jnp.zeros((b, r, 8))).shape == (b, r, 8)
    return seen


@pytest.mark.parametrize(
    ("b", "r", "block_bytes", "mentions"),
    [
        (12, 10, 12 * 10 * 32, 12),  # fits
        (12, 10, 12 * 10 * 32 - 1, 6),
        (12, 10, 5 * 10 * 32, 4),  # 5 do not divide 12
        (7, 10, 3 * 10 * 32, 1),
        (4, 10, 1, 1),  # a mention is never cut
        (1, 10, 1, 1),
    ],
)
def test_blocks_are_whole_mentions_that_fit(b, r, block_bytes, mentions, monkeypatch):
    assert sizes_seen(b, r, block_bytes, monkeypatch) == {(mentions, r, 8)}


def test_an_accelerator_gets_the_whole_array(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert sizes_seen(12, 10, 1, monkeypatch) == {(12, 10, 8)}


def test_values_and_gradients_are_those_of_the_whole(monkeypatch):
    rng = np.random.default_rng(0)
    x, y, scale = (jnp.asarray(rng.normal(size=s)) for s in ((6, 5, 4), (6, 4), (4,)))

    def total(x: jax.Array, y: jax.Array, scale: jax.Array) -> jax.Array:
        return jnp.sum(in_blocks(lambda a, b: jnp.tanh(a * b[:, None]) * scale, x, y) ** 2)

    whole = jax.value_and_grad(total, (0, 1, 2))(x, y, scale)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    cut = jax.jit(jax.value_and_grad(total, (0, 1, 2)))(x, y, scale)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), cut, whole)
