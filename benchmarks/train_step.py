"""One training step of DRIN (forward, loss, backward, Adam): ours against plain PyTorch.

    python -m benchmarks.train_step [--r 10 100] [--batch B] [--repeats N] [--cores N] [--json FILE]

PyTorch twice: with the equations to the letter, where each edge projects its own two ends, and with
projections shared by the edges that use them (`benchmarks/torch_drin.py`). All hold the same
parameters and inputs (text 768, image 2048, d 768, L 2, float32), take turns on the same cores,
four steps at a time, and must agree on the first loss. Printed are the medians of wall time and
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
from benchmarks.random_batches import IMAGE, LAYERS, TEXT, WIDTH, random_batch
from benchmarks.torch_drin import TorchDRIN, upstream_loss
from drin_jax.models.drin import DRIN
from drin_jax.parallel.data_parallel import DataParallel
from drin_jax.parity import torch_weights
from drin_jax.training.step import TrainState, create_state, make_train_step

MARGIN, LEARNING_RATE = 0.25, 1e-3
DISPATCH = 4  # steps between two looks
PEERS = {"each_edge": True, "shared": False}  # what of TorchDRIN is timed

Run = Callable[[], Any]  # does the work once and waits for it


class Ours:
    """Training's own step with donated state, several of them a dispatch as in training, on a batch
    that lies on the device."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        graphdef, params = nnx.split(
            DRIN(TEXT, IMAGE, width=WIDTH, layers=LAYERS, rngs=nnx.Rngs(0)), nnx.Param
        )
        self.initial = torch_weights.to_torch(params)
        optimizer = optax.adam(LEARNING_RATE)
        step = make_train_step(graphdef, optimizer, loss_form="upstream", margin=MARGIN)

        def steps(state: TrainState, batch: Any) -> tuple[TrainState, jax.Array]:
            def body(i: Any, carry: tuple[TrainState, jax.Array]) -> tuple[TrainState, jax.Array]:
                state, losses = carry
                # Behind the barrier nothing of the batch can be computed once for all steps.
                state, metrics = step(state, jax.lax.optimization_barrier(batch))
                return state, losses.at[i].set(metrics["loss"])

            return jax.lax.fori_loop(0, DISPATCH, body, (state, jnp.zeros(DISPATCH)))

        parallel = DataParallel(devices=1)
        self.batch = parallel.shard(arrays)
        self.state = parallel.replicate(create_state(params, optimizer))
        self.steps = parallel.train_step(steps).lower(self.state, self.batch).compile()
        self.multiply_adds = count_multiply_adds(self.steps.as_text() or "")

    def __call__(self) -> float:
        """The first loss of a dispatch."""
        self.state, losses = self.steps(self.state, self.batch)
        jax.block_until_ready(self.state)
        return float(losses[0])


class Theirs:
    """The same step in PyTorch with its fused Adam; `each_edge` as in `TorchDRIN`."""

    def __init__(
        self, arrays: dict[str, np.ndarray], params: dict[str, np.ndarray], each_edge: bool
    ):
        self.graph = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self.gold = self.graph["gold"].long()
        self.model = TorchDRIN(TEXT, IMAGE, WIDTH, LAYERS, each_edge=each_edge)
        self.model.load(params)
        self.optimizer = torch.optim.Adam(self.model.parameters(), LEARNING_RATE, fused=True)
        self.multiply_adds = 0

    def __call__(self) -> None:
        for _ in range(DISPATCH):
            self.step()

    def step(self) -> float:
        """The loss of one step."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = upstream_loss(self.model(self.graph), self.gold, MARGIN)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def first(self) -> float:
        """The first step, with its products counted."""
        with FlopCounterMode(display=False) as counter:
            loss = self.step()
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
    peers = {name: Theirs(arrays, ours.initial, each) for name, each in PEERS.items()}
    first = ours()
    for name, peer in peers.items():
        if abs(peer.first() - first) > 1e-4:
            raise SystemExit(f"error: the first loss of {name} differs from {first}")
    ours_matmul, theirs_matmul, count = matmuls(b * r)
    runs: dict[str, Run] = {"ours": ours, **peers, "jax": ours_matmul, "torch": theirs_matmul}
    for run in runs.values():
        run()
    seconds = interleaved(runs, repeats)
    row: dict[str, Any] = {"r": r, "batch": b, "loss": first}
    sides: dict[str, Ours | Theirs] = {"ours": ours, **peers}
    for name, side in sides.items():
        wall, cpu = (x / DISPATCH for x in seconds[name])
        mm_wall, mm_cpu = seconds["jax" if name == "ours" else "torch"]
        row[name] = {
            "wall_s": wall,
            "cpu_s": cpu,
            "ratio_wall": DISPATCH * wall / seconds["ours"][0],
            "ratio_cpu": DISPATCH * cpu / seconds["ours"][1],
            "multiply_adds_per_candidate": side.multiply_adds / (b * r),
            "gflops": 2e-9 * side.multiply_adds / wall,
            "matmul_gflops": 2e-9 * count / mm_wall,
            "share_of_matmul_rate": (side.multiply_adds / cpu) / (count / mm_cpu),
        }
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
        for name in ("ours", *PEERS):
            side = row[name]
            print(
                f"  {name:9} {1e3 * side['wall_s']:8.1f} ms wall {1e3 * side['cpu_s']:8.1f} ms CPU"
                f" {side['multiply_adds_per_candidate'] / 1e6:6.2f} M multiply-adds a candidate"
                f" {side['gflops']:6.1f} GFLOP/s, {side['share_of_matmul_rate']:4.0%} of the rate"
                f" of plain products ({side['matmul_gflops']:.1f} GFLOP/s);"
                f" {side['ratio_wall']:.2f} (wall), {side['ratio_cpu']:.2f} (CPU) of ours"
            )
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
