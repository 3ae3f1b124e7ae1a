"""One training step of DRIN (forward, loss, backward, Adam): ours against plain PyTorch.

    python -m benchmarks.train_step [--r 10 100] [--batch B] [--repeats N] [--cores N] [--json FILE]

Both sides hold the same parameters and inputs (text 768, image 2048, d 768, L 2, float32), take
turns on the same cores, and must agree on the first loss. Printed are the medians of wall time and
of CPU time (what the process used; the one to read on a shared machine, together with --cores 1,
since waiting PyTorch threads spin), the multiply-adds a candidate of each, and what share of the
rate (by CPU time) of plain matrix products of the step's shapes, measured in the same run, each
reaches. Neither side uses OpenBLAS, so OPENBLAS_CORETYPE changes nothing here.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.hlo_dots import count_multiply_adds
from benchmarks.torch_drin import TorchDRIN, upstream_loss
from data_pipeline.schema import batch_shapes
from drin_jax import interop
from drin_jax.losses import margin_loss
from drin_jax.models.drin import DRIN
from drin_jax.types import GraphBatch

TEXT, IMAGE, WIDTH, LAYERS = 768, 2048, 768, 2
MARGIN, LEARNING_RATE = 0.25, 1e-3

Run = Callable[[], Any]  # does the work once and waits for it


def random_batch(b: int, r: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A full batch: every vertex present, gold anywhere."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for name, (shape, dtype) in batch_shapes(b, r, TEXT, IMAGE).items():
        if dtype == "bool":
            arrays[name] = np.ones(shape, bool)
        elif dtype == "float32":
            arrays[name] = rng.standard_normal(shape, dtype=np.float32)
    arrays["edges"] = np.tanh(arrays["edges"])
    arrays["gold"] = rng.integers(0, r, b, dtype=np.int32)
    return arrays


class Ours:
    """The jitted step with donated state on a batch that lies on the device."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        batch = GraphBatch.from_host(jax.tree.map(jnp.asarray, arrays))
        graphdef, params = nnx.split(
            DRIN(TEXT, IMAGE, width=WIDTH, layers=LAYERS, rngs=nnx.Rngs(0)), nnx.Param
        )
        optimizer = optax.adam(LEARNING_RATE)
        self.initial = interop.to_torch(params)

        def step(state: Any, batch: GraphBatch) -> tuple[Any, jax.Array]:
            params, opt_state = state

            def loss_of(params: nnx.State) -> jax.Array:
                scores, aux = nnx.merge(graphdef, params)(batch)
                return margin_loss(scores, aux, batch, form="upstream", margin=MARGIN)

            loss, grads = jax.value_and_grad(loss_of)(params)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        self.state = (params, optimizer.init(params))
        self.batch = batch
        self.step = jax.jit(step, donate_argnums=0).lower(self.state, batch).compile()
        self.multiply_adds = count_multiply_adds(self.step.as_text() or "")

    def __call__(self) -> float:
        self.state, loss = self.step(self.state, self.batch)
        jax.block_until_ready(self.state)
        return float(loss)


class Theirs:
    """The same step in PyTorch with its fused Adam."""

    def __init__(self, arrays: dict[str, np.ndarray], params: dict[str, np.ndarray]):
        self.graph = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self.gold = self.graph["gold"].long()
        self.model = TorchDRIN(TEXT, IMAGE, WIDTH, LAYERS)
        self.model.load(params)
        self.optimizer = torch.optim.Adam(self.model.parameters(), LEARNING_RATE, fused=True)
        self.multiply_adds = 0

    def __call__(self) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss = upstream_loss(self.model(self.graph), self.gold, MARGIN)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def first(self) -> float:
        """The first step, with its products counted."""
        with FlopCounterMode(display=False) as counter:
            loss = self()
        self.multiply_adds = counter.get_total_flops() // 2
        return loss


def matmuls(rows: int) -> tuple[Run, Run, int]:
    """The products of `rows` candidates with every kernel size, forward and backward: JAX's run,
    PyTorch's run, and their multiply-adds."""
    rng = np.random.default_rng(0)
    operands = [
        [rng.standard_normal(s, dtype=np.float32) for s in ((rows, k), (k, WIDTH), (rows, WIDTH))]
        for k in (TEXT, IMAGE, WIDTH)
    ]

    def products(triples: Any) -> list:
        return [(x @ w, x.T @ g, g @ w.T) for x, w, g in triples]

    ours, device = jax.jit(products), jax.tree.map(jnp.asarray, operands)
    theirs = [[torch.from_numpy(a) for a in triple] for triple in operands]
    count = 3 * rows * WIDTH * (TEXT + IMAGE + WIDTH)
    return lambda: jax.block_until_ready(ours(device)), lambda: products(theirs), count


def interleaved(runs: dict[str, Run], repeats: int) -> dict[str, tuple[float, float]]:
    """Median wall and CPU seconds of each, taking turns."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            time.sleep(0.02)  # the other side's threads go to sleep
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: (statistics.median(w for w, _ in times), statistics.median(c for _, c in times))
        for name, times in seconds.items()
    }


def measure(b: int, r: int, repeats: int) -> dict[str, Any]:
    """One row of the result; seconds, multiply-adds a candidate, and shares of the matmul rate."""
    arrays = random_batch(b, r)
    ours = Ours(arrays)
    theirs = Theirs(arrays, ours.initial)
    losses = ours(), theirs.first()
    if abs(losses[0] - losses[1]) > 1e-4:
        raise SystemExit(f"error: the first losses differ, {losses[0]} and {losses[1]}")
    ours_matmul, theirs_matmul, count = matmuls(b * r)
    runs: dict[str, Run] = {
        "ours": ours,
        "theirs": theirs,
        "mm_ours": ours_matmul,
        "mm_theirs": theirs_matmul,
    }
    for run in runs.values():
        run()
    seconds = interleaved(runs, repeats)
    row: dict[str, Any] = {"r": r, "batch": b, "loss": losses[0]}
    for name, side in (("ours", ours), ("theirs", theirs)):
        wall, cpu = seconds[name]
        mm_wall, mm_cpu = seconds[f"mm_{name}"]
        row[name] = {
            "wall_s": wall,
            "cpu_s": cpu,
            "multiply_adds_per_candidate": side.multiply_adds / (b * r),
            "gflops": 2e-9 * side.multiply_adds / wall,
            "matmul_gflops": 2e-9 * count / mm_wall,
            "share_of_matmul_rate": (side.multiply_adds / cpu) / (count / mm_cpu),
        }
    row["ratio_wall"] = seconds["theirs"][0] / seconds["ours"][0]
    row["ratio_cpu"] = seconds["theirs"][1] / seconds["ours"][1]
    return row


def main(argv: list[str] | None = None) -> None:
    """Measure every r, print a few lines each and one JSON line at the end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_step", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--r", type=int, nargs="+", default=[10, 100], help="candidates")
    parser.add_argument("--batch", type=int, default=64, help="mentions")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--cores", type=int, default=0, help="use the first N only; 0: all")
    parser.add_argument("--json", type=Path, help="write the result here too")
    args = parser.parse_args(argv)
    jax.config.update("jax_platforms", "cpu")
    if args.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    rows = []
    for r in args.r:
        row = measure(args.batch, r, args.repeats)
        rows.append(row)
        print(f"r {r}, batch {args.batch}, {cores} cores, median of {args.repeats}:")
        for name in ("ours", "theirs"):
            side = row[name]
            print(
                f"  {name:7} {1e3 * side['wall_s']:8.1f} ms wall {1e3 * side['cpu_s']:8.1f} ms CPU"
                f" {side['multiply_adds_per_candidate'] / 1e6:6.2f} M multiply-adds a candidate"
                f" {side['gflops']:6.1f} GFLOP/s, {side['share_of_matmul_rate']:4.0%} of the rate"
                f" of plain products ({side['matmul_gflops']:.1f} GFLOP/s)"
            )
        print(f"  theirs / ours: {row['ratio_wall']:.2f} wall, {row['ratio_cpu']:.2f} CPU")
    result = {
        "cores": cores,
        "jax": jax.__version__,
        "torch": torch.__version__,
        "settings": {k: os.environ[k] for k in ("XLA_FLAGS", "GLIBC_TUNABLES") if k in os.environ},
        "rows": rows,
    }
    line = json.dumps(result)
    print(line)
    if args.json:
        args.json.write_text(line + "\n")


if __name__ == "__main__":
    main()
