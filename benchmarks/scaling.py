"""How a training step's time and memory grow with the problem.

    python -m benchmarks.scaling [--axes r batch …] [--repeats N] [--folder DIR] [--json FILE]

One size grows at a time: candidates r, mentions in a batch, layers L, entities of the knowledge
base, and simulated devices that share these cores (a process each; they add no speed). Widths are
small (text 64, image 128, d 64; text 8, image 16 for the knowledge base, so that a million entities
fit anywhere), so that it ends in minutes. Time is CPU time a step, the least of the repeats; memory
is what the compiler plans for the program beside its arguments, and for the knowledge base the
tables. Printed are the slopes of lines through the logarithms: 1 is linear. The exit code is 1
where time or memory grows faster than linearly in r or the batch.
"""

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import synthetic_store
from benchmarks.processes import finish, in_a_process
from benchmarks.resident_run import ResidentRun
from benchmarks.synthetic_store import Shape
from data_pipeline.store.reader import Store

AXES: dict[str, tuple[int, ...]] = {
    "r": (10, 30, 100, 300),
    "batch": (8, 16, 32, 64, 128),
    "layers": (1, 2, 4, 8),
    "entities": (10_000, 100_000, 1_000_000),
    "devices": (1, 2, 4, 8),
}
LINEAR = 1.1  # slopes above are worse than linear; measured ones of linear growth scatter
HELD = ("r", "batch")  # to be no worse than linear
WIDTH = 64
BASE = Shape(entities=10_000, train=2_048, valid=8, test=8, r=300, text=64, image=128)
MIDDLE = {"r": 30, "batch": 32, "layers": 2}
STEPS = 4  # timed together


def point(store: Store, repeats: int, r: int, batch: int, layers: int) -> dict[str, float]:
    """Seconds and bytes of a step of this size."""
    config = synthetic_store.config_for(WIDTH, batch)
    config.eval.batch = batch
    config.graph.r, config.model.layers = r, layers
    training = ResidentRun(store, config)
    memory: Any = training.compiled().memory_analysis()
    tables = training.tables.bytes(store, ["train"], training.tables.spec)
    training.train(1)
    cpu, wall = [], []
    for _ in range(repeats):
        at = time.process_time(), time.perf_counter()
        training.train(STEPS)
        cpu.append((time.process_time() - at[0]) / STEPS)
        wall.append((time.perf_counter() - at[1]) / STEPS)
    return {
        "cpu_s": min(cpu),
        "wall_s": min(wall),
        "bytes": float(memory.temp_size_in_bytes),
        "table_bytes": float(tables),
    }


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Of the least-squares line through (log size, log value)."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    across = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return across / sum((a - mx) ** 2 for a in x)


def grow(axis: str, sizes: Sequence[int], repeats: int, folder: Path) -> dict[str, Any]:
    """The points of one axis and their slopes."""
    store = folder / "store"
    if not store.exists():
        synthetic_store.write(store, BASE)
    points = []
    for size in sizes:
        if axis == "devices":
            flag = f"--xla_force_host_platform_device_count={size}"
            args = (f"--child={store}", f"--repeats={repeats}")
            found = in_a_process("benchmarks.scaling", *args, XLA_FLAGS=flag, JAX_PLATFORMS="cpu")
        elif axis == "entities":
            place = folder / f"entities-{size}"
            wide = Shape(entities=size, train=512, valid=8, test=8, r=30, text=8, image=16)
            found = point(synthetic_store.write(place, wide), repeats, **MIDDLE)
        else:
            found = point(Store.open(store), repeats, **MIDDLE | {axis: size})
        points.append({"size": size, **found})
    memory = "table_bytes" if axis == "entities" else "bytes"
    return {
        "axis": axis,
        "memory_of": memory,
        "points": points,
        "time_slope": slope(sizes, [one["cpu_s"] for one in points]),
        "memory_slope": slope(sizes, [one[memory] for one in points]),
    }


def worse_than_linear(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each slope that should be linear and is above."""
    return [
        f"{kind} grows with {row['axis']} at a slope of {row[f'{kind}_slope']:.2f}, above {LINEAR}"
        for row in rows
        for kind in ("time", "memory")
        if row["axis"] in HELD and row[f"{kind}_slope"] > LINEAR
    ]


def main(argv: list[str] | None = None) -> None:
    """Measure, print a table an axis and one JSON line; exit 1 where growth is not linear."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        return finish(point(Store.open(args.child), args.repeats, **MIDDLE), None)
    rows = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for axis in args.axes:
            row = grow(axis, AXES[axis], args.repeats, Path(folder))
            rows.append(row)
            for one in row["points"]:
                print(
                    f"{axis:9} {one['size']:9,} {1e3 * one['cpu_s']:8.2f} ms CPU "
                    f"{1e3 * one['wall_s']:8.2f} ms wall {one[row['memory_of']] / 1e6:9.2f} MB"
                )
            print(
                f"{axis:9} slopes: time {row['time_slope']:.2f}, memory {row['memory_slope']:.2f}"
            )
    finish({"benchmark": "scaling", "width": WIDTH, "middle": MIDDLE, "rows": rows}, args.json)
    if found := worse_than_linear(rows):
        sys.exit("error: " + "; ".join(found))
    return None


if __name__ == "__main__":
    main()
