"""Suites as plans: rows of fields that exist, the stores they share, and mistakes in one line."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from configs import multimodal, sample, text, wikimel_text
from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from drin_jax import models
from drin_jax.config import check
from drin_jax.experiments import suites
from drin_jax.experiments.results import read_published
from drin_jax.experiments.runner import Stores
from drin_jax.extract import preparation
from tests.support.commands import assert_one_clear_line, run, small_store, user_error


@pytest.mark.parametrize("name", suites.SUITES)
def test_a_suite_is_rows_of_fields_that_exist(name: str) -> None:
    suite = suites.get(name)
    for base in (card.get_config() for card in (sample, wikimel_text, text, multimodal)):
        before = base.to_json()
        plans = suite.plan(base)
        slugs = [plan.row for plan in plans]
        assert len(set(slugs)) == len(slugs)
        assert all(slug.replace("_", "").isalnum() for slug in slugs)
        assert suite.default_against(base) in slugs
        configs = {plan.row: plan.config(base).to_json() for plan in plans if not plan.why_not}
        assert base.to_json() == before  # rows do not share what they change
        assert name == "learning_curve" or len(set(configs.values())) == len(configs)


def test_what_a_config_cannot_have_is_not_planned() -> None:
    def reasons(name: str, config: ConfigDict) -> dict[str, str | None]:
        return {plan.row: plan.why_not for plan in suites.get(name).plan(config)}

    bare, world = wikimel_text.get_config(), sample.get_config()
    assert "no relation is left" in str(reasons("table3", bare)["without_tt"])
    assert "no relation tv" in str(reasons("table3", bare)["without_tv"])
    assert set(reasons("table3", world).values()) == {None}
    assert "boxes.jsonl" in str(reasons("table5", world)["maskrcnn"])
    assert "pictures" in str(reasons("table5", bare)["maskrcnn"])
    assert reasons("table5", world)["boxes"] is None
    assert set(reasons("choices", world).values()) == {None}
    assert "not relational" in str(reasons("relations", world)["full"])
    assert "no relation is left" in str(reasons("table3", text.get_config())["without_tt"])
    assert set(reasons("relations", text.get_config()).values()) == {None}
    world.model.form = "upstream"
    assert "paper form" in str(reasons("choices", world)["edge_scale_mean"])


@pytest.mark.parametrize("refuse", [False, True])
def test_rows_share_the_stores_that_can_serve_them(
    refuse: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = small_store(tmp_path / "plain")
    whole = small_store(tmp_path / "whole", tokens=True, regions=True)
    asked: list[tuple[str, set[str]]] = []

    def prepared(config: ConfigDict, workdir: Path, needs: Collection[str]) -> Store:
        """Notes what is asked for; gives what some systems lack only where that is asked for."""
        asked.append((Path(config.data.store).name, set(needs)))
        if needs and refuse:
            raise UserError("the raw files are gone")
        return Store.open(whole if needs else plain)

    monkeypatch.setattr(preparation, "prepare", prepared)
    base = sample.get_config()
    rows = {plan.row: plan.config(base) for plan in suites.get("table2").plan(base)}
    stores = Stores(base, tmp_path)
    opened = stores.of("bert", rows["bert"])
    assert stores.of("drin", rows["drin"]) is opened
    if refuse:
        told = user_error(lambda: stores.of("ghmfc", rows["ghmfc"]))
        assert told == "the raw files are gone"
        assert stores.of("jmel", rows["jmel"]) is opened
    else:
        added = stores.of("ghmfc", rows["ghmfc"])
        assert not added.lacks(models.needs("ghmfc", 1))
        assert stores.of("mel_hi", rows["mel_hi"]) is stores.of("bert", rows["bert"]) is added
    assert asked == [("store", set()), ("store", {"tokens", "regions"})]
    rows = {plan.row: plan.config(base) for plan in suites.get("retrieval").plan(base)}
    stores = Stores(base, tmp_path)
    assert len({id(stores.of(row, config)) for row, config in rows.items()}) == 5
    first = ["union", "store", "statistics", "given", "vectors"]
    assert [name for name, _ in asked[-5:]] == first


def test_what_only_ours_learns_is_asked_of_no_other_system() -> None:
    base = text.get_config()
    base.model.nil = True
    for plan in suites.get("table2").plan(base):
        config = plan.config(base)
        assert config.model.nil == (config.model.name == "relational")
        check(config)


def test_published_numbers_come_with_their_source(tmp_path: Path) -> None:
    path = tmp_path / "published.json"
    row = {"system": "drin", "dataset": "a", "metric": "hits@1", "value": 0.5,
           "protocol": "p", "source": "s"}  # fmt: skip

    def refused(content: Any) -> str:
        path.write_text(json.dumps(content))
        return user_error(lambda: read_published(path))

    path.write_text(json.dumps([row]))
    assert read_published(path) == [row]
    assert "entry 2 has no text in 'source'" in refused([row, row | {"source": ""}])
    assert "a fraction from 0 to 1" in refused([row | {"value": 51.1}])
    assert "known are mrr, hits@K" in refused([row | {"metric": "f1"}])
    assert "holds no list); --published takes a list of objects" in refused({})
    path.unlink()
    assert "no such file" in user_error(lambda: read_published(path))


def test_the_command_tells_mistakes_in_one_line(tmp_path: Path) -> None:
    config = "--config=configs/common.py"
    result = run("drin_jax.experiments", "table9", config, f"--workdir={tmp_path}")
    assert_one_clear_line(result, "SUITE is 'table9'; known are table2, table3", "gold_slot")
    assert_one_clear_line(run("drin_jax.experiments", config), "SUITE is missing", code=2)
