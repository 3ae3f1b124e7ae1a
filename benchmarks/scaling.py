"""How a training step's time and memory grow: with r, batch, layers, entities and devices.

    python -m benchmarks.scaling [--axes r batch layers entities devices] [--repeats N]
        [--width D] [--json FILE]

Each axis is varied from a base (r 10, batch 32, 2 layers, 10,000 entities, one device) with widths
that fit this machine (text 64, image 128, d 64 unless told). Printed are medians of a step's wall
time, the bytes of the compiled program's temporaries and of the tables on each device, and the
slope of the logarithms over each axis: 1 is linear. Exit code 1 where r or batch grow worse than
linearly (slope above 1.1). Simulated devices share this machine's cores, so their time says what
dividing a batch costs, not what more devices gain.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.synthetic_run import Shape, SyntheticRun

AXES: dict[str, tuple[int, ...]] = {
    "r": (10, 30, 100, 300),
    "batch": (16, 32, 64, 128, 256),
    "layers": (1, 2, 3, 4),
    "entities": (10_000, 100_000, 1_000_000),
    "devices": (1, 2, 4, 8),
}
LINEAR, WORST_SLOPE = ("r", "batch"), 1.1
DEVICES_FLAG = "--xla_force_host_platform_device_count"


def base(width: int) -> Shape:
    """Where every axis starts."""
    return Shape(mentions=2048, batch=32, text=width, image=2 * width, width=width)


def measure(shape: Shape, repeats: int) -> dict[str, float]:
    """Median seconds of a step, and bytes on each device."""
    run = SyntheticRun(dataclasses.replace(shape, entities=max(shape.entities, shape.r)))
    memory: Any = run.steps.compiled(run.state).memory_analysis()
    per_dispatch = max(1, min(20, 4096 // (shape.batch * max(shape.r // 10, 1))))
    run.advance(per_dispatch)
    seconds = [run.advance(per_dispatch) / per_dispatch for _ in range(repeats)]
    return {
        "seconds": statistics.median(seconds),
        "temporary_bytes": memory.temp_size_in_bytes,
        "table_bytes": run.table_bytes(),
    }


def measure_devices(count: int, width: int, repeats: int) -> dict[str, float]:
    """The base on so many simulated devices, in a process of its own."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES_FLAG}={count}"
    command = [sys.executable, "-m", "benchmarks.scaling", "--point", f"--width={width}"]
    result = subprocess.run(
        [*command, f"--repeats={repeats}"],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise SystemExit(f"error: {count} devices: {result.stderr.strip().splitlines()[-1:]}")
    return json.loads(result.stdout.splitlines()[-1])


def slope(points: Sequence[int], values: Sequence[float]) -> float:
    """Of the line through the logarithms; 0 where nothing grows."""
    if min(values) <= 0:
        return 0.0
    return float(np.polyfit(np.log(points), np.log(values), 1)[0])


def vary(axis: str, points: Sequence[int], width: int, repeats: int) -> dict[str, Any]:
    """One axis: its rows, and the slope of every number."""
    rows = []
    for point in points:
        if axis == "devices":
            numbers = measure_devices(point, width, repeats)
        else:
            numbers = measure(dataclasses.replace(base(width), **{axis: point}), repeats)
        rows.append({axis: point, **numbers})
        print(
            f"{axis:9}{point:10,} {1e3 * numbers['seconds']:9.2f} ms a step "
            f"{numbers['temporary_bytes'] / 1e6:9.1f} MB temporary "
            f"{numbers['table_bytes'] / 1e6:9.1f} MB tables",
            flush=True,
        )
    names = ("seconds", "temporary_bytes", "table_bytes")
    slopes = {name: slope(points, [row[name] for row in rows]) for name in names}
    print(f"{'':9}slopes: " + ", ".join(f"{n} {s:.2f}" for n, s in slopes.items()))
    return {"axis": axis, "rows": rows, "slopes": slopes}


def main(argv: list[str] | None = None) -> int:
    """Vary every axis; 1 where something grows worse than linearly."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--axes", nargs="+", choices=list(AXES), default=list(AXES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--width", type=int, default=64, help="of text and layers; image twice it")
    parser.add_argument("--largest", type=int, default=0, help="leave out larger points")
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--point", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.point:
        print(json.dumps(measure(base(args.width), args.repeats)))
        return 0
    results = []
    for axis in args.axes:
        points = [p for p in AXES[axis] if not args.largest or p <= args.largest]
        results.append(vary(axis, points, args.width, args.repeats))
    line = json.dumps(
        {
            "benchmark": "scaling",
            "width": args.width,
            "device": jax.devices()[0].device_kind,
            "cores": len(os.sched_getaffinity(0)),
            "jax": jax.__version__,
            "axes": results,
        }
    )
    print(line)
    if args.json:
        args.json.write_text(line + "\n")
    steep = [
        f"{result['axis']} ({name} {value:.2f})"
        for result in results
        if result["axis"] in LINEAR
        for name, value in result["slopes"].items()
        if value > WORST_SLOPE
    ]
    if steep:
        print(f"error: worse than linear: {', '.join(steep)}", file=sys.stderr)
    return int(bool(steep))


if __name__ == "__main__":
    sys.exit(main())
