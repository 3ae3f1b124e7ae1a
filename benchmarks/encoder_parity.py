"""Largest differences between our CLIP and ResNet and transformers' PyTorch ones, by shape.

    python -m benchmarks.encoder_parity [--only ViT-B/32 ResNet-50 ...]

Random weights at the published shapes, random pictures and tokens, float32. Hidden states are the
last layer's. Each column gives the worst absolute difference and the reference's largest magnitude.
"""

import argparse
import fnmatch
import functools
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from data_pipeline.output import Progress
from drin_jax.encoders import clip, pretrained, resnet

Pair = tuple[np.ndarray, np.ndarray]  # ours, theirs


def compare_clip(
    shape: Mapping[str, Any], *, pictures: int = 2, texts: int = 3, tokens: int = 77
) -> dict[str, Pair]:
    """Hidden states and embeddings of both towers, on texts of different lengths."""
    import torch

    from benchmarks import torch_encoders

    theirs = torch_encoders.clip(**shape)
    ours = _ours(clip.Clip, clip.ClipConfig, clip, theirs)
    rng = np.random.default_rng(0)
    settings, side = theirs.config.text_config, theirs.config.vision_config.image_size
    last = settings.vocab_size - 1
    end = last if settings.eos_token_id == clip.LEGACY_EOS else settings.eos_token_id
    ids = rng.integers(0, last, (texts, tokens)).astype(np.int32)
    ids[ids == end] = (end + 1) % last  # end tokens from the end on, and nowhere before
    ids[np.arange(tokens) >= np.linspace(tokens - 1, 1, texts).astype(int)[:, None]] = end
    pixels = rng.normal(size=(pictures, side, side, 3)).astype(np.float32)

    @nnx.jit  # with the weights as an argument: as constants they take long to compile
    def run(ours: clip.Clip, ids: jax.Array, pixels: jax.Array) -> tuple[jax.Array, ...]:
        hidden, shown = ours.text(ids)[0], ours.vision(pixels)[0]
        return hidden, ours.encode_text(ids), shown, ours.encode_pixels(pixels)

    with torch.inference_mode():
        text = theirs.get_text_features(torch.from_numpy(ids).long())
        image = theirs.get_image_features(torch_encoders.channels_first(pixels))
    reference = [getattr(out, name) for out in (text, image) for name in _OUTPUTS]
    names = ("text hidden", "text embedding", "picture hidden", "picture embedding")
    mine = run(ours, jnp.asarray(ids), jnp.asarray(pixels))
    return {
        name: (np.asarray(a), b.numpy()) for name, a, b in zip(names, mine, reference, strict=True)
    }


_OUTPUTS = ("last_hidden_state", "pooler_output")


def compare_resnet(
    shape: Mapping[str, Any], *, pictures: int = 2, side: int = 224
) -> dict[str, Pair]:
    """The last feature map and the pooled vector."""
    import torch

    from benchmarks import torch_encoders

    theirs = torch_encoders.resnet(shape)
    ours = _ours(resnet.ResNet, resnet.ResNetConfig, resnet, theirs)
    pixels = np.random.default_rng(0).normal(size=(pictures, side, side, 3)).astype(np.float32)
    with torch.inference_mode():
        out = theirs(torch_encoders.channels_first(pixels))
    regions, pooled = nnx.jit(lambda model, x: model(x))(ours, jnp.asarray(pixels))
    grid = out.last_hidden_state.flatten(2).transpose(1, 2)
    return {
        "regions": (np.asarray(regions), grid.numpy()),
        "pooled": (np.asarray(pooled), out.pooler_output.flatten(1).numpy()),
    }


def _ours(kind: Any, config_kind: Any, module: Any, theirs: Any) -> Any:
    """Our model with the weights and the config.json of theirs."""
    from benchmarks import torch_encoders

    with tempfile.TemporaryDirectory() as folder:
        theirs.config.save_pretrained(folder)
        config = config_kind.from_folder(Path(folder))
    tensors = {
        name: value
        for name, value in torch_encoders.tensors(theirs).items()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in module.IGNORED)
    }
    return pretrained.load(functools.partial(kind, config), tensors, module.NAMES)


def rows(only: list[str]) -> dict[str, Callable[[], dict[str, Pair]]]:
    """What to compare, by the shape's name."""
    from benchmarks import torch_encoders

    def of_clip(shape: Mapping[str, Any]) -> Callable[[], dict[str, Pair]]:
        return lambda: compare_clip(shape)

    def of_resnet(shape: Mapping[str, Any]) -> Callable[[], dict[str, Pair]]:
        return lambda: compare_resnet(shape)

    found = {name: of_clip(shape) for name, shape in torch_encoders.CLIP_SHAPES.items()}
    found |= {name: of_resnet(shape) for name, shape in torch_encoders.RESNET_SHAPES.items()}
    if unknown := set(only) - set(found):
        sys.exit(f"error: no shape {', '.join(sorted(unknown))}; use {', '.join(found)}")
    return {name: run for name, run in found.items() if not only or name in only}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="names of shapes; all by default")
    args = parser.parse_args()
    try:
        import torch  # noqa: F401
    except ImportError:
        sys.exit("error: PyTorch, the reference, is missing; pip install -e '.[parity]'")
    jobs = rows(args.only)
    lines = []
    with Progress("encoder_parity", len(jobs), unit="shapes") as bar:
        for name, run in jobs.items():
            for what, (ours, theirs) in run().items():
                worst, largest = np.abs(ours - theirs).max(), np.abs(theirs).max()
                lines.append(f"{name:12} {what:18} {worst:9.1e} {largest:9.2f}")
            bar.advance()
    print(f"{'shape':12} {'what':18} {'worst':>9} {'largest':>9}", *lines, sep="\n")


if __name__ == "__main__":
    main()
