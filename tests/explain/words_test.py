"""What relations know, in words; and what each adds to the lead of the first candidate."""

import math
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.schema import EVIDENCE, LIFE
from drin_jax.explain import cases, words
from drin_jax.workdir import open_run
from tests.main_test import arguments
from tests.relational_run_test import OURS
from tests.support.commands import run, small_store


def test_names() -> None:
    told = {
        (1, 1): "its name equals this name",
        (1, 0): "full name in the sentence equals this name",
        (0, 1): "the mention equals this name, the sentence has a fuller one",
    }
    for (form, surface), text in told.items():
        values = {"form is the name": float(form), "surface is the name": float(surface)}
        assert words.told("names", values) == text
    alike = {"form ratio": 0.754, "surface is last": 1.0}
    assert words.told("names", alike) == "the name is 75 % alike, last word the same"


def test_votes_are_counts_of_training_mentions() -> None:
    values = {"votes of the surface": math.log1p(9), "others of the surface": math.log1p(3)}
    said = "12 training mentions of this surface meant a candidate, 9 of them this one"
    assert words.told("votes", values) == said
    cut = words.told("votes", values, {"others of the surface": 1})
    assert cut == f"at least {said}"
    least = words.told("votes", values, {"others of the surface": -1, "votes of the surface": -1})
    assert least == f"at most {said}".replace(", 9", ", at most 9")
    both = words.told("votes", values, {"others of the surface": -1, "votes of the surface": 1})
    assert both == f"about {said}".replace(", 9", ", at least 9")
    assert words.told("votes", {"named in training": math.log1p(2)}).startswith("meant 2 times")


def test_years() -> None:
    values = {"first year": 1.975, "age": 38 / LIFE, "year named": 0.0}
    assert words.told("years", values) == "since 1975, the text says about 2013"
    assert "another age" in words.told("years", values, {"first year": 1})
    assert "another age" in words.told("years", values, {"age": -1})
    early = values | {"age": -5 / LIFE}
    assert words.told("years", early) == "since 1975, the text says about 1970, before it was there"
    assert "another age" in words.told("years", values | {"age": -1.0})  # where the value ends
    late = words.told("years", values | {"after its time": 1.0})
    assert late == "since 1975, the text says about 2013, at least 25 years after its end"
    assert "names a year" in words.told("years", values | {"year named": 1.0})


@pytest.mark.parametrize("relation", EVIDENCE)
def test_every_relation_has_words_for_whatever_it_knows(relation: str) -> None:
    """Also for values that make no sense together, and for none at all."""
    rng = np.random.default_rng(0)
    assert words.told(relation, dict.fromkeys(EVIDENCE[relation], math.nan)) == ""
    for _ in range(50):
        values = rng.standard_normal(len(EVIDENCE[relation])) * rng.choice([0.1, 1, 4])
        values[rng.random(len(values)) < 0.3] = np.nan
        told = words.told(relation, dict(zip(EVIDENCE[relation], values.tolist(), strict=True)))
        assert "nan" not in told
        assert "\n" not in told


def test_gains_are_what_goes_without_the_relation(tmp_path: Path) -> None:
    """Over a finished run: the lead of the first, less the lead with the relation's values gone."""
    store = small_store(tmp_path / "store", entities=30, r=5, evidence=True)
    result = run("drin_jax.main", *arguments(store, tmp_path / "work", *OURS))
    assert result.returncode == 0, result.stderr
    finished = open_run(tmp_path / "work")
    case = cases.ranked(finished, "test", [0])[0]
    assert set(case.gains) == set(EVIDENCE)
    assert any(abs(gain) > 1e-3 for gain in case.gains.values())
    assert all(set(c.reasons) <= set(EVIDENCE) for c in case.candidates)
    told = run("drin_jax.explain", f"--workdir={tmp_path / 'work'}", "--mention=random")
    assert told.returncode == 0, told.stderr
    for said in ("relation", "lead", "votes"):
        assert said in told.stdout
