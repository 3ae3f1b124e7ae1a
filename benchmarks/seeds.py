"""Training S seeds in one process, over tables that stay on the device, and as S runs of `main`.

    python -m benchmarks.seeds --store STORE [--config configs/sample.py] [--seeds 5] [--json FILE]

Whole trainings with `config`'s epochs, evaluation of valid and start of Python: as many commands
`drin_jax.main` as seeds, and one process that trains them by `drin_jax.experiments.seed_runs`.
Printed are wall and CPU seconds; the wall times of shared cores move, so read the CPU time there.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CALL = """
import importlib.util, sys
from pathlib import Path
from data_pipeline.store.reader import Store
from drin_jax.experiments.seed_runs import train_seed
from drin_jax.training.session import Session

spec = importlib.util.spec_from_file_location("config", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
session = Session(module.get_config(), Store.open(sys.argv[2]))
for seed in range(int(sys.argv[3])):
    train_seed(session, seed, Path(sys.argv[4]) / str(seed), f"seed {seed}")
"""


def seconds(*command: str) -> tuple[float, float]:
    """Wall and CPU seconds of Python with these arguments, in a process of its own."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(config: str, store: Path, seeds: int) -> dict[str, float]:
    """Both ways, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        call = seconds("-c", CALL, config, str(store), str(seeds), f"{folder}/seeds")
        mains = [
            seconds("-m", "drin_jax.main", f"--config={config}", f"--workdir={folder}/{seed}",
                    f"--config.data.store={store}", f"--config.seed={seed}")
            for seed in range(seeds)
        ]  # fmt: skip
    wall, cpu = map(sum, zip(*mains, strict=True))
    return {
        "mains_s": wall,
        "mains_cpu_s": cpu,
        "one_process_s": call[0],
        "one_process_cpu_s": call[1],
    }


def main(argv: list[str] | None = None) -> None:
    """Measure, print a few lines and one JSON line at the end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seeds", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--store", type=Path, required=True, help="a feature store")
    parser.add_argument("--config", default="configs/sample.py")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the result here too")
    args = parser.parse_args(argv)
    result = measure(args.config, args.store, args.seeds)
    for name, title in (("mains", "commands drin_jax.main"), ("one_process", "seeds, one process")):
        wall, cpu = result[f"{name}_s"], result[f"{name}_cpu_s"]
        print(f"{args.seeds} {title}: {wall:.1f} s wall, {cpu:.1f} s CPU")
    cores = len(os.sched_getaffinity(0))
    line = json.dumps(result | {"seeds": args.seeds, "cores": cores})
    print(line)
    if args.json:
        args.json.write_text(line + "\n")


if __name__ == "__main__":
    main()
