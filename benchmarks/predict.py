"""A whole training of WikiDiverse's shape: predicted at published rates, or measured.

    python -m benchmarks.predict [--epochs 30] [--json FILE]      from the compiled program's cost
    python -m benchmarks.predict --measure [--dtype bfloat16]     here, on the devices there are

13,205 mentions, 10 candidates, batch 64, text 768, image 2048, d 768, two layers, upstream form.
The prediction takes the floating-point operations and the bytes that XLA counts for one step and
divides them by vendors' peak rates; the larger of the two times is a floor (a roofline), not what a
run will take. Bytes are those of the program compiled here: another backend fuses otherwise.
--measure trains all epochs on resident tables, without evaluation and checkpoints, and prints the
roofline of this device beside it, where its rates are known.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks.synthetic_run import Shape, SyntheticRun
from drin_jax.parallel import DataParallel

# Peak rates of the vendors' data sheets, dense: operations a second by dtype of the products, bytes
# a second of the memory. NVIDIA H100 SXM5 (float32 is TF32, which JAX takes for float32 products by
# default there), Google TPU v5e (float32 is one bfloat16 pass, JAX's default there).
DEVICES: dict[str, dict[str, float]] = {
    "NVIDIA H100": {"float32": 494.7e12, "bfloat16": 989.4e12, "bytes": 3.35e12},
    "TPU v5e": {"float32": 197e12, "bfloat16": 197e12, "bytes": 819e9},
}
GOAL_SECONDS = 10.0  # of 30 epochs on one H100


def cost(shape: Shape) -> dict[str, float]:
    """Floating-point operations and bytes of one step, as XLA counts them in the program.

    Over small tables: XLA counts a whole table for every look-up in it.
    """
    small = dataclasses.replace(shape, entities=shape.batch, mentions=shape.batch)
    run = SyntheticRun(small, DataParallel(devices=1))
    analysis: Any = run.steps.compiled(run.state).cost_analysis()
    analysis = analysis[0] if isinstance(analysis, list) else analysis
    return {"flops": float(analysis["flops"]), "bytes": float(analysis["bytes accessed"])}


def roofline(cost_: dict[str, float], rates: dict[str, float], dtype: str, steps: int) -> float:
    """Seconds that so many steps take at least."""
    return steps * max(cost_["flops"] / rates[dtype], cost_["bytes"] / rates["bytes"])


def known_rates(kind: str) -> dict[str, float] | None:
    """The rates of the device of this name."""
    names = {"TPU v5 lite": "TPU v5e"}
    for name, rates in DEVICES.items():
        if kind.startswith(name) or names.get(kind) == name:
            return rates
    return None


def measure(run: SyntheticRun, steps: int) -> dict[str, float]:
    """Seconds of the first dispatch (with compilation) and of `steps` after it."""
    began = time.perf_counter()
    run.advance(1)
    first = time.perf_counter() - began
    return {"first_s": first, "steps_s": run.advance(steps)}


def main(argv: list[str] | None = None) -> None:
    """Print the prediction, or what was measured beside the roofline."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predict", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--measure", action="store_true", help="train instead of predicting")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), nargs="+")
    parser.add_argument("--small", action="store_true", help="an eighth of each width, to try it")
    parser.add_argument("--json", type=Path, help="write the result here too")
    args = parser.parse_args(argv)
    shape = Shape()
    if args.small:
        shape = dataclasses.replace(shape, text=96, image=256, width=96, mentions=1_300)
    device = jax.devices()[0]
    rows = []
    for dtype in args.dtype or ("float32", "bfloat16"):
        shape = dataclasses.replace(shape, dtype=dtype)
        steps = args.epochs * -(-shape.mentions // shape.batch)
        row: dict[str, Any] = {"dtype": dtype, "steps": steps, **cost(shape)}
        print(
            f"{dtype}: {steps:,} steps of {row['flops'] / 1e9:.1f} GFLOP and "
            f"{row['bytes'] / 1e9:.2f} GB"
        )
        if args.measure:
            row |= measure(SyntheticRun(shape, DataParallel(devices=1), 64), steps)
            rates = known_rates(device.device_kind)
            limit = f"{roofline(row, rates, dtype, steps):.2f} s" if rates else "rates not known"
            print(
                f"  {device.device_kind}: {row['steps_s']:.2f} s measured (goal on an H100 "
                f"{GOAL_SECONDS:.0f} s), roofline {limit}; first dispatch, with compilation, "
                f"{row['first_s']:.2f} s"
            )
        else:
            row["predicted_s"] = {
                name: roofline(row, rates, dtype, steps) for name, rates in DEVICES.items()
            }
            for name, seconds in row["predicted_s"].items():
                print(f"  {name}: at least {seconds:.2f} s PREDICTED from published peak rates")
        rows.append(row)
    result = {
        "benchmark": "predict",
        "device": device.device_kind,
        "measured": args.measure,
        "epochs": args.epochs,
        "rates": DEVICES,
        "jax": jax.__version__,
        "rows": rows,
    }
    line = json.dumps(result)
    print(line)
    if args.json:
        args.json.write_text(line + "\n")


if __name__ == "__main__":
    main()
