"""From the command to the first training step: the first start, the second, and PyTorch's.

    python -m benchmarks.start [--shape wikidiverse] [--store STORE] [--repeats N] [--json FILE]

Every start is a process of its own: cold with an empty folder for compiled programs
(drin_jax.command.keep_compiled), cached with the one that a start before it filled. Timed are the
imports, building (opening the store, the model, its tables on the device), compiling or loading
the training program, and the first step. PyTorch's start builds the same model eagerly on a batch
that lies in memory. The aim: a second start begins its first step within 3 seconds of its imports.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import finish, in_a_process

LIMIT = 3.0  # seconds from the imports to the first step of a second start
PHASES = ("import", "build", "compile", "first_step")


def ours(store: str) -> dict[str, Any]:
    """Seconds of the phases of one start, here and now; `before` is import's end to first step."""
    began = float(os.environ["DRIN_STARTED"])
    from drin_jax import command

    command.keep_compiled()
    from benchmarks.resident_run import ResidentRun
    from benchmarks.synthetic_store import config_for
    from data_pipeline.store.reader import Store

    marks = [time.time()]
    training = ResidentRun(Store.open(store), config_for())
    marks.append(time.time())
    training.compile()
    marks.append(time.time())
    loss = training.train(1)[0]
    marks.append(time.time())
    return _phases(began, marks) | {"loss": float(loss)}


def theirs(store: str) -> dict[str, Any]:
    """The same of PyTorch; nothing is compiled."""
    began = float(os.environ["DRIN_STARTED"])
    import torch

    from benchmarks.torch_drin import TorchDRIN, upstream_loss
    from data_pipeline.loader import GraphTables, TrainOrder
    from data_pipeline.store.reader import Store

    marks = [time.time()]
    opened = Store.open(store)
    sizes = opened.sizes
    graphs = GraphTables(opened, "train")
    rows = TrainOrder(graphs.mentions, batch=64, seed=0).rows(0)
    batch = {name: torch.from_numpy(array) for name, array in graphs.batch(rows).items()}
    model = TorchDRIN(sizes["text_width"], sizes["image_width"])
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    marks += [time.time()] * 2
    loss = upstream_loss(model(batch), batch["gold"].long(), 0.25)
    loss.backward()
    optimizer.step()
    marks.append(time.time())
    return _phases(began, marks) | {"loss": loss.item()}


def _phases(began: float, marks: list[float]) -> dict[str, Any]:
    ends = [began, *marks]
    seconds = {name: ends[i + 1] - ends[i] for i, name in enumerate(PHASES)}
    return seconds | {"before": marks[2] - marks[0]}


def measure(store: Path, repeats: int, folder: Path) -> dict[str, Any]:
    """Medians of every kind of start, taking turns."""
    runs: dict[str, list[dict[str, Any]]] = {"cold": [], "cached": [], "pytorch": []}
    for repeat in range(repeats):
        for kind, found in runs.items():
            # A cached start has the folder of the cold one before it.
            started = {
                "XDG_CACHE_HOME": str(folder / str(repeat)),
                "DRIN_STARTED": f"{time.time()}",
            }
            side = "theirs" if kind == "pytorch" else "ours"
            found.append(
                in_a_process("benchmarks.start", f"--child={side}", f"--store={store}", **started)
            )
    losses = {kind: [one["loss"] for one in found] for kind, found in runs.items()}
    if len({*losses["cold"], *losses["cached"]}) > 1:
        raise SystemExit(f"error: a program from the disk computes another loss: {losses}")
    return {
        kind: {name: statistics.median(one[name] for one in found) for name in (*PHASES, "before")}
        for kind, found in runs.items()
    }


def main(argv: list[str] | None = None) -> None:
    """Measure, print a line a kind of start and one JSON line at the end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--shape", default="wikidiverse", help="of the store that is made")
    parser.add_argument("--store", type=Path, help="an existing store instead")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--child", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        return finish({"ours": ours, "theirs": theirs}[args.child](str(args.store)), None)
    from benchmarks import synthetic_store

    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = args.store or folder / "store"
        if not args.store:
            synthetic_store.write(store, synthetic_store.SHAPES[args.shape])
        result = {"benchmark": "start", "shape": args.shape, "repeats": args.repeats}
        result |= measure(store, args.repeats, folder) | {"limit_s": LIMIT}
    for kind in ("cold", "cached", "pytorch"):
        row = result[kind]
        phases = ", ".join(f"{name.replace('_', ' ')} {row[name]:.2f}" for name in PHASES)
        print(f"{kind:8} {phases} s; first step begins {row['before']:.2f} s after the imports")
    print(f"cold / cached: {result['cold']['before'] / result['cached']['before']:.1f}")
    return finish(result, args.json)


if __name__ == "__main__":
    main()
