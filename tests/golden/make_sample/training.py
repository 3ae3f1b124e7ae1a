"""Trains the sample world's tiny ResNet and CLIP, whose weights are kept with the package.

    python -m tests.golden.make_sample.training --out=DIR [--seed=N] [--pictures=N] [--steps=N]

Both learn from pictures and captions of the world's own renderer and words (`lessons`), but
drawn from a seed of their own and never from a generated world: so no picture of a test mention has
been seen by an encoder, as none has been by a published one. What is taught are cosines, since
cosines are what R_tv, R_vt [7, 8] and R_vv [11] compare:

* ResNet: of two regions, the share of shape and colour they have in common; of two whole pictures,
  that of scene, field and charge colour, which is what ties a banner to its description. Its blocks
  end without an activation (`hidden_act` "linear"), so that features can be orthogonal.
* CLIP: of a caption and a picture, the share of the caption's concepts that the picture shows.

Linear heads that name the facets help at the start and are thrown away. Writes DIR/resnet and
DIR/clip in Hugging Face's layout.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from flax import nnx
from jaxtyping import Array, Bool, Float, Int
from safetensors.numpy import load_file, save_file

from data_pipeline.output import Progress
from data_pipeline.sample import world
from data_pipeline.schema import UserError
from drin_jax import command
from drin_jax.encoders.clip import Clip, ClipConfig, TextConfig, VisionConfig
from drin_jax.encoders.hf import load_tokenizer
from drin_jax.encoders.resnet import ResNet, ResNetConfig
from tests.golden.make_sample import byte_pairs
from tests.golden.make_sample import lessons as lesson_maker
from tests.golden.make_sample.lessons import FACETS, UNTOLD, Captions, Lessons
from tests.golden.make_sample.saved_encoders import save_clip, save_resnet

SIDE = 64
MEAN, STD = 0.45, 0.25  # of all channels
COSINES = 10.0  # weight of the cosines beside the heads
LENGTH = 28.0  # of the ResNet's vectors: vertices that start small are learned late
BATCH = 128
# Facets that the ResNet's cosines are about, of whole pictures and of regions.
COMPARED = {"whole": ("kind", "field", "colour"), "parts": ("shape", "colour")}
RESNET = ResNetConfig(
    embedding_size=16,
    hidden_sizes=(16, 32, 64),
    depths=(1, 1, 1),
    layer_type="basic",
    hidden_act="linear",
)
VECTOR = 48  # width of CLIP's shared space
TEXT = TextConfig(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=byte_pairs.MAX_LENGTH,
)
VISION = VisionConfig(
    hidden_size=96,
    intermediate_size=192,
    num_hidden_layers=3,
    num_attention_heads=4,
    image_size=SIDE,
    patch_size=16,
)

flags.DEFINE_string("out", None, "Folder for resnet/ and clip/.")
flags.DEFINE_integer("seed", 1, "Of pictures, captions and parameters; not the world's own.")
flags.DEFINE_integer("pictures", 16_000, "Pictures drawn to learn from.", lower_bound=256)
flags.DEFINE_integer("steps", 1_600, "Steps of CLIP; the ResNet takes half.", lower_bound=2)

Model = TypeVar("Model", bound=nnx.Module)
Batch = dict[str, Any]


def facet_loss(
    heads: Mapping[str, Array], features: Float[Array, "b v"], labels: Mapping[str, Array]
) -> Float[Array, ""]:
    """Mean cross-entropy of the facets that are told; linear heads on the features."""
    losses = []
    for name, head in heads.items():
        told = labels[name] != UNTOLD
        entropy = optax.softmax_cross_entropy_with_integer_labels(
            features @ head, jnp.where(told, labels[name], 0)
        )
        losses.append(jnp.where(told, entropy, 0).sum() / jnp.maximum(told.sum(), 1))
    return jnp.stack(losses).mean()


def cosine_loss(
    x: Float[Array, "b v"], y: Float[Array, "k v"], target: Float[Array, "b k"]
) -> Float[Array, ""]:
    """Squared error of all pairs' cosines. Pairs with something in common weigh as much together as
    those with nothing, of which there are many more."""
    error = jnp.square(cosines(x, y) - target)
    near = target > 0

    def mean(some: Bool[Array, "b k"]) -> Float[Array, ""]:
        return jnp.where(some, error, 0).sum() / jnp.maximum(some.sum(), 1)

    return mean(near) + mean(~near)


def cosines(x: Float[Array, "b v"], y: Float[Array, "k v"]) -> Float[Array, "b k"]:
    """Of every row of x with every row of y; 0 for rows of zeros."""
    x, y = (a / jnp.maximum(jnp.linalg.norm(a, axis=1, keepdims=True), 1e-8) for a in (x, y))
    return x @ y.T


def hot(labels: Mapping[str, Int[Array, " b"]], names: tuple[str, ...]) -> Float[Array, "b f"]:
    """Rows of 0 and 1 for the values of these facets; cosines of them are what is in common."""
    parts = []
    for name in names:
        values = FACETS[name]
        # That it is a banner or an emblem says nothing that its colours do not.
        says = jnp.array([value not in ("banner", "emblem") for value in values], jnp.float32)
        parts.append(jax.nn.one_hot(labels[name], len(values)) * says)
    return jnp.concatenate(parts, axis=1)


def heads(width: int, names: tuple[str, ...], rng: np.random.Generator) -> dict[str, Array]:
    """A linear map for each facet."""
    return {
        name: jnp.asarray(rng.normal(0, width**-0.5, (width, len(FACETS[name]))), jnp.float32)
        for name in names
    }


def normalise(pixels: Array) -> Float[Array, "b h w 3"]:
    """What `_write_preprocessor` tells the encoders to do."""
    return (pixels.astype(jnp.float32) / 255 - MEAN) / STD


def fit(
    model: Model,
    extra: Any,
    loss: Callable[[Model, Any, Batch], Array],
    batches: Iterator[Batch],
    steps: int,
    title: str,
    rate: float,
) -> Model:
    """AdamW over the model and `extra`, which is thrown away; batch statistics are kept."""
    model.train()
    parts: Any = nnx.split(model, nnx.Param, ...)
    graph, params, statistics = parts
    schedule = optax.warmup_cosine_decay_schedule(0, rate, steps // 20 + 1, max(steps, 2))
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.02)
    )
    state: Any = (params, extra), statistics, optimiser.init((params, extra))

    @jax.jit
    def step(state: Any, batch: Batch) -> tuple[Any, Array]:
        trained, statistics, memory = state

        def value(trained: Any) -> tuple[Array, Any]:
            current = nnx.merge(graph, trained[0], statistics, copy=True)
            found = loss(current, trained[1], batch)
            after: Any = nnx.split(current, nnx.Param, ...)
            return found, after[2]

        (found, statistics), gradient = jax.value_and_grad(value, has_aux=True)(trained)
        update, memory = optimiser.update(gradient, memory, trained)
        return (optax.apply_updates(trained, update), statistics, memory), found

    with Progress(title, steps) as bar:
        for i in range(1, steps + 1):
            state, found = step(state, next(batches))
            if i % 20 == 0 or i == steps:  # not oftener: it waits for the device
                bar.note(f"loss {float(found):.3f}")
            bar.advance()
    (params, _), statistics, _ = state
    trained = nnx.merge(graph, params, statistics)
    trained.eval()
    return trained


def train_resnet(lessons: Lessons, steps: int, seed: int) -> ResNet:
    """The ResNet: half of a batch are whole pictures, half are regions."""
    rng = np.random.default_rng([seed, 1])
    model = ResNet(RESNET, rngs=nnx.Rngs(seed))
    named = {"whole": tuple(FACETS), "parts": COMPARED["parts"]}
    extra = {side: heads(RESNET.hidden_sizes[-1], names, rng) for side, names in named.items()}

    def batches() -> Iterator[Batch]:
        half = BATCH // 2
        while True:
            whole = rng.integers(0, len(lessons.pixels), half)
            parts = rng.integers(0, len(lessons.crops), half)
            of = lessons.crop_of[parts]
            yield {
                "pixels": np.concatenate([lessons.pixels[whole], lessons.crops[parts]]),
                "whole": {name: values[whole] for name, values in lessons.facets.items()},
                "parts": {name: lessons.facets[name][of] for name in COMPARED["parts"]},
            }

    def loss(model: ResNet, extra: Any, batch: Batch) -> Array:
        _, pooled = model(normalise(batch["pixels"]))
        total = jnp.zeros(())
        for (side, names), vectors in zip(COMPARED.items(), jnp.split(pooled, 2), strict=True):
            shown = hot(batch[side], names)
            total += facet_loss(extra[side], vectors, batch[side])
            total += COSINES * cosine_loss(vectors, vectors, cosines(shown, shown))
            total += jnp.square(jnp.linalg.norm(vectors, axis=1) / LENGTH - 1).mean()
        return total

    return fit(model, extra, loss, batches(), steps, "training the ResNet", 3e-3)


def train_clip(lessons: Lessons, folder: Path, steps: int, seed: int) -> Clip:
    """CLIP, with the tokenizer written to `folder`; captions are new in every batch."""
    rng = np.random.default_rng([seed, 2])
    size = byte_pairs.write(folder)
    tokenizer = load_tokenizer(folder, size)
    text = dataclasses.replace(TEXT, vocab_size=size, eos_token_id=tokenizer.eos_token_id)
    model = Clip(ClipConfig(text, VISION, VECTOR), rngs=nnx.Rngs(seed))
    captions = Captions()

    def batches() -> Iterator[Batch]:
        length = text.max_position_embeddings
        while True:
            some = rng.integers(0, len(lessons.pixels), BATCH)
            shown = lessons.concepts[some]
            texts, named = captions.write(shown, rng)
            encoded = tokenizer(texts, truncation=True, max_length=length, padding="max_length")
            share = named.astype(np.float32) @ shown.T.astype(np.float32)
            yield {
                "pixels": lessons.pixels[some],
                "ids": np.array(encoded["input_ids"], np.int32),
                "target": share / np.maximum(named.sum(1, keepdims=True), 1),
                "facets": {name: values[some] for name, values in lessons.facets.items()},
            }

    def loss(model: Clip, extra: Any, batch: Batch) -> Array:
        pictures = model.encode_pixels(normalise(batch["pixels"]))
        texts = model.encode_text(batch["ids"])
        told = facet_loss(extra, pictures, batch["facets"])
        return told + COSINES * cosine_loss(texts, pictures, batch["target"])

    extra = heads(VECTOR, tuple(FACETS), rng)
    return fit(model, extra, loss, batches(), steps, "training CLIP", 2e-3)


def write_preprocessor(folder: Path, kind: str, **fields: Any) -> None:
    """`preprocessor_config.json`: pictures and regions at SIDE, as they were trained on."""
    settings = {
        "image_processor_type": f"{kind}ImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": SIDE},
        "resample": 3,
        **{"do_rescale": True, "rescale_factor": 1 / 255},
        **{"do_normalize": True, "image_mean": [MEAN] * 3, "image_std": [STD] * 3},
        **fields,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def halve(folder: Path) -> None:
    """Weights in float16: half the file, and the loader casts what it reads."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    half = {k: v.astype(np.float16) if v.dtype == np.float32 else v for k, v in tensors.items()}
    save_file(half, file, metadata={"format": "pt"})


def write(lessons: Lessons, out: Path, steps: int, seed: int) -> None:
    """Trains both and writes `out`/resnet and `out`/clip."""
    clip, resnet = out / "clip", out / "resnet"
    clip.mkdir(parents=True, exist_ok=True)
    save_resnet(train_resnet(lessons, steps // 2, seed), resnet)
    write_preprocessor(resnet, "ConvNext", crop_pct=1.0)
    save_clip(train_clip(lessons, clip, steps, seed), clip)
    square = {"height": SIDE, "width": SIDE}
    write_preprocessor(clip, "CLIP", do_center_crop=True, crop_size=square)
    halve(clip)
    halve(resnet)


def main() -> None:
    """Draw the lessons, train both, write both."""
    values = flags.FLAGS
    if not values.out:
        raise UserError("--out is missing; name the folder for resnet/ and clip/")
    if values.seed == world.SEED:
        raise UserError(f"--seed={world.SEED} is the world's own; take another")
    lessons = lesson_maker.make(values.seed, values.pictures)
    write(lessons, Path(values.out), values.steps, values.seed)


if __name__ == "__main__":
    command.run(main)
