"""Before anything imports JAX: the CPU, and checks of every signature of drin_jax at run time."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest
from jaxtyping import install_import_hook

from tests import runtime_types

install_import_hook(["drin_jax"], f"{runtime_types.__name__}.check")


def pytest_configure(config: pytest.Config) -> None:
    """Beartype would have `typing.Hashable` imported from elsewhere; nothing else is silenced."""
    warning = "beartype.roar.BeartypeDecorHintPep585DeprecationWarning"
    config.addinivalue_line("filterwarnings", f"ignore::{warning}")
