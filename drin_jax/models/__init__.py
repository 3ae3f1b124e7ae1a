"""The systems, by name. A new one is one file and one line here."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

from drin_jax.models.bert import BertMatcher
from drin_jax.models.drin import DRIN
from drin_jax.types import UserError

# Each builds a module from the widths of the frozen features and the config's `model` and `graph`
# fields as plain keyword arguments; it takes those it knows.
MODELS: dict[str, Callable[..., nnx.Module]] = {
    "drin": DRIN,
    "bert": lambda text_width, image_width, *, width, dtype, rngs, **_: BertMatcher(
        text_width, width=width, dtype=dtype, rngs=rngs
    ),
}

CHOICES: dict[str, tuple[str, ...]] = {
    "form": ("upstream", "paper"),
    "adjacency": ("block", "dense"),
    "mention_rows": ("mean", "sum"),
    "edge_scale": ("rsqrt", "mean", "none"),
    "edge_activation": ("sigmoid", "tanh", "identity"),
    "vertex_activation": ("gelu", "relu", "tanh"),
    "dtype": ("float32", "bfloat16"),
}


def build(
    name: str, text_width: int, image_width: int, *, dtype: str, rngs: nnx.Rngs, **fields: Any
) -> nnx.Module:
    """The named system over frozen features of these widths; UserError for an unknown choice."""
    if name not in MODELS:
        raise UserError(f"model.name is {name!r}; known are {', '.join(sorted(MODELS))}")
    for field, known in CHOICES.items():
        value = dtype if field == "dtype" else fields.get(field, known[0])
        if value not in known:
            raise UserError(f"{field} is {value!r}; known are {', '.join(known)}")
    return MODELS[name](text_width, image_width, dtype=jnp.dtype(dtype), rngs=rngs, **fields)
