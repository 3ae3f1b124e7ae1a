"""Reading the fields of a Hugging Face `config.json` strictly."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from data_pipeline.schema import UserError
from drin_jax.encoders.layers import ACTIVATIONS

Config = TypeVar("Config")


def from_fields(
    kind: type[Config], values: Mapping[str, Any], where: str | Path, **more: Any
) -> Config:
    """A config dataclass out of a JSON object, its own defaults standing for what is missing.

    Fields are positive ints, floats, strings, bools or tuples of positive ints.

    Args:
        where: names the object in errors.
        more: fields that are taken as they are.

    Raises:
        UserError: a value of another type, or an int below 1.
    """
    given = dict(more)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name in given:
            continue
        value = values.get(field.name, field.default)
        if field.type == tuple[int, ...]:
            value = tuple(value) if isinstance(value, list | tuple) else value
            good = isinstance(value, tuple) and value and all(_positive(part) for part in value)
        elif field.type is int:
            good = _positive(value)
        elif field.type is float:
            good = type(value) in (int, float)
        else:
            good = type(value) is field.type
        if not good:
            raise UserError(f"{where}: {field.name} is {value!r}; download the file again")
        given[field.name] = value
    return kind(**given)


def _positive(value: Any) -> bool:
    return type(value) is int and value > 0


def check_activation(name: str, where: str | Path) -> None:
    """UserError where the activation is not one of ours."""
    if name not in ACTIVATIONS:
        raise UserError(
            f"{where}: hidden_act {name!r} is not supported; "
            f"pass a checkpoint with one of {', '.join(ACTIVATIONS)}"
        )


def check_heads(width: int, heads: int, where: str | Path) -> None:
    """UserError where the heads do not divide the width."""
    if width % heads:
        raise UserError(
            f"{where}: hidden_size {width} is not a multiple of "
            f"num_attention_heads {heads}; the file is damaged"
        )
