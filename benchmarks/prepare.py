"""Encoder time of a whole preprocessing against the published way of doing it.

    python -m benchmarks.prepare [--mentions N] [--published N] [--size eighth|full] [--json FILE]

Data of WikiDiverse's shape: as many mentions to a surface form (1.67), surface forms to an entity
(1.22) and mentions to a sentence and picture (2) as there, 10 candidates a surface form; each
mention's graph has its 10 candidates and the gold, every entity has a picture. Ours is
`drin_jax.extract.preparation.prepare` from files to store. The published way encodes each
mention's own text and picture and those of its 11 entities again for every mention, texts padded to
512 tokens (CLIP's to its 77); it is timed on a few mentions, in the same encoders, and scaled up.

The encoders are BERT, CLIP and a ResNet with random weights, at the paper's size (bert-base,
ViT-B/32, ResNet-152) or at about an eighth of its operations each. Needs PyTorch to make them.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import transformers
from PIL import Image
from transformers.initialization import no_init_weights

from benchmarks import torch_encoders
from configs import common
from data_pipeline.pictures import images
from data_pipeline.sample import tiny_bert
from drin_jax.encoders.picture_encoders import ClipEncoder, ResNetEncoder
from drin_jax.encoders.text_encoder import TextEncoder
from drin_jax.extract import preparation
from tests.golden.make_sample import byte_pairs
from tests.golden.make_sample.lessons import Captions

SURFACES = 8896 / 14851  # distinct surface forms a mention, in the whole of WikiDiverse
SHARING = 9290 / 7643  # surface forms an entity goes by, there
CANDIDATES = 10
PADDED = 512
GOAL = 10.0
SHAPES: dict[str, dict[str, Any]] = {
    "full": {
        "bert": {},
        "clip": torch_encoders.CLIP_SHAPES["ViT-B/32"],
        "resnet": torch_encoders.RESNET_SHAPES["ResNet-152"],
    },
    "eighth": {
        "bert": {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6},
        "clip": {
            "text": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6},
            "vision": {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6},
        },
        "resnet": torch_encoders.RESNET_SHAPES["ResNet-18"],
    },
}


def write_encoders(folder: Path, size: str) -> None:
    """`bert/`, `clip/` and `resnet/` with random weights."""
    shapes = SHAPES[size]
    tiny_bert.write(folder / "bert", seed=0)  # for its tokenizer
    settings = json.loads((folder / "bert" / "config.json").read_text())
    config = transformers.BertConfig(vocab_size=settings["vocab_size"], **shapes["bert"])
    with no_init_weights():
        bert = torch_encoders.randomised(transformers.BertModel(config))
    bert.save_pretrained(folder / "bert")
    vocabulary = byte_pairs.write(folder / "clip")
    text = {"vocab_size": vocabulary, "eos_token_id": vocabulary - 1, "bos_token_id": 0}
    clip = shapes["clip"]
    torch_encoders.clip(text | clip["text"], clip["vision"]).save_pretrained(folder / "clip")
    torch_encoders.resnet(shapes["resnet"]).save_pretrained(folder / "resnet")
    for name, kind in (("clip", "CLIP"), ("resnet", "ConvNext")):
        processor = {"image_processor_type": f"{kind}ImageProcessor", "resample": 3}
        processor |= {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
        processor |= {"size": {"shortest_edge": 224}}
        (folder / name / "preprocessor_config.json").write_text(json.dumps(processor))


def write_world(root: Path, mentions: int) -> None:
    """The data set in our own form; entity i has picture e{i}.jpg, sentence s has s{s}.jpg."""
    rng = np.random.default_rng(0)
    words = Captions().fillers
    surfaces = max(1, round(mentions * SURFACES))
    entities = max(CANDIDATES, round(surfaces * CANDIDATES / SHARING))
    (root / "images").mkdir(parents=True)

    def picture(name: str) -> str:
        noise = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((320, 240)).save(root / "images" / name, quality=90)
        return f"images/{name}"

    def text(mean: float) -> str:
        return " ".join(rng.choice(words, max(3, int(rng.lognormal(np.log(mean), 0.5)))))

    with (root / "entities.jsonl").open("w") as file:
        for i in range(entities):
            row = {"id": f"Q{i}", "name": f"name {i // CANDIDATES}", "description": text(30)}
            file.write(json.dumps(row | {"image": picture(f"e{i}.jpg")}) + "\n")
    with (root / "mentions.jsonl").open("w") as file:
        for i in range(mentions):
            if i % 2 == 0:
                sentence, image = text(12), picture(f"s{i // 2}.jpg")
            surface = i if i < surfaces else int(rng.integers(surfaces))
            given = [f"Q{(surface * CANDIDATES + k) % entities}" for k in range(CANDIDATES)]
            row = {
                "id": f"m{i}",
                "text": sentence,
                "start": 0,
                "end": len(sentence.split()[0]),
                "image": image,
                "entity": given[0],
                "candidates": given,
                "split": "train" if i < mentions * 0.8 else ("valid", "test")[i // 2 % 2],
            }
            file.write(json.dumps(row) + "\n")


class Clock:
    """Seconds spent in the encoders' calls, and in compilation among them."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("text", "clip texts", "clip pictures", "resnet"), 0.0)
        self.compiling = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        for kind, method, name in (
            (TextEncoder, "encode", "text"),
            (ClipEncoder, "encode_texts", "clip texts"),
            (ClipEncoder, "encode_pictures", "clip pictures"),
            (ResNetEncoder, "encode", "resnet"),
        ):
            setattr(kind, method, self._timed(getattr(kind, method), name))

    def _heard(self, event: str, seconds: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            self.compiling += seconds

    def _timed(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begin, compiled = time.perf_counter(), self.compiling
            result = call(*args, **kwargs)
            took = time.perf_counter() - begin - (self.compiling - compiled)
            self.seconds[name] += took
            return result

        return timed


def published(folder: Path, world: Path, mentions: int) -> Iterator[dict[str, float]]:
    """Seconds of each encoder for one mention after another, compiled before."""
    text = TextEncoder(folder / "bert", max_length=PADDED, batch_tokens=PADDED)
    clip, resnet = (
        ClipEncoder(folder / "clip", batch=12),
        ResNetEncoder(folder / "resnet", batch=12),
    )
    rows = [json.loads(line) for line in (world / "mentions.jsonl").open()][: mentions + 1]
    entities = [json.loads(line) for line in (world / "entities.jsonl").open()]
    known = {entity["id"]: entity for entity in entities}
    recipe = images.plain(224)
    for i, row in enumerate(rows):
        own = [known[name] for name in [*row["candidates"], row["entity"]]]
        texts = [row["text"], *(entity["description"] for entity in own)]
        ids, jobs = text._windows(texts, None, False)
        paths = [row["image"], *(entity["image"] for entity in own)]
        pixels = np.stack([recipe(Image.open(world / path).convert("RGB")) for path in paths])
        padded = np.full((len(texts), clip.max_length), clip._end, np.int32)
        took = {}
        for name, call in (
            (
                "text",
                lambda ids=ids, jobs=jobs: text(
                    ("cls",), text._batch(ids, jobs, PADDED, len(jobs))
                ),
            ),
            ("clip texts", lambda ids=padded: clip("texts", ids)),
            ("clip pictures", lambda pixels=pixels: clip.encode_pictures(pixels)),
            ("resnet", lambda pixels=pixels: resnet.encode(pixels)),
        ):
            begin = time.perf_counter()
            jax.block_until_ready(call())
            took[name] = time.perf_counter() - begin
        if i:  # the first one compiles
            yield took


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every number the report prints."""
    world, encoders = folder / "world", folder / "encoders"
    write_encoders(encoders, args.size)
    write_world(world, args.mentions)
    each = list(published(encoders, world, args.published))
    theirs = {
        name: float(np.median([row[name] for row in each])) * args.mentions for name in each[0]
    }
    config = common.get_config()
    config.data.name, config.data.root, config.data.split = "synthetic", str(world), "published"
    config.retrieval.method, config.retrieval.r = "given", CANDIDATES
    config.text.entity = config.text.clip_entity = "{description}"
    config.encoders.text = str(encoders / "bert")
    config.encoders.image, config.encoders.clip = str(encoders / "resnet"), str(encoders / "clip")
    clock = Clock()
    begin = time.perf_counter()
    preparation.prepare(config, folder / "work")
    whole = time.perf_counter() - begin
    ours = dict(clock.seconds)
    pictures = list((world / "images").iterdir())
    return {
        "benchmark": "prepare",
        "device": jax.local_devices()[0].device_kind,
        "size": args.size,
        "mentions": args.mentions,
        "seconds": ours,
        "published_seconds": theirs,
        "published_measured_on": len(each),
        "ratio": {name: theirs[name] / ours[name] for name in ours},
        "ratio_all": sum(theirs.values()) / sum(ours.values()),
        "slots_per_picture": args.mentions * (CANDIDATES + 2) / len(pictures),
        "compiling_s": clock.compiling,
        "whole_run_s": whole,
        "goal": GOAL,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mentions", type=int, default=500)
    parser.add_argument("--published", type=int, default=6, help="mentions timed that way")
    parser.add_argument("--size", default="eighth", choices=SHAPES)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        row = measure(args, Path(folder))
    print(f"{row['mentions']} mentions, encoders of {row['size']} size, on {row['device']}")
    for name, seconds in row["seconds"].items():
        print(
            f"{name:14} ours {seconds:8.1f} s   published way "
            f"{row['published_seconds'][name]:8.1f} s   {row['ratio'][name]:6.1f}x"
        )
    print(
        f"a picture stands in {row['slots_per_picture']:.1f} places: encoding each once, however "
        "fast a program does it, gains that much and no more"
    )
    print(
        f"all encoders: {row['ratio_all']:.1f}x less time (goal {GOAL:.0f}x); whole run "
        f"{row['whole_run_s']:.0f} s, compilation {row['compiling_s']:.0f} s of it, counted in "
        "neither way"
    )
    print(json.dumps(row))
    if args.json:
        args.json.write_text(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
