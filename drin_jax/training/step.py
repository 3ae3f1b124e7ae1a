"""One optimizer step: forward, loss, backward, Adam, and a state that a bad step cannot spoil."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Int

from drin_jax.parallel.data_parallel import AXIS
from drin_jax.training import losses
from drin_jax.types import Aux, GraphBatch, Metrics, Targets

NEVER = -1

# (state, a device's share of the batch, how it is looked up: as it is) -> (state, metrics)
TrainStep = Callable[..., tuple["TrainState", Metrics]]


@flax.struct.dataclass
class TrainState:
    """Everything a step changes. `failed` is the first step that was not finite, or -1; from there
    on the state is frozen, so the last good parameters survive until the host looks."""

    step: Int[Array, ""]
    failed: Int[Array, ""]
    params: Any
    opt_state: Any
    seed: Int[Array, ""] | None = None  # of the random keys, where the model takes any
    # The parameters that are trained, where `params` are their average over the steps.
    newest: Any = None


def create_state(
    params: Any,
    optimizer: optax.GradientTransformation,
    seed: int | None = None,
    averaged: bool = False,
) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        failed=jnp.full((), NEVER, jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        seed=None if seed is None else jnp.asarray(np.uint32(seed)),
        newest=jax.tree.map(jnp.copy, params) if averaged else None,
    )


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    *,
    loss_form: str,
    margin: float,
    gold_slot: bool = False,
    accumulate: int = 1,
    average: float = 0.0,
) -> TrainStep:
    """One optimizer step on one device's share of a batch, to be wrapped by `DataParallel`.

    Args:
        accumulate: parts of the share that are computed one after another. Only their scores are
            kept; the backward pass computes each part again and adds its gradients up. The loss is
            that of the whole batch, whatever its form, so the parts change nothing but memory and
            time (a forward pass more).
        average: what a step keeps of the average of the parameters, where the state has one; less
            in the first steps, (1 + step) / (10 + step).
    """

    def train_step(
        state: TrainState, keys: Any, look_up: Callable[[Any], Any] = lambda keys: keys
    ) -> tuple[TrainState, Metrics]:
        def forward(params: Any, own: Any) -> tuple[Array, Aux, Targets]:
            keys, *random = own
            batch = GraphBatch.from_host(look_up(keys), gold_slot)
            scores, aux = nnx.merge(graphdef, params)(batch, *random)
            targets = Targets(batch.candidate_mask, batch.gold, batch.mask)
            return scores, losses.matched(aux, loss_form), targets

        own: tuple[Any, ...] = (keys,)
        if state.seed is not None:
            own += (random_keys(jax.random.key(state.seed), state.step, keys),)

        def loss_of(params: Any) -> jax.Array:
            if accumulate == 1:
                scores, aux, targets = forward(params, own)
            else:
                scores, aux, targets = _in_parts(partial(forward, params), own, accumulate)
            return losses.margin_loss(
                scores, aux, targets, form=loss_form, margin=margin, axis_name=AXIS
            )

        newest = state.params if state.newest is None else state.newest
        loss, grads = jax.value_and_grad(loss_of)(newest)
        grads = mean_over_devices(grads)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)

        def updated(params: Any, opt_state: Any, newest: Any) -> tuple[Any, Any, Any]:
            now = params if newest is None else newest
            updates, opt_state = optimizer.update(grads, opt_state, now)
            now = optax.apply_updates(now, updates)
            if newest is None:
                return now, opt_state, None
            kept = jnp.minimum(average, (1 + state.step) / (10 + state.step))
            mean = jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, params, now)
            return mean, opt_state, now

        # A branch, not a selection: selecting reads old and new, so that XLA copies the donated
        # state (on a CPU that cost five times the update itself).
        trained = state.params, state.opt_state, state.newest
        params, opt_state, newest = jax.lax.cond(
            finite & (state.failed == NEVER),
            updated,
            lambda *kept: kept,
            *trained,
        )
        failed = jnp.where((state.failed == NEVER) & ~finite, state.step, state.failed)
        metrics = {"loss": loss, "grad_norm": norm, "failed": failed}
        return TrainState(state.step + 1, failed, params, opt_state, state.seed, newest), metrics

    return train_step


def random_keys(key: Array, step: Int[Array, ""], batch: Any) -> Array:
    """A random key [b] for each mention of this device's share: by seed, step and place in the
    whole batch, so that neither devices nor parts change it."""
    b = jax.tree.leaves(batch)[0].shape[0]
    key = jax.random.fold_in(key, step)
    places = jax.lax.axis_index(AXIS) * b + jnp.arange(b)
    return jax.vmap(lambda place: jax.random.fold_in(key, place))(places)


def mean_over_devices(tree: Any) -> Any:
    """The mean of each array over the devices, in one exchange of one flat array."""
    if jax.lax.axis_size(AXIS) == 1:  # nothing to exchange, and XLA drops it in place
        return jax.lax.pmean(tree, AXIS)
    flat, restore = jax.flatten_util.ravel_pytree(tree)
    return restore(jax.lax.pmean(flat, AXIS))


def _in_parts(forward: Callable[[Any], Any], keys: Any, parts: int) -> Any:
    """`forward` of equal parts of `keys` along the first axis, joined along it."""
    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), keys)
    out = jax.lax.map(jax.checkpoint(forward), split)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)
