"""Parts of a batch: whole mentions, no larger than asked, on CPUs only, and the same numbers."""

import jax
import jax.numpy as jnp
import pytest

from drin_jax.models import gcn_block
from drin_jax.models.gcn_block import in_cache
from tests.support.random_graphs import assert_same, holes, small, value_and_grad


def sizes_seen(b: int, r: int, cache_bytes: int, monkeypatch) -> set[tuple[int, ...]]:
    """Shapes that a function sees of a float32 array [b, r, 8]."""
    monkeypatch.setattr(gcn_block, "CACHE_BYTES", cache_bytes)
    seen = set()

    def look(x: jax.Array) -> jax.Array:
        seen.add(x.shape)
        return x

    assert in_cache(look, jnp.zeros((b, r, 8))).shape == (b, r, 8)
    return seen


@pytest.mark.parametrize(
    ("b", "r", "cache_bytes", "mentions"),
    [
        (12, 10, 12 * 10 * 32, 12),  # fits
        (12, 10, 12 * 10 * 32 - 1, 6),
        (12, 10, 5 * 10 * 32, 4),  # 5 do not divide 12
        (7, 10, 3 * 10 * 32, 1),
        (4, 10, 1, 1),  # a mention is never cut
        (1, 10, 1, 1),
    ],
)
def test_parts_are_whole_mentions_that_fit(b, r, cache_bytes, mentions, monkeypatch):
    assert sizes_seen(b, r, cache_bytes, monkeypatch) == {(mentions, r, 8)}


def test_an_accelerator_gets_the_whole_array(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert sizes_seen(12, 10, 1, monkeypatch) == {(12, 10, 8)}


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("fields", [{"layers": 1, "dynamic": False}, {"layers": 2}], ids=str)
def test_values_and_gradients_are_those_of_the_whole(fields, joined, monkeypatch):
    monkeypatch.setattr(gcn_block, "joining_pays", lambda batch: joined)
    batch = holes(2)
    whole = value_and_grad(small(**fields), batch)
    monkeypatch.setattr(gcn_block, "CACHE_BYTES", 1)
    assert_same(value_and_grad(small(**fields), batch), whole)
