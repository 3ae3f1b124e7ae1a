"""Recurrent layers over padded sequences: a padded step keeps the state.

The input's share of all gates is one product over all steps, made before the scan; the scan carries
the recurrent product only.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from drin_jax.models.graph import value

State = tuple[Float[Array, "*b h"], Float[Array, "*b h"]]


def step(gates: Float[Array, "*b g"], cell: Float[Array, "*b h"]) -> State:
    """One step of an LSTM (Hochreiter and Schmidhuber, 1997), gates in the order i, f, g, o.

    Args:
        gates: before their activation, g = 4h.
        cell: the last step's cell state c.
    Returns:
        The hidden state h and the new c.
    """
    i, f, g, o = jnp.split(gates, 4, -1)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell


def read(
    gates: Float[Array, "b s g"],
    mask: Bool[Array, "b s"],
    restart: Bool[Array, "b s"],
    kernel: Float[Array, "h g"],
    bias: Float[Array, " g"],
) -> tuple[Float[Array, "b h"], Float[Array, "b s h"]]:
    """The hidden state after the last step, and after every step.

    Args:
        gates: the input's share of the gates.
        mask: steps that are read; others leave the state as it is.
        restart: steps before which the state is set to zero.
        kernel, bias: of the recurrent product.
    """

    def advance(state: State, x: tuple[Array, Array, Array]) -> tuple[State, Array]:
        gates, reads, fresh = x
        hidden, cell = (jnp.where(fresh[:, None], 0, part) for part in state)
        new = step(gates + hidden @ kernel + bias, cell)
        hidden, cell = (
            jnp.where(reads[:, None], after, before)
            for after, before in zip(new, (hidden, cell), strict=True)
        )
        return (hidden, cell), hidden

    zero = jnp.zeros((gates.shape[0], kernel.shape[0]), gates.dtype)
    steps = (gates.swapaxes(0, 1), mask.T, restart.T)
    (last, _), states = jax.lax.scan(advance, (zero, zero), steps)
    return last, states.swapaxes(0, 1)


class LSTM(nnx.Module):
    """An LSTM over [b, s, f] with h hidden units, with PyTorch's two biases."""

    def __init__(self, features: int, hidden: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.inputs = nnx.Linear(features, 4 * hidden, dtype=dtype, rngs=rngs)
        self.recurrent = nnx.Linear(hidden, 4 * hidden, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        gates: Float[Array, "b s g"],
        mask: Bool[Array, "b s"],
        restart: Bool[Array, "b s"] | None = None,
    ) -> tuple[Float[Array, "b h"], Float[Array, "b s h"]]:
        """`read` of `gates = self.inputs(x)`, without a restart by default."""
        restart = jnp.zeros_like(mask) if restart is None else restart
        return read(gates, mask, restart, *self.recurrence(gates.dtype))

    def recurrence(self, dtype: DTypeLike) -> tuple[Float[Array, "h g"], Float[Array, " g"]]:
        """Kernel and bias of the recurrent product."""
        layer = self.recurrent
        return value(layer.kernel).astype(dtype), value(layer.bias).astype(dtype)

    def of_zero(self, dtype: DTypeLike) -> Float[Array, " h"]:
        """The hidden state after one zero vector."""
        gates = (value(self.inputs.bias) + value(self.recurrent.bias)).astype(dtype)
        return step(gates, jnp.zeros(len(gates) // 4, dtype))[0]


def both_ways(
    forward: LSTM,
    backward: LSTM,
    x: Float[Array, "b s f"],
    until: Bool[Array, "b s"],
    since: Bool[Array, "b s"],
) -> Float[Array, "b h2"]:
    """Last states of two LSTMs, joined: one reads the steps `until` from the left, the other the
    steps `since` from the right. Both go in one scan, which halves the number of its steps."""
    gates = jnp.stack([forward.inputs(x), backward.inputs(x)[:, ::-1]])
    mask = jnp.stack([until, since[:, ::-1]])
    pair = (layer.recurrence(gates.dtype) for layer in (forward, backward))
    kernel, bias = (jnp.stack(arrays) for arrays in zip(*pair, strict=True))
    last, _ = jax.vmap(read)(gates, mask, jnp.zeros_like(mask), kernel, bias)
    return jnp.concatenate(list(last), -1)
