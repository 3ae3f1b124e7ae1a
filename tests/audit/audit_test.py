"""The protocol gives nothing away: on noise the default is at chance, the published one is not."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.sample import tiny_bert
from drin_jax.audit.noise_floor import NoiseFloor, Structure, measure
from tests.support.commands import run


def graphs(n: int, r: int = 10, seed: int = 0) -> Structure:
    """Full candidate lists; one mention in eleven has no gold among them."""
    rng = np.random.default_rng(seed)
    return Structure(
        candidates=np.ones((n, r), bool),
        entity_has_text=np.ones((n, r), bool),
        entity_has_image=rng.random((n, r)) < 0.8,
        mention_has_image=rng.random(n) < 0.8,
        gold=rng.integers(-1, r, n).astype(np.int32),
    )


def floor(form: str, loss: str, gold_slot: bool) -> NoiseFloor:
    return measure(
        graphs(3000),
        graphs(2600, seed=1),
        gold_slot=gold_slot,
        loss_form=loss,
        margin=0.25,
        name="drin",
        form=form,
        layers=2,
        dtype="float32",
    )


@pytest.mark.parametrize(("form", "loss"), [("upstream", "upstream"), ("paper", "hinge")])
def test_noise_is_at_chance_by_default_and_leaks_with_the_gold_slot(form: str, loss: str) -> None:
    honest = floor(form, loss, gold_slot=False)
    assert honest.trials >= 2000
    assert (honest.high - honest.low) / 2 <= 0.02
    assert honest.at_chance, honest
    leaking = floor(form, loss, gold_slot=True)
    assert leaking.chance == pytest.approx(0.1)
    assert leaking.accuracy >= 3 * leaking.chance, leaking
    assert not leaking.at_chance


def test_the_command_writes_every_finding(tmp_path: Path) -> None:
    """On a corpus of our own form, without pictures and with every oddity counted."""
    root = tmp_path / "raw"
    root.mkdir()
    entities = [
        {"id": f"Q{i}", "name": f"Name {i // 2}", "description": "" if i == 3 else f"thing {i}",
         "image": None}
        for i in range(12)
    ]  # fmt: skip
    mentions = [
        {"id": f"m{i}", "text": f"Here is Name {i % 6} again, {i}.", "start": 8, "end": 14,
         "image": None, "entity": None if i == 0 else "Q99" if i == 1 else f"Q{2 * (i % 6)}",
         "split": ("train", "valid", "test")[i % 3]}
        for i in range(60)
    ]  # fmt: skip
    for name, items in (("entities", entities), ("mentions", mentions)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    encoder = tmp_path / "encoder"
    tiny_bert.write(encoder, seed=0)
    result = run(
        "drin_jax.audit",
        "--config=configs/common.py",
        f"--workdir={tmp_path / 'work'}",
        f"--config.data.root={root}",
        f"--config.encoders.text={encoder}",
        "--config.retrieval.r=4",
    )
    assert result.returncode == 0, result.stderr
    findings = {f["finding"]: f for f in json.loads((tmp_path / "work/audit.json").read_text())}
    assert findings["statistics/train"]["mentions"] == 20
    assert findings["statistics/train"]["nil"] == 1
    assert findings["knowledge_base"]["without_description"] == 1
    assert findings["knowledge_base"]["sharing_name"] == 12
    assert findings["retrieval/valid"]["gold outside the knowledge base"] == 1
    assert findings["retrieval/test"]["recall"]["recall@4"] == 1.0
    assert findings["duplicates/test"]["mentions"] == 0
    noise = findings["noise_floor"]
    assert noise["trials"] >= 2000
    assert noise["chance"] == pytest.approx(0.25)
    assert noise["at_chance"], noise
    assert "noise floor" in result.stdout
    assert "chance 25.0 %" in result.stdout
    assert len(result.stdout.strip().splitlines()) == len(findings) + 1
