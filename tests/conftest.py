"""Before anything imports JAX: the CPU, a cache of compiled programs for this session alone (the
commands that tests start compile the same few again and again), and checks of every signature of
drin_jax at run time."""

import os
import tempfile

from tests.support import compilation

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = compilation.flags()

import pytest
from jaxtyping import install_import_hook

from tests.support import runtime_types

install_import_hook(["drin_jax"], f"{runtime_types.__name__}.check")


def pytest_configure(config: pytest.Config) -> None:
    """Beartype would have `typing.Hashable` imported from elsewhere; nothing else is silenced."""
    warning = "beartype.roar.BeartypeDecorHintPep585DeprecationWarning"
    config.addinivalue_line("filterwarnings", f"ignore::{warning}")
    if not hasattr(config, "workerinput"):  # xdist's workers inherit it
        folder = tempfile.TemporaryDirectory(prefix="drin_jax_tests_")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
        config.add_cleanup(folder.cleanup)


# Whole runs and several processes: first, so that no core is left without work at the end.
LONGEST = ("sample_run_test.py", "torture_test.py", "workdir_test.py", "multiprocess_test.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the longest tests go to the front; within a file nothing moves."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else 9)
