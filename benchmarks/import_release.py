"""Importing the authors' release against reading its files once: rates, their ratio, peak memory.

    python -m benchmarks.import_release [--mentions N] [--dataset NAME] [--folder DIR] [--json FILE]

Writes a synthetic release (true widths, entities that repeat) to a temporary folder, about 1 MB a
mention, and imports it in a process of its own. Before each reading the files' pages are dropped
from the system's cache (posix_fadvise), so the rates are the disk's where the system obeys.
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

import numpy as np

from data_pipeline.release import convert
from data_pipeline.release.inventory import TEMPLATES
from data_pipeline.schema import SPLITS
from data_pipeline.store.writer import StoreWriter

SIZES = {"t": 768, "v": 2048, "o": 2048, "L": 128, "P": 49, "A": 64, "q": 3, "k": 1, "1": 1}
SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}
SLOTS = {"wikidiverse": 11, "wikimel": 101}
CHUNK = 1 << 25  # bytes read or written at once


def write_release(folder: Path, dataset: str, mentions: int) -> int:
    """A release of random features; returns its bytes."""
    rng = np.random.default_rng(0)
    counts = {split: max(1, int(mentions * share)) for split, share in SHARES.items()}
    sizes = SIZES | {"S": SLOTS[dataset], "E": mentions} | {f"N_{s}": counts[s] for s in SPLITS}
    noise = rng.standard_normal(1 << 20, dtype=np.float32)  # rows start at places of their own
    chosen = {s: rng.integers(0, mentions, (counts[s], SLOTS[dataset])) for s in SPLITS}
    answers = {s: rng.integers(0, SLOTS[dataset], counts[s]) for s in SPLITS}
    for split, slots in chosen.items():
        slots[:, -1] = slots[np.arange(len(slots)), answers[split]]
    total = 0
    for name, (symbols, kinds) in TEMPLATES[dataset].items():
        shape = [int(np.prod([sizes[s] for s in symbol.split("*")])) for symbol in symbols]
        split = name.rpartition("_")[2]
        repeated = symbols[0].endswith("*S")
        rows = chosen[split].reshape(-1) if repeated else np.arange(shape[0])
        if kinds == "U":
            array = np.array([f"Q{row}" for row in rows])
        elif name.startswith("answer"):
            array = answers[split]
        elif kinds == "f":
            path = folder / f"{name}.npy"
            _write_features(path, shape, rows, noise, positive="score" in name)
            array = None
        else:
            array = np.ones(shape, np.int64) * (3 if name.startswith("end") else 1)
        if array is not None:
            np.save(folder / f"{name}.npy", array)
        total += (folder / f"{name}.npy").stat().st_size
    if dataset == "wikimel":
        (folder / "qid2idx.json").write_text(json.dumps({f"Q{i}": i for i in range(mentions)}))
    return total


def _write_features(
    path: Path, shape: list[int], rows: np.ndarray, noise: np.ndarray, positive: bool
) -> None:
    width = int(np.prod(shape[1:]))
    with path.open("wb") as file:
        fields = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(file, fields)
        for row in rows:
            values = np.resize(np.roll(noise[: min(width, len(noise))], int(row)), width)
            (np.abs(values) if positive else values).tofile(file)


def drop_cache(folder: Path) -> None:
    """Ask the system to forget the files' pages."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_seconds(folder: Path) -> float:
    """Seconds to read every file once from end to end."""
    buffer = bytearray(CHUNK)
    start = time.perf_counter()
    for path in folder.iterdir():
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - start


def child(folder: Path, store: Path) -> None:
    """Imports, and prints seconds, the peak of all resident memory, and of anonymous memory."""
    import threading

    anonymous, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            status = Path("/proc/self/status").read_text()
            now = int(status.partition("RssAnon:")[2].split()[0])
            anonymous[0] = max(anonymous[0], now)

    thread = threading.Thread(target=watch)
    thread.start()
    start = time.perf_counter()
    try:
        report = convert.write(folder, StoreWriter(store, {}), name="synthetic")
    finally:
        stop.set()
        thread.join()
    measured = {
        "seconds": time.perf_counter() - start,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_anonymous_mb": anonymous[0] / 1024,
        "entities": report["counts"]["entities"],
    }
    print(json.dumps(measured))


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.import_release")
    parser.add_argument("--mentions", type=int, default=2000)
    parser.add_argument("--dataset", choices=sorted(TEMPLATES), default="wikidiverse")
    parser.add_argument("--folder", type=Path, help="where to write for the while (default: /tmp)")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        child(*args.child)
        return 0
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        folder = Path(place) / args.dataset
        folder.mkdir()
        total = write_release(folder, args.dataset, args.mentions)
        drop_cache(folder)
        plain = read_seconds(folder)
        drop_cache(folder)
        command = [sys.executable, "-m", "benchmarks.import_release", "--child", str(folder)]
        done = subprocess.run(
            [*command, f"{place}/store"], check=True, stdout=subprocess.PIPE, text=True
        )
    measured = json.loads(done.stdout)
    rates = {
        "bytes": total,
        "read_mb_per_s": total / plain / 1e6,
        "import_mb_per_s": total / measured["seconds"] / 1e6,
    }
    numbers = measured | rates | {"ratio": plain / measured["seconds"]}
    print(
        f"{args.dataset}: {args.mentions} mentions, {total / 1e9:.2f} GB, "
        f"{numbers['entities']} entities\n"
        f"read once    {numbers['read_mb_per_s']:8.0f} MB/s  {plain:6.2f} s\n"
        f"import       {numbers['import_mb_per_s']:8.0f} MB/s  {numbers['seconds']:6.2f} s\n"
        f"ratio        {numbers['ratio']:8.2f}\n"
        f"peak memory  {numbers['peak_rss_mb']:8.0f} MB resident, "
        f"{numbers['peak_anonymous_mb']:.0f} MB of it anonymous (the rest is file cache)"
    )
    if args.json:
        args.json.write_text(json.dumps(numbers, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
