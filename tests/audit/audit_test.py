"""The protocol gives nothing away: on noise the default is at chance, the published one is not."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.sample import tiny_bert
from tests.support.commands import run


def audited(folder: Path, gold_slot: str, *more: str) -> tuple[dict[str, Any], str]:
    """The findings by name of the published form and loss, and what was printed. Thousands of steps
    are taken, so XLA takes its time."""
    workdir = folder / gold_slot
    result = run(
        "drin_jax.audit",
        "--config=configs/common.py",
        f"--workdir={workdir}",
        f"--config.data.root={folder / 'raw'}",
        f"--config.encoders.text={folder / 'encoder'}",
        "--config.retrieval.r=4",
        f"--config.graph.gold_slot={gold_slot}",
        *more,
        hasty=False,
    )
    assert result.returncode == 0, result.stderr
    findings = json.loads((workdir / "audit.json").read_text())
    return {finding["finding"]: finding for finding in findings}, result.stdout


def test_the_command_writes_every_finding_and_tells_a_leak(tmp_path: Path) -> None:
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
    tiny_bert.write(tmp_path / "encoder", seed=0)
    findings, printed = audited(tmp_path, "never")
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
    assert (noise["high"] - noise["low"]) / 2 <= 0.02
    assert "noise floor" in printed
    assert "chance 25.0 %" in printed
    assert len(printed.strip().splitlines()) == len(findings) + 1

    one_layer = "--config.model.layers=1"  # is enough to tell
    leaking = audited(tmp_path, "upstream", one_layer)[0]["noise_floor"]
    assert leaking["chance"] == pytest.approx(0.25)
    assert leaking["accuracy"] >= 3 * leaking["chance"], leaking
    assert not leaking["at_chance"]
