"""The benchmark's PyTorch peer computes what the authors' program did, and counts are right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks import report
from benchmarks.hlo_dots import count_multiply_adds
from drin_jax.models.drin import DRIN
from drin_jax.parity import comparison
from tests.parity.parity_test import FILES
from tests.support.random_graphs import random_graphs
from tests.support.tolerance import assert_close

DRIN_FILES = [path for path in FILES if path.stem.startswith("drin")]
NO_TORCH = "the peer is PyTorch (extra dev)"


@pytest.mark.parametrize("each_edge", [True, False])
@pytest.mark.parametrize("path", DRIN_FILES, ids=lambda path: path.stem)
def test_the_peer_agrees_with_the_golden_arrays(path, each_edge):
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    from benchmarks.torch_drin import upstream_loss
    from tests.support.torch_references import golden_graph, torch_model

    arrays, meta = comparison.read(path)
    model = torch_model(arrays, meta, each_edge)
    r = meta["num_candidates"]
    scores = model(golden_graph(arrays, meta), tuple(meta.get("enabled", (1, 1, 1, 1))))
    gold = torch.from_numpy(np.where(arrays["in/answer"] < r, arrays["in/answer"], -1))
    loss = upstream_loss(scores[:, :r], gold, meta["margin"])
    assert_close(scores.detach(), arrays["out/score"])
    assert loss.item() == pytest.approx(float(arrays["out/loss"]), abs=1e-5)
    loss.backward()
    for name, ours in model.under_torch_names(gradients=True).items():
        theirs = arrays[f"grad/{name}"]
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * max(np.max(np.abs(theirs)), 1e-3))


def test_a_row_compares_the_same_step(monkeypatch):
    pytest.importorskip("torch", reason=NO_TORCH)
    from benchmarks import random_batches, train_step

    for name, width in (("TEXT", 6), ("IMAGE", 10), ("WIDTH", 8)):
        for module in (random_batches, train_step):
            monkeypatch.setattr(module, name, width)
    row = train_step.measure(b=4, r=3, repeats=2)  # ends where a first loss differs
    per_candidate = {name: row[name]["multiply_adds_per_candidate"] for name in train_step.PEERS}
    assert 0 < per_candidate["shared"] < per_candidate["each_edge"]
    for name in ("ours", *train_step.PEERS):
        assert row[name]["ratio_wall"] == pytest.approx(row[name]["wall_s"] / row["ours"]["wall_s"])
    table = report.train_step({"rows": [row]}).splitlines()
    assert len(table) == 2 + 3
    assert f"| {row['each_edge']['ratio_wall']:.2f} |" in table[3]


def counted(function, *arguments) -> int:
    return count_multiply_adds(jax.jit(function).lower(*arguments).compile().as_text() or "")


def test_multiply_adds_of_products_are_counted():
    x, y = jnp.ones((6, 5)), jnp.ones((5, 7))
    assert counted(jnp.matmul, x, y) == 6 * 5 * 7
    assert counted(lambda x, y: (x.T @ (x @ y)) @ y.T, x, y) == 6 * 5 * 7 * 2 + 5 * 7 * 5
    batched = (jnp.ones((3, 4, 9)), jnp.ones((3, 9, 8)))
    assert counted(jnp.matmul, *batched) == 3 * 4 * 9 * 8


def test_scoring_does_not_compute_what_no_score_needs():
    b, r, t, v, d = 8, 32, 48, 64, 40
    batch = random_graphs(b=b, r=r, t=t, v=v)
    graph, params = nnx.split(DRIN(t, v, width=d, rngs=nnx.Rngs(0)), nnx.Param)
    scores = counted(lambda p, x: nnx.merge(graph, p)(x)[0], params, batch)
    joined = d * (t + v) * (b * r + d)  # both projections through W_h of layer 1, formed once
    second = b * r * d * d  # W_h of et in layer 2, and nothing else a candidate
    along_edges = b * r * (4 * (t + v) + 11 * d)  # sums and dot products of vertices
    mentions = b * d * (5 * (t + v) + 9 * d + 4) + 2 * d * d
    assert joined + second < scores <= joined + second + along_edges + mentions
