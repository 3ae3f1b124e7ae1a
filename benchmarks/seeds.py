"""Training S seeds: as one program, one after another on resident tables, and as S runs of `main`.

    python -m benchmarks.seeds --store STORE [--config configs/sample.py] [--seeds 5] [--steps 200]
        [--repeats 5] [--width D] [--mains] [--json FILE]

Both first ways are `drin_jax.experiments.seeds` with and without `vmap`, take turns on the same
tables, and must agree on the first losses. Printed are the medians of wall and CPU time of so
many steps of every seed, compiled before, and what compiling took; the times of shared cores
move, so read the CPU time there. With --mains also whole trainings with `config`'s epochs,
checkpoints and evaluation of valid: as many commands `drin_jax.main` as seeds, and one call of
`train_seeds`, start of Python included.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipeline.progress import Progress
from data_pipeline.store.reader import Store
from drin_jax.experiments import seeds_program
from drin_jax.experiments.seeds import default_together
from drin_jax.experiments.seeds_program import SeedsProgram

CALL = (
    "import sys; from pathlib import Path; from data_pipeline.store import Store; "
    "from benchmarks.seeds import read_config; from drin_jax.experiments.seeds import train_seeds; "
    "train_seeds(read_config(sys.argv[1], 0), Store.open(sys.argv[2]), range(int(sys.argv[3])), "
    "checkpoint=Path(sys.argv[4]))"
)


def read_config(path: str, width: int) -> ConfigDict:
    """The config of a file, with another `model.width` where one is given."""
    spec = importlib.util.spec_from_file_location("config", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    config.model.width = width or config.model.width
    return config


class Way:
    """So many seeds, in groups of `together`, that go on step by step."""

    def __init__(self, program: SeedsProgram, seeds: int, together: int):
        self._program = program
        self._groups = [range(k, min(k + together, seeds)) for k in range(0, seeds, together)]
        began = time.perf_counter()
        self.together = program.fitting(together)
        self.compiling = time.perf_counter() - began
        self._states = [program.initial(group) for group in self._groups]
        self._epoch = 0

    def __call__(self, epochs: int) -> tuple[float, float, np.ndarray]:
        """Wall and CPU seconds of so many epochs of every seed, and the last one's losses."""
        wall, cpu, losses = time.perf_counter(), time.process_time(), []
        with contextlib.redirect_stderr(io.StringIO()), Progress("", 1) as progress:
            for i, group in enumerate(self._groups):
                for epoch in range(self._epoch, self._epoch + epochs):
                    self._states[i], values = self._program.epoch(
                        self._states[i], group, epoch, progress
                    )
                losses.append(values)
        self._epoch += epochs
        return time.perf_counter() - wall, time.process_time() - cpu, np.concatenate(losses)


def measure(
    config: ConfigDict, store: Store, seeds: int, steps: int, repeats: int
) -> dict[str, Any]:
    """Medians of both ways."""
    # Runs are compared, not bars: a dispatch is an epoch.
    seeds_program.FIRST_DISPATCH = 1 << 30
    seeds_program.DISPATCH_SECONDS = 1e9
    program = SeedsProgram(config, store)
    ways = {"together": Way(program, seeds, seeds), "in turn": Way(program, seeds, 1)}
    ours, theirs = (way(1)[2][:, :3] for way in ways.values())
    if not np.allclose(ours, theirs, rtol=1e-4):
        raise SystemExit(f"error: the first losses differ by {np.max(np.abs(ours - theirs))}")
    epochs = -(-steps // program.steps_per_epoch)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            times[name].append(way(epochs)[:2])
    done = epochs * program.steps_per_epoch
    result: dict[str, Any] = {"seeds": seeds, "steps": done, "width": config.model.width}
    for name, pairs in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*pairs, strict=True))
        result[name] = {
            "runs_in_a_program": ways[name].together,
            "compile_s": ways[name].compiling,
            "wall_s": wall,
            "cpu_s": cpu,
            "ms_per_step_and_seed": 1e3 * wall / done / seeds,
        }
    result["ratio_wall"] = result["in turn"]["wall_s"] / result["together"]["wall_s"]
    result["ratio_cpu"] = result["in turn"]["cpu_s"] / result["together"]["cpu_s"]
    return result


def whole(config: str, store: Path, seeds: int) -> dict[str, float]:
    """Wall seconds of whole trainings, as commands and as one call, each in its own process."""

    def seconds(*command: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        return time.perf_counter() - began

    with tempfile.TemporaryDirectory() as folder:
        mains = sum(
            seconds("-m", "drin_jax.main", f"--config={config}", f"--workdir={folder}/{seed}",
                    f"--config.data.store={store}", f"--config.seed={seed}")
            for seed in range(seeds)
        )  # fmt: skip
        call = seconds("-c", CALL, config, str(store), str(seeds), f"{folder}/seeds")
    return {"mains_s": mains, "train_seeds_s": call, "ratio": mains / call}


def main(argv: list[str] | None = None) -> None:
    """Measure, print a few lines and one JSON line at the end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seeds", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--store", type=Path, required=True, help="a feature store")
    parser.add_argument("--config", default="configs/sample.py")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200, help="of a seed, rounded up to epochs")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--width", type=int, default=0, help="model.width; 0: the config's")
    parser.add_argument("--mains", action="store_true", help="whole trainings too")
    parser.add_argument("--json", type=Path, help="write the result here too")
    args = parser.parse_args(argv)
    config, store = read_config(args.config, args.width), Store.open(args.store)
    result = measure(config, store, args.seeds, args.steps, args.repeats)
    result |= {
        "backend": jax.default_backend(),
        "cores": len(os.sched_getaffinity(0)),
        "jax": jax.__version__,
        "default_together": default_together(),
    }
    for name in ("together", "in turn"):
        way = result[name]
        print(
            f"{args.seeds} seeds {name:9} {way['wall_s']:7.2f} s wall {way['cpu_s']:7.2f} s CPU "
            f"{way['ms_per_step_and_seed']:6.2f} ms a step and seed, compiled in "
            f"{way['compile_s']:.1f} s"
        )
    print(
        f"in turn / together: {result['ratio_wall']:.2f} wall, {result['ratio_cpu']:.2f} CPU "
        f"({result['steps']} steps, width {result['width']}, {result['backend']}, "
        f"{result['cores']} cores, median of {args.repeats})"
    )
    if args.mains:
        result["whole"] = times = whole(args.config, args.store, args.seeds)
        print(
            f"whole trainings: {args.seeds} x drin_jax.main {times['mains_s']:.1f} s, "
            f"train_seeds {times['train_seeds_s']:.1f} s, ratio {times['ratio']:.1f}"
        )
    line = json.dumps(result)
    print(line)
    if args.json:
        args.json.write_text(line + "\n")


if __name__ == "__main__":
    main()
