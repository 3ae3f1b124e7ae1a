"""A small data set in our own form with candidates of its own, and the flags that train on it."""

import json
import random
from pathlib import Path
from typing import Any

from tests.support import tiny_encoders

SIZES = {"train": 40, "valid": 12, "test": 16}
ENTITIES, GIVEN = 20, 6


def rows(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Entities and mentions; no two mentions share a text."""
    rng = random.Random(seed)
    entities = [
        {"id": f"Q{i}", "name": f"Name {i // 2}", "description": f"thing number {i}"}
        for i in range(ENTITIES)
    ]
    mentions = []
    for split, count in SIZES.items():
        for i in range(count):
            gold = rng.randrange(ENTITIES)
            name = f"Name {gold // 2}"
            others = rng.sample([j for j in range(ENTITIES) if j != gold], GIVEN - 1)
            offered = [f"Q{j}" for j in rng.sample([gold, *others], GIVEN)]
            text = f"{name} was seen in {split} number {i} with thing number {gold}"
            mentions.append(
                {
                    "id": f"{split}{i}",
                    "text": text,
                    "start": 0,
                    "end": len(name),
                    "split": split,
                    "entity": f"Q{gold}",
                    "candidates": offered,
                }
            )
    return entities, mentions


def write(root: Path, entities: list[Any], mentions: list[Any]) -> Path:
    """The two files under `root`; a row that is a string becomes a line as it is."""
    root.mkdir(parents=True, exist_ok=True)
    for name, items in (("entities", entities), ("mentions", mentions)):
        lines = [item if isinstance(item, str) else json.dumps(item) for item in items]
        (root / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines))
    return root


def flags(root: Path, workdir: Path, encoders: Path, *more: str) -> list[str]:
    """Of a command over the data set in `root`; `encoders` is a folder for the text encoder."""
    fields = {
        "data.root": root,
        "data.name": "given",
        "encoders.text": tiny_encoders.write(encoders)["encoders.text"],
        "retrieval.method": "given",
        "model.width": 8,
        "model.layers": 1,
        "train.epochs": 2,
        "train.batch": 8,
        "train.log_every": 1,
        "train.save_every": 3,
        "eval.batch": 8,
    }
    own = [f"--config.{name}={value}" for name, value in fields.items()]
    return ["--config=common", f"--workdir={workdir}", *own, *more]
