"""A small data set in our own form with pictures of every kind, for tests of the extraction."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import common
from drin_jax.config import flat
from tests.support import odd_pictures, tiny_encoders
from tests.support.odd_pictures import photo

SHARED = "images/shared.png"


def write(root: Path, entities: int = 8, mentions: int = 12) -> None:
    """Writes the data set: a third of the entities share a picture, which mention 1 has too; the
    last mentions have every odd file there is."""
    images = root / "images"
    odd = list(odd_pictures.write_all(images))
    photo(70, 50, seed=99).save(root / SHARED)
    boxes = []
    with (root / "entities.jsonl").open("w") as file:
        for i in range(entities):
            image: str | None = f"images/e{i}.png"
            photo(60 + i, 50, seed=i).save(root / f"images/e{i}.png")
            if i % 3 == 2:
                image = SHARED
            elif i % 7 == 3:
                image = None
            row = {"id": f"Q{i}", "name": f"Name {i % 3}", "description": f"thing number {i}"}
            file.write(json.dumps(row | {"image": image}) + "\n")
            boxes.append({"image": f"images/e{i}.png", "boxes": [[2, 3, 30, 40]], "scores": [0.9]})
    with (root / "mentions.jsonl").open("w") as file:
        for i in range(mentions + len(odd)):
            name = f"images/m{i}.jpg"
            if i < mentions:
                (root / name).write_bytes(odd_pictures.jpeg(photo(80, 60, seed=100 + i)))
                two = [[0, 0, 40, 30], [20, 10, 80, 60]]
                boxes.append({"image": name, "boxes": two, "scores": [0.5, 0.8]})
            if i == 1:
                name = SHARED
            row = {
                "id": f"m{i}",
                "text": f"Here is Name {i % 3} in sentence {i}.",
                "start": 8,
                "end": 14,
                "image": name if i < mentions else f"images/{odd[i - mentions]}",
                "entity": f"Q{i % entities}",
                "split": ("train", "train", "valid", "test")[i % 4],
            }
            file.write(json.dumps(row) + "\n")
    boxes.append({"image": SHARED, "boxes": [[5, 5, 60, 45], [0, 0, 9, 9]], "scores": [0.7, 0.6]})
    (root / "boxes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in boxes))


def config(root: Path, encoders: Path, **fields: Any) -> ConfigDict:
    """A config over it with all encoders, objects included, and these fields changed."""
    made = common.get_config()
    values = {
        "data.name": "picture world",
        "data.root": str(root),
        "retrieval.r": 4,
        "encoders.objects": "boxes.jsonl",
        "encoders.entity_objects": 1,
        "encoders.batch_images": 8,
        "image.workers": 1,
        **tiny_encoders.write(encoders),
    }
    made.update_from_flattened_dict(values | fields)
    return made


def command_line(config: ConfigDict) -> list[str]:
    """Flags that make configs/common.py this config."""
    base = flat(common.get_config())
    changed = {k: v for k, v in flat(config).items() if v != base[k]}
    return ["--config=configs/common.py", *(f"--config.{k}={v}" for k, v in changed.items())]
