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
        """The hidden state after the last step, and after every step.

        Args:
            gates: the input's share of the gates, `self.inputs(x)`, g = 4h.
            mask: steps that are read; others leave the state as it is.
            restart: steps before which the state is set to zero.
        """
        if restart is None:
            restart = jnp.zeros_like(mask)

        def advance(state: State, x: tuple[Array, Array, Array]) -> tuple[State, Array]:
            gates, read, fresh = x
            hidden, cell = (jnp.where(fresh[:, None], 0, part) for part in state)
            new = step(gates + self.recurrent(hidden), cell)
            hidden, cell = (
                jnp.where(read[:, None], after, before)
                for after, before in zip(new, (hidden, cell), strict=True)
            )
            return (hidden, cell), hidden

        zero = jnp.zeros((len(gates), gates.shape[-1] // 4), gates.dtype)
        steps = (gates.swapaxes(0, 1), mask.T, restart.T)
        (last, _), states = jax.lax.scan(advance, (zero, zero), steps)
        return last, states.swapaxes(0, 1)

    def of_zero(self) -> Float[Array, " h"]:
        """The hidden state after one zero vector."""
        gates = self.bias()
        return step(gates, jnp.zeros(len(gates) // 4, gates.dtype))[0]

    def bias(self) -> Float[Array, " g"]:
        """Both biases, in the dtype of the arithmetic."""
        total = value(self.inputs.bias) + value(self.recurrent.bias)
        return total.astype(self.inputs.dtype or total.dtype)
