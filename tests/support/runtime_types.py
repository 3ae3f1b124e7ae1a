"""The checker of signatures that `conftest.py` installs."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do for a float


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with its annotations checked. Constructors are left alone: JAX rebuilds pytrees of
    our dataclasses with shapes, shardings and other things in the place of arrays."""
    return function if function.__name__ == "__init__" else _check(function)
