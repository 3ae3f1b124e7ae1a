"""Run by losses_test.py in a process of its own, with eight simulated devices: the averaged
gradients of the gathered loss are those of the whole batch on one device."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

from drin_jax.training.losses import FORMS, margin_loss
from drin_jax.types import GraphBatch
from tests.support.random_graphs import random_graphs, small

DEVICES = 8
AXIS = "data"
GRAPH, PARAMS = nnx.split(small(layers=1), nnx.Param)


def loss_of(params: Any, batch: GraphBatch, form: str, axis_name: str | None) -> jax.Array:
    scores, aux = nnx.merge(GRAPH, params)(batch)
    return margin_loss(scores, aux, batch, form=form, margin=0.25, axis_name=axis_name)


def averaged(params: Any, batch: GraphBatch, form: str) -> tuple[jax.Array, Any]:
    """What a device's step does."""
    loss, grads = jax.value_and_grad(loss_of)(params, batch, form, AXIS)
    return loss, jax.lax.pmean(grads, AXIS)


def main() -> None:
    assert jax.device_count() == DEVICES
    batch = random_graphs(1, b=2 * DEVICES, padding=0.3)
    # The last device holds padding only, so that no device's own counts will do.
    batch = batch.replace(mask=batch.mask.at[-3:].set(False))  # type: ignore[attr-defined]
    mesh = jax.make_mesh((DEVICES,), (AXIS,), axis_types=(AxisType.Auto,))
    for form in FORMS:
        whole = jax.jit(jax.value_and_grad(loss_of), static_argnums=(2, 3))(
            PARAMS, batch, form, None
        )
        assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(whole[1]))
        step = functools.partial(averaged, form=form)
        shards = jax.tree.map(lambda x: jnp.reshape(x, (DEVICES, -1, *x.shape[1:])), batch)
        mapped = jax.pmap(step, axis_name=AXIS, in_axes=(None, 0))(PARAMS, shards)
        sharded = jax.jit(
            jax.shard_map(
                step,
                mesh=mesh,
                in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
                out_specs=PartitionSpec(),
                check_vma=False,
            )
        )(PARAMS, batch)
        for name, result in (
            ("pmap", jax.tree.map(lambda x: x[3], mapped)),
            ("shard_map", sharded),
        ):
            for ours, theirs in zip(jax.tree.leaves(result), jax.tree.leaves(whole), strict=True):
                limit = 1e-5 * max(float(np.max(np.abs(theirs))), 1e-2)
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit, err_msg=form)
            print(f"{form}:{name}")


if __name__ == "__main__":
    main()
