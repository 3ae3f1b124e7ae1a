"""Peak memory of the extraction of a knowledge base of a million entities with pictures.

    python -m benchmarks.extract_memory [--entities N] [--mentions N] [--folder DIR] [--json FILE]

Writes a synthetic data set in our own form (every entity with a text and a picture of its own) and
makes its store at the paper's widths (text 768, picture 2048, CLIP 512). The encoders are stood in
for by random rows and pictures are empty files, so that it ends in minutes; everything else is the
product: reading, retrieval, shards, scratch tables, edges, checksums. A million need 40 GB of disk.
Mapped file pages are the system's to drop; run it in a control group of 4 GB to see that it does.
"""

import argparse
import json
import os
import resource
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from configs import common
from data_pipeline.output import Progress
from data_pipeline.pictures import images
from drin_jax.extract import preparation
from drin_jax.extract.encoding import Arrays, Encoders

TEXT, PICTURE, CLIP = 768, 2048, 512
LIMIT = 4.0  # GB


class RandomEncoders(Encoders):
    """Random rows in place of what the encoders would say."""

    text = SimpleNamespace(width=TEXT, fingerprint="random", max_length=512)
    clip = SimpleNamespace(width=CLIP, fingerprint="random")
    image = SimpleNamespace(width=PICTURE, fingerprint="random")

    def encode(
        self, kind: str, shards: Iterable[Sequence[Any]], total: int = 0
    ) -> Iterator[Arrays]:
        rng = np.random.default_rng(0)
        for items in shards:
            n = len(items)
            if kind == "pictures":
                paths = {item.path for item in items}
                assert len(paths) == n
                yield {
                    "status": np.zeros(n, np.uint8),
                    "image": rng.random((n, PICTURE), np.float32),
                    "clip_image": rng.random((n, CLIP), np.float32),
                }
            elif kind == "clip_texts":
                yield {"clip_text": rng.random((n, CLIP), np.float32)}
            else:
                names = [k for k in self.poolings if kind.startswith(k.split("_")[0])]
                yield {name: rng.random((n, TEXT), np.float32) for name in names}


def write_world(root: Path, entities: int, mentions: int) -> None:
    """entities.jsonl, mentions.jsonl, and an empty file for each picture, 1,000 to a folder."""
    with (
        Progress("writing the data set", entities, unit="entities") as bar,
        (root / "entities.jsonl").open("w") as file,
    ):
        for i in range(entities):
            folder = f"images/{i // 1000:04d}"
            if i % 1000 == 0:
                (root / folder).mkdir(parents=True)
                bar.advance(min(1000, entities - i))
            image = f"{folder}/{i:07d}.jpg"
            (root / image).touch()
            text = f"Entity {i} is one of many, in place {i % 977}, known since {1500 + i % 500}."
            row = {"id": f"Q{i}", "name": f"Name {i}", "description": text, "image": image}
            file.write(json.dumps(row) + "\n")
    rng = np.random.default_rng(1)
    with (root / "mentions.jsonl").open("w") as file:
        for i in range(mentions):
            given = [f"Q{row}" for row in rng.integers(0, entities, 10)]
            row = {
                "id": f"m{i}",
                "text": f"A sentence about Name {i}.",
                "start": 17,
                "end": 21,
                "image": f"images/0000/{i % 1000:07d}.jpg",
                "entity": given[0],
                "candidates": given,
                "sample": f"s{i}",
                "split": ("train", "valid", "test")[i % 3],
            }
            file.write(json.dumps(row) + "\n")


class Watch(threading.Thread):
    """The largest anonymous memory of this process (RssAnon: file pages that the kernel can drop at
    any time are not in it), looked at ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.1):
            status = Path("/proc/self/status").read_text()
            kilobytes = int(status.split("RssAnon:")[1].split()[0])
            self.peak = max(self.peak, kilobytes / 1e6)


def measure(entities: int, mentions: int, folder: Path) -> dict[str, Any]:
    """Every number the report prints."""
    data = folder / "data"
    data.mkdir()
    write_world(data, entities, mentions)
    config = common.get_config()
    config.data.name = "synthetic"
    config.data.root = str(data)
    config.data.split = "published"
    config.retrieval.method = "given"
    config.retrieval.r = 10
    config.encoders.image, config.encoders.clip = "random", "random"
    preparation.Encoders = RandomEncoders  # type: ignore[misc]
    watch = Watch()
    watch.start()
    begin = time.perf_counter()
    store = preparation.prepare(config, folder / "work")
    seconds = time.perf_counter() - begin
    watch.over.set()
    size = sum(path.stat().st_size for path in store.path.iterdir())
    return {
        "benchmark": "extract_memory",
        "entities": store.sizes["entities"],
        "mentions": store.sizes["mentions"],
        "pictures": store.report["counts"][f"pictures {images.STATUSES[0]}"],
        "store_gb": size / 1e9,
        "seconds": seconds,
        "peak_anonymous_gb": watch.peak,
        "peak_resident_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "limit_gb": LIMIT,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entities", type=int, default=1_000_000)
    parser.add_argument("--mentions", type=int, default=15_000)
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        row = measure(args.entities, args.mentions, Path(folder))
    print(
        f"{row['entities']:,} entities and {row['pictures']:,} pictures: store of "
        f"{row['store_gb']:.1f} GB in {row['seconds']:.0f} s\n"
        f"peak memory: {row['peak_anonymous_gb']:.2f} GB anonymous, "
        f"{row['peak_resident_gb']:.2f} GB with mapped file pages (limit {LIMIT:.0f} GB)"
    )
    print(json.dumps(row))
    if args.json:
        args.json.write_text(json.dumps(row) + "\n")
    os._exit(0 if row["peak_resident_gb"] <= LIMIT else 1)


if __name__ == "__main__":
    main()
