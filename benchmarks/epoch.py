"""A whole epoch with its data: ours on resident tables, PyTorch from the preprocessed arrays.

    python -m benchmarks.epoch [--shape wikidiverse wikimel] [--store STORE] [--steps N]
        [--batches N] [--workers N] [--folder DIR] [--json FILE]

Theirs is the PyTorch step of `benchmarks.train_step` (each edge by itself; the step with shared
projections is timed too, and its epoch is the same loading with that), fed by a torch DataLoader
from memory-mapped files in the layout of the authors' release (benchmarks/preprocessed.py): a
prefix of so many batches is written and read, once with the files dropped from the system's cache
(where it obeys) and once from memory, and scaled to the epoch's batches; the size is that of the
whole layout.
WikiMEL's table of entities is cut to 5,000, so that it fits on any disk: that favours them. Ours is
`drin_jax`'s training on a synthetic store: its upload, counted in full, and its steps, all of an
epoch or --steps of them, scaled. Compiling is counted in neither (`benchmarks.start` times it).
Each side runs in a process of its own; on a shared machine read the CPU seconds, with --cores 1,
since threads that wait spin. The aim: at least 5 times faster with loading, and a peak
memory, all pages counted, of at most a tenth of the layout's size.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import synthetic_store
from benchmarks.processes import finish, in_a_process, peak_gb
from benchmarks.synthetic_store import SHAPES, Shape

BATCH, WIDTH, MARGIN, LEARNING_RATE = 64, 768, 0.25, 1e-3
LEAST_RATIO, MOST_MEMORY = 5.0, 0.1
ENTITIES_ON_DISK = 5_000


def ours(store: str, steps: int) -> dict[str, Any]:
    """Seconds of uploading and of so many steps (0: an epoch), in this process."""
    from benchmarks.extract_memory import Watch
    from benchmarks.resident_run import ResidentRun
    from data_pipeline.store.reader import Store

    watch = Watch()
    watch.start()
    wall, cpu = time.perf_counter(), time.process_time()
    training = ResidentRun(Store.open(store), synthetic_store.config_for(WIDTH, BATCH))
    loading = _seconds(wall, cpu, 1.0)
    training.compile()
    training.train(2)  # pages and threads are there
    steps = min(steps or training.steps_per_epoch, training.steps_per_epoch)
    wall, cpu = time.perf_counter(), time.process_time()
    losses = training.train(steps)
    arithmetic = _seconds(wall, cpu, training.steps_per_epoch / steps)
    return {
        "steps": steps,
        "loading": loading,
        "arithmetic": arithmetic,
        "epoch": {kind: loading[kind] + arithmetic[kind] for kind in loading},
        "peak_gb": peak_gb(),
        "peak_anonymous_gb": watch.peak,
        "loss": float(losses[-1]),
    }


def theirs(folder: str, r: int, workers: int, batches: float) -> dict[str, Any]:
    """Seconds of an epoch of so many batches: cold, warm, loading alone, arithmetic alone."""
    import torch
    from torch.utils.data import DataLoader

    from benchmarks.import_release import drop_cache
    from benchmarks.preprocessed import Mentions, graph
    from benchmarks.torch_drin import TorchDRIN, upstream_loss

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    data = Mentions(Path(folder), r)
    loader = DataLoader(
        data,
        BATCH,
        shuffle=True,
        num_workers=workers,
        generator=torch.Generator().manual_seed(0),
    )
    first = graph(next(iter(loader)))
    widths = (first["entity_text"].shape[-1], first["entity_image"].shape[-1], WIDTH)

    def stepping(each_edge: bool) -> Callable[[dict[str, torch.Tensor]], float]:
        model = TorchDRIN(*widths, each_edge=each_edge)
        optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=True)

        def step(batch: dict[str, torch.Tensor]) -> float:
            optimizer.zero_grad(set_to_none=True)
            loss = upstream_loss(model(batch), batch["gold"], MARGIN)
            loss.backward()
            optimizer.step()
            return loss.item()

        step(first)
        return step

    def timed(epoch: Any, step: Callable[[dict[str, torch.Tensor]], float]) -> dict[str, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in epoch:
            step(batch)
        return _seconds(wall, cpu, batches / (len(data) / BATCH))

    step = stepping(each_edge=True)
    drop_cache(Path(folder))
    cold = timed(map(graph, loader), step)
    warm = timed(map(graph, loader), step)
    arithmetic = timed([first] * len(loader), step)
    loading = {kind: warm[kind] - arithmetic[kind] for kind in warm}
    shared = timed([first] * len(loader), stepping(each_edge=False))
    return {
        "batches": len(loader),
        "workers": workers,
        "cold": cold,
        "epoch": warm,
        "arithmetic": arithmetic,
        "loading": loading,
        "shared": {
            "arithmetic": shared,
            "epoch": {kind: loading[kind] + shared[kind] for kind in shared},
        },
        "peak_gb": max(peak_gb(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6),
    }


def _ratio(theirs: dict[str, float], ours: dict[str, float]) -> dict[str, float]:
    return {kind: theirs[kind] / ours[kind] for kind in ours}


def _seconds(wall: float, cpu: float, scale: float) -> dict[str, float]:
    """Since then, for a whole epoch."""
    return {
        "wall_s": (time.perf_counter() - wall) * scale,
        "cpu_s": (time.process_time() - cpu) * scale,
    }


def measure(
    name: str, shape: Shape, folder: Path, *, store: Path | None, **options: int
) -> dict[str, Any]:
    """One row of the result."""
    from benchmarks import preprocessed

    if store is None:
        store = folder / "store"
        synthetic_store.write(store, shape)
    widths = {"t": shape.text, "v": shape.image}
    mentions = shape.train + shape.valid + shape.test
    full = preprocessed.layout(name, mentions, shape.entities, shape.r, **widths)
    prefix, entities = options["batches"] * BATCH, min(ENTITIES_ON_DISK, shape.entities)
    part = preprocessed.layout(name, prefix, entities, shape.r, **widths)
    preprocessed.write(folder / "preprocessed", part, entities, shape.r)
    row: dict[str, Any] = {
        "shape": name,
        "mentions": shape.train,
        "r": shape.r,
        "layout_gb": preprocessed.size(full) / 1e9,
        "prefix_gb": preprocessed.size(part) / 1e9,
    }
    module = "benchmarks.epoch"
    row["ours"] = in_a_process(module, "--child=ours", str(store), str(options["steps"]))
    row["theirs"] = in_a_process(
        module,
        "--child=theirs",
        *(str(folder / "preprocessed"), str(shape.r), str(options["workers"])),
        str(shape.train / BATCH),
    )
    for kind in ("epoch", "arithmetic"):
        row[f"ratio_{kind}"] = _ratio(row["theirs"][kind], row["ours"][kind])
        row[f"ratio_{kind}_shared"] = _ratio(row["theirs"]["shared"][kind], row["ours"][kind])
    row["ratio_cold"] = _ratio(row["theirs"]["cold"], row["ours"]["epoch"])
    row["memory_share"] = row["ours"]["peak_gb"] / row["layout_gb"]
    return row


def main(argv: list[str] | None = None) -> None:
    """Measure every shape, print a few lines each and one JSON line at the end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.epoch", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--store", type=Path, help="an existing store, of a single shape")
    parser.add_argument("--steps", type=int, default=0, help="of ours; 0: the whole epoch")
    parser.add_argument("--batches", type=int, default=50, help="of theirs, on disk")
    parser.add_argument("--workers", type=int, default=0, help="processes of their DataLoader")
    parser.add_argument("--cores", type=int, default=0, help="use the first N only; 0: all")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--child", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child == "ours":
        return finish(ours(args.rest[0], int(args.rest[1])), None)
    if args.child == "theirs":
        folder, r, workers, batches = args.rest
        return finish(theirs(folder, int(r), int(workers), float(batches)), None)
    if args.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    rows = []
    for name in args.shape:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            rows.append(
                measure(
                    name,
                    SHAPES[name],
                    Path(folder),
                    store=args.store,
                    steps=args.steps,
                    batches=args.batches,
                    workers=args.workers,
                )
            )
        describe(rows[-1])
    return finish(
        {"benchmark": "epoch", "cores": len(os.sched_getaffinity(0)), "rows": rows}, args.json
    )


def describe(row: dict[str, Any]) -> None:
    """A few lines of one row."""
    print(f"{row['shape']}: {row['mentions']:,} mentions, r {row['r']}, an epoch:")
    for name in ("ours", "theirs"):
        side = row[name]
        for kind in ("wall_s", "cpu_s"):
            print(
                f"  {name:7} {side['epoch'][kind]:8.1f} {kind.replace('_', ' ')}: loading "
                f"{side['loading'][kind]:.1f}, arithmetic {side['arithmetic'][kind]:.1f}"
            )
    for kind in ("wall_s", "cpu_s"):
        print(
            f"  theirs / ours in {kind.replace('_', ' ')}: {row['ratio_epoch'][kind]:.1f} from "
            f"memory, {row['ratio_cold'][kind]:.1f} from disk (aim {LEAST_RATIO:.0f}), arithmetic "
            f"alone {row['ratio_arithmetic'][kind]:.1f}; with projections shared "
            f"{row['ratio_epoch_shared'][kind]:.1f} and {row['ratio_arithmetic_shared'][kind]:.1f}"
        )
    side = row["ours"]
    print(
        f"  peak memory {side['peak_gb']:.2f} GB ({side['peak_anonymous_gb']:.2f} without mapped "
        f"files) is {row['memory_share']:.2f} of the layout's {row['layout_gb']:.1f} GB (aim "
        f"{MOST_MEMORY})"
    )


if __name__ == "__main__":
    main()
