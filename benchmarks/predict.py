"""A whole training on an accelerator: predicted from the compiled step, or measured where one is.

    python -m benchmarks.predict [--shape wikidiverse] [--epochs 30] [--dtype float32]
        [--measure] [--steps N] [--json FILE]

XLA's cost analysis of the compiled training program says how many floating-point operations and
bytes a step takes; a machine runs that program no faster than the larger of operations over its
rate and bytes over its bandwidth, by the vendors' figures (DEVICES). Where it was compiled for a
CPU this is a prediction and no bound: another compiler fuses otherwise, and reading a bfloat16 step
as a CPU computes it, in float32, counts too many bytes. With --measure, or on a GPU or TPU,
the training itself runs (every step of every epoch, tables on the device, compiling apart; no
evaluation, no checkpoints), and the bound stands beside it. The aim: under 10 seconds on an H100.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks import synthetic_store
from benchmarks.processes import finish
from benchmarks.resident_run import ResidentRun
from benchmarks.synthetic_store import Shape

LIMIT = 10.0  # seconds


@dataclasses.dataclass(frozen=True)
class Device:
    """Published peaks: operations a second of matrix products (dense) by dtype, bytes a second."""

    flops: dict[str, float]
    bytes: float
    source: str


# A TPU makes float32 products of bfloat16 ones in one pass by default: the same peak.
DEVICES = {
    "H100 SXM": Device(
        flops={"bfloat16": 989e12, "float32": 494e12},  # float32 as TF32; half of "with sparsity"
        bytes=3.35e12,
        source="NVIDIA H100 Tensor Core GPU datasheet",
    ),
    "TPU v5e": Device(
        flops={"bfloat16": 197e12, "float32": 197e12},
        bytes=819e9,
        source="Google Cloud documentation, TPU v5e",
    ),
}


def small(shape: Shape, batch: int) -> Shape:
    """The same step over tables of one batch: XLA's analysis counts a whole table for every
    look-up in it, so the tables must not be large beside what is looked up."""
    return dataclasses.replace(
        shape, entities=max(shape.r, batch), train=batch, valid=batch, test=batch
    )


def cost(training: ResidentRun) -> dict[str, float]:
    """Operations and bytes of one step, by XLA's analysis of the compiled program, whose loop over
    steps it counts once."""
    analysis: Any = training.compiled().cost_analysis()
    return {"flops": float(analysis["flops"]), "bytes": float(analysis["bytes accessed"])}


def bound(step: dict[str, float], steps: int, device: Device, dtype: str) -> dict[str, float]:
    """Seconds of so many steps of this program where nothing but the roofline holds it back."""
    arithmetic = steps * step["flops"] / device.flops[dtype]
    memory = steps * step["bytes"] / device.bytes
    return {"arithmetic_s": arithmetic, "memory_s": memory, "seconds": max(arithmetic, memory)}


def measured(training: ResidentRun, steps: int, total: int) -> dict[str, Any]:
    """Wall seconds of so many steps, compiled before; `seconds` is scaled to `total` steps."""
    training.compile()
    began = time.perf_counter()
    losses = training.train(steps)
    seconds = time.perf_counter() - began
    return {
        "device": jax.devices()[0].device_kind,
        "steps": steps,
        "seconds": seconds * total / steps,
        "loss": float(losses[-1]),
    }


def main(argv: list[str] | None = None) -> None:
    """Predict or measure, print a line a device and one JSON line at the end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predict", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--shape", choices=synthetic_store.SHAPES, default="wikidiverse")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--measure", action="store_true", help="run it here, whatever this is")
    parser.add_argument("--steps", type=int, default=0, help="to measure, then scaled; 0: all")
    parser.add_argument("--json", type=Path, help="write the result here too")
    args = parser.parse_args(argv)
    config = synthetic_store.config_for(args.width, args.batch)
    config.model.dtype = args.dtype
    shape = synthetic_store.SHAPES[args.shape]
    total = args.epochs * -(-shape.train // args.batch)
    with tempfile.TemporaryDirectory() as folder:
        cheap = synthetic_store.write(Path(folder) / "cost", small(shape, args.batch))
        step = cost(ResidentRun(cheap, config))
        result: dict[str, Any] = {
            "benchmark": "predict",
            "shape": args.shape,
            "epochs": args.epochs,
            "steps": total,
            "dtype": args.dtype,
            "compiled_for": jax.default_backend(),
            "step": step,
            "predicted": {
                name: bound(step, total, device, args.dtype) | {"source": device.source}
                for name, device in DEVICES.items()
            },
            "limit_s": LIMIT,
        }
        if args.measure or jax.default_backend() != "cpu":
            whole = synthetic_store.write(Path(folder) / "store", shape)
            result["measured"] = measured(ResidentRun(whole, config), args.steps or total, total)
    print(
        f"{args.epochs} epochs, {total:,} steps of {step['flops'] / 1e9:.1f} GFLOP and "
        f"{step['bytes'] / 1e9:.2f} GB each, {args.dtype}, compiled for {result['compiled_for']}:"
    )
    for name, row in result["predicted"].items():
        print(
            f"  {name:9} predicted {row['seconds']:.1f} s (arithmetic "
            f"{row['arithmetic_s']:.1f}, memory {row['memory_s']:.1f}; {row['source']})"
        )
    if "measured" in result:
        row = result["measured"]
        print(f"  measured on {row['device']}: {row['seconds']:.1f} s from {row['steps']:,} steps")
    print(f"  aim: under {LIMIT:.0f} s on an H100")
    finish(result, args.json)


if __name__ == "__main__":
    main()
