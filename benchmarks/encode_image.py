"""Pictures a second through CLIP's vision tower and ResNet-50, against transformers' PyTorch.

    python -m benchmarks.encode_image [--batch N] [--repeats N] [--threads N] [--json FILE]

ViT-B/32 and ResNet-50 at 224 x 224 with random weights, float32, on the same cores: ours takes
uint8 pixels and normalises them, theirs takes normalised ones and gets both memory layouts, of
which the better counts. Runs take turns, each number is the best of its runs. The limit is the
rate of a plain matrix product.
"""

import argparse
import copy
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.random_module import random_module
from data_pipeline.output import Progress
from drin_jax.encoders.clip import Clip, ClipConfig, TextConfig
from drin_jax.encoders.frozen import Frozen
from drin_jax.encoders.picture_encoders import Normalisation
from drin_jax.encoders.resnet import ResNet, ResNetConfig

SIDE = 224
SIZE = 2048
SETTINGS = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
MODELS = ("CLIP ViT-B/32", "ResNet-50")


def ours(name: str, dtype: str) -> Frozen:
    """Our encoder: uint8 pixels in, one vector a picture out."""
    normalise = Normalisation.of(SETTINGS, Path("preprocessor_config.json"))
    kind = jnp.dtype(dtype)
    if name == "ResNet-50":
        resnet = random_module(lambda: ResNet(ResNetConfig(), dtype=kind, rngs=nnx.Rngs(0)))
        return Frozen(resnet, dtype, lambda model, _, x: model(normalise(x))[1])
    # The text tower takes no part here: the smallest there is.
    config = ClipConfig(text=TextConfig(vocab_size=2, num_hidden_layers=1))
    clip = random_module(lambda: Clip(config, dtype=kind, rngs=nnx.Rngs(0)))
    return Frozen(clip, dtype, lambda model, _, x: model.encode_pixels(normalise(x)))


def theirs(name: str, pixels: np.ndarray, threads: int) -> dict[str, Callable[[], Any]]:
    """transformers' model on the same pictures in two memory layouts; none without PyTorch."""
    try:
        import torch
        import transformers
    except ImportError:
        return {}
    from benchmarks import torch_encoders

    torch.set_num_threads(threads)
    model: Any
    if name == "ResNet-50":
        model = torch_encoders.resnet({})
    else:
        config = transformers.CLIPVisionConfig(projection_dim=512)
        model = transformers.CLIPVisionModelWithProjection(config).eval()
    given = torch_encoders.channels_first(pixels.astype(np.float32) / 127.5 - 1)

    def run(layout: Any) -> Callable[[], Any]:
        laid, shown = copy.deepcopy(model).to(memory_format=layout), given.to(memory_format=layout)

        def once() -> Any:
            with torch.inference_mode():
                return laid(shown)

        return once

    return {
        "channels first": run(torch.contiguous_format),
        "channels last": run(torch.channels_last),
    }


def matrix_product() -> Callable[[], Any]:
    """The limit: a float32 product of two square matrices."""
    square = jax.random.normal(jax.random.key(0), (SIZE, SIZE))
    product = jax.jit(lambda x: jnp.matmul(x, x, precision="highest"))
    return lambda: product(square)


def operations(frozen: Frozen, rows: np.ndarray) -> float:
    """Floating-point operations of a forward pass as written, before any optimisation."""
    cost = frozen._compute.lower("", frozen._state, rows).cost_analysis()
    return float(cost["flops"])


def fastest(runs: dict[str, Callable[[], Any]], repeats: int, bar: Progress) -> dict[str, float]:
    """Seconds of the best of `repeats` runs of each, in turns, after one that compiles."""
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
        bar.advance()
    return best


def measure(name: str, args: argparse.Namespace, bar: Progress) -> dict[str, Any]:
    """The numbers of one model."""
    batch = args.batch * len(jax.local_devices())
    pixels = np.random.default_rng(0).integers(0, 256, (batch, SIDE, SIDE, 3)).astype(np.uint8)
    frozen = ours(name, args.dtype)
    runs = {"ours": lambda: frozen("", pixels), "limit": matrix_product()}
    peers = theirs(name, pixels, args.threads) if args.dtype == "float32" else {}
    best = fastest(runs | peers, args.repeats, bar)
    rate = 2 * SIZE**3 / best["limit"]
    peer = min((best[name] for name in peers), default=None)
    return {
        "benchmark": "encode_image",
        "model": name,
        "device": jax.local_devices()[0].device_kind,
        "dtype": args.dtype,
        "batch": batch,
        "ours_per_s": batch / best["ours"],
        "torch_per_s": {name: batch / best[name] for name in peers},
        "ratio_torch": peer / best["ours"] if peer else None,
        "matmul_gflops": rate / 1e9,
        "share_of_matmul": operations(frozen, pixels) / best["ours"] / rate,
    }


def report(row: dict[str, Any]) -> str:
    peers = row["torch_per_s"].items()
    lines = [
        f"{row['model']} {row['dtype']}, batches of {row['batch']}, {row['device']}",
        f"  ours                     {row['ours_per_s']:9.1f} pictures/s",
        *(f"  PyTorch, {name:15} {rate:9.1f} pictures/s" for name, rate in peers),
    ]
    if row["ratio_torch"]:
        lines.append(f"  ratio to the better one  {row['ratio_torch']:9.2f}x (goal: 1.0x)")
    lines.append(
        f"  limit: a matrix product runs at {row['matmul_gflops']:.0f} Gflop/s; "
        f"ours reaches {row['share_of_matmul']:.0%} of it"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16, help="pictures, on each device")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--only", choices=MODELS)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    models = [args.only] if args.only else list(MODELS)
    with Progress("encode_image", len(models) * (args.repeats + 1), unit="turns") as bar:
        rows = [measure(name, args, bar) for name in models]
    print("\n".join(report(row) for row in rows))
    print(json.dumps(rows))
    if args.json:
        args.json.write_text(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
