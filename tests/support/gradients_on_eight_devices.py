"""Run by losses_test.py in a process of its own, with eight simulated devices: the averaged
gradients of the gathered loss are those of the whole batch on one device.

The system is the smallest with matched vectors, for all forms at once: eight devices take long to
compile for.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

from drin_jax.models.bert_matcher import BertMatcher
from drin_jax.parallel.data_parallel import AXIS
from drin_jax.training.losses import FORMS, margin_loss
from drin_jax.training.step import mean_over_devices
from drin_jax.types import GraphBatch
from tests.support.random_graphs import random_graphs

DEVICES = 8
CASES = (*FORMS, "members")


def gradients(
    params: Any, graph: nnx.GraphDef, batch: GraphBatch, axis_name: str | None = None
) -> dict[str, tuple[jax.Array, Any]]:
    """Loss and gradients of every form, and of one for a system of two members."""

    def loss_of(params: Any, form: str) -> jax.Array:
        scores, aux = nnx.merge(graph, params)(batch)
        if form == "members":
            form, aux = "hardest", aux | {"members": jnp.stack([scores, scores**2 / 2], 1)}
        return margin_loss(scores, aux, batch, form=form, margin=0.25, axis_name=axis_name)

    return {form: jax.value_and_grad(loss_of)(params, form) for form in CASES}


def main() -> None:
    assert jax.device_count() == DEVICES
    batch = random_graphs(1, b=2 * DEVICES, padding=0.3)
    # The last device holds padding only, so that no device's own counts will do.
    batch = batch.replace(mask=batch.mask.at[-3:].set(False))  # type: ignore[attr-defined]
    text_width = batch.mention_text.shape[-1]
    model = BertMatcher(text_width, 0, width=5, dtype=jnp.float32, rngs=nnx.Rngs(0))
    graph, params = nnx.split(model, nnx.Param)

    def averaged(params: Any, batch: GraphBatch) -> dict[str, tuple[jax.Array, Any]]:
        """What a device's step does."""
        found = gradients(params, graph, batch, AXIS)
        return {form: (loss, mean_over_devices(grads)) for form, (loss, grads) in found.items()}

    whole = jax.jit(lambda params, batch: gradients(params, graph, batch))(params, batch)
    shards = jax.tree.map(lambda x: jnp.reshape(x, (DEVICES, -1, *x.shape[1:])), batch)
    mapped = jax.pmap(averaged, axis_name=AXIS, in_axes=(None, 0))(params, shards)
    sharded = jax.jit(
        jax.shard_map(
            averaged,
            mesh=jax.make_mesh((DEVICES,), (AXIS,), axis_types=(AxisType.Auto,)),
            in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
    )(params, batch)
    ways = {"pmap": jax.tree.map(lambda x: x[3], mapped), "shard_map": sharded}
    for form in CASES:
        assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(whole[form][1]))
        for way, result in ways.items():
            pairs = zip(jax.tree.leaves(result[form]), jax.tree.leaves(whole[form]), strict=True)
            for ours, theirs in pairs:
                limit = 1e-5 * max(float(np.max(np.abs(theirs))), 1e-2)
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit, err_msg=form)
            print(f"{form}:{way}")


if __name__ == "__main__":
    main()
