"""Fine-tune a model on 200 mentions of your own, against training on them from scratch.

    python examples/fine_tune.py FOLDER [--model=PLACE] [--mentions=200] [--seed=7]

Writes to FOLDER a data set of its own (entities.jsonl, mentions.jsonl and pictures: a world that
the model never saw), the model as a folder, and a card: the model's own config over that data set.
Then it runs, as anybody would,

    python -m drin_jax.main --config=FOLDER/card.py --workdir=FOLDER/scratch
    python -m drin_jax.main --config=FOLDER/card.py --workdir=FOLDER/tuned \
        --config.train.init=FOLDER/model

and prints on how many test mentions each of them is right, and the model as it was. The fewer the
mentions, the more it helps to start from a model: with 200 the two are close, with 50
(--mentions=50) they are not.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from data_pipeline.sample import world
from drin_jax import Linker, Query

CARD = '''\
"""The config of {model}, over {data}."""

from pathlib import Path

from drin_jax.workdir import read_config


def get_config():
    model = Path({model!r})
    config = read_config(model)
    for name in ("text", "image", "clip"):  # a saved model brings its encoders
        if (model / config.encoders[name]).is_dir():
            config.encoders[name] = str(model / config.encoders[name])
    config.data.reader, config.data.root = "jsonl", {data!r}
    config.data.store = {store!r}  # features are computed once for all runs
    config.data.withheld = 0.0
    config.train.batch = 32
    return config
'''


def train(folder: Path, name: str, *more: str) -> Path:
    flags = (f"--config={folder / 'card.py'}", f"--workdir={folder / name}", *more)
    print(f"\npython -m drin_jax.main {' '.join(flags)}", flush=True)
    subprocess.run([sys.executable, "-m", "drin_jax.main", *flags], check=True, capture_output=True)
    return folder / name


def right(linker: Linker, data: Path) -> float:
    """Share of the test mentions whose entity is the first of all."""
    rows = map(json.loads, (data / "mentions.jsonl").read_text().splitlines())
    test = [row for row in rows if row["split"] == "test"]
    queries = (
        Query(row["text"], (row["start"], row["end"]), image=row["image"] and data / row["image"])
        for row in test
    )
    answers = linker.link_many(queries, k=1)
    hits = [found.best.id == row["entity"] for found, row in zip(answers, test, strict=True)]
    return sum(hits) / len(hits)


def main(folder: Path, model: str, mentions: int, seed: int) -> None:
    folder = folder.absolute()
    data = world.generate(
        folder / "data", seed=seed, names=40, sizes=(mentions, mentions // 2, 4 * mentions)
    )
    saved, scores = folder / "model", {}
    if not saved.exists():
        Linker.from_pretrained(model).save_pretrained(saved, with_kb=False)
    card = CARD.format(model=str(saved), data=str(data), store=str(folder / "store"))
    (folder / "card.py").write_text(card)
    scores["the model as it was"] = right(
        Linker.from_pretrained(saved, kb=data / "entities.jsonl"), data
    )
    for name, more in (("scratch", ()), ("tuned", (f"--config.train.init={saved}",))):
        scores[name] = right(Linker.from_pretrained(train(folder, name, *more)), data)
    print(f"\nright of {4 * mentions} test mentions, trained on {mentions}")
    for name, score in scores.items():
        print(f"{name:<20} {score:6.1%}")


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    flags.add_argument("folder", type=Path, help="for data, models and runs")
    flags.add_argument("--model", default="sample", help="workdir, folder or name on the hub")
    flags.add_argument("--mentions", type=int, default=200, help="to train on")
    flags.add_argument("--seed", type=int, default=7, help="of the world that they are of")
    main(**vars(flags.parse_args()))
