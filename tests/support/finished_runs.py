"""Finished runs in tests: what they are trained on, and a look at one of their mentions."""

from drin_jax.explain.cases import Case, ranked
from drin_jax.workdir import FinishedRun

SIZES = {"train": 16, "valid": 8, "test": 12}
ORANGE = (250, 120, 10)


def case_of(run: FinishedRun, row: int) -> Case:
    """What a run makes of a mention of its test split."""
    return ranked(run, "test", [row])[0]
