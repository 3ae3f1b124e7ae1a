"""Multimodal entity linking: which entity a mention in a text with a picture means.

from drin_jax import Linker
linker = Linker.from_pretrained("sample")
linker.link("Snow lay on the mill of Alfield.", span=(24, 31)).best
"""

import importlib
from typing import Any

import data_pipeline  # noqa: F401  for what it does before a command

__version__ = "0.1.0"

_PUBLIC = {"Linker": "drin_jax.linking.linker", "Query": "drin_jax.linking.query"}


def __getattr__(name: str) -> Any:
    """What is public is imported when it is asked for: not every command needs JAX."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'drin_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
