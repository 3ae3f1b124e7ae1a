"""Before anything imports JAX: the CPU, a cache of compiled programs for this session alone (the
commands that tests start compile the same few again and again), and checks of every signature of
drin_jax at run time."""

import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest
from jaxtyping import install_import_hook

from tests import runtime_types

install_import_hook(["drin_jax"], f"{runtime_types.__name__}.check")


def pytest_configure(config: pytest.Config) -> None:
    """Beartype would have `typing.Hashable` imported from elsewhere; nothing else is silenced."""
    warning = "beartype.roar.BeartypeDecorHintPep585DeprecationWarning"
    config.addinivalue_line("filterwarnings", f"ignore::{warning}")
    if not hasattr(config, "workerinput"):  # xdist's workers inherit it
        folder = tempfile.TemporaryDirectory(prefix="drin_jax_tests_")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        config.add_cleanup(folder.cleanup)
