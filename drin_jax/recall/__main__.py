"""How many golds each first stage finds, before anything is encoded or trained.

    python -m drin_jax.recall --config=configs/sample.py --workdir=runs/sample \
        [--methods=names,statistics,given]

Retrieves at least 100 candidates of every mention by each method, and prints recall at eval.ks and
100 on valid, test and the clean part of test. Writes WORKDIR/recall.json and WORKDIR/recall.md.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from data_pipeline import files
from data_pipeline.retrieval.recall import table
from data_pipeline.schema import Corpus, UserError
from drin_jax import command
from drin_jax.extract.pairs import untrained

METHODS = ("names", "statistics", "given")
DEEPEST = 100  # recall is told at this depth too, whatever eval.ks are

# One method on one subset: subset, method, denominator, recall at each k as a text.
Row = tuple[str, ...]


def measure(
    config: ConfigDict, corpus: Corpus, methods: Sequence[str], cache: Path
) -> dict[str, Any]:
    """What recall.json holds: counts and recall of each method on each subset, and seconds.

    Raises:
        UserError: an unknown method, none, or "given" where the data set gives no candidates.
    """
    unknown = [method for method in methods if method not in METHODS]
    if unknown or not methods:
        what = repr(unknown[0]) if unknown else "empty"
        raise UserError(f"--methods is {what}; known are {', '.join(METHODS)}")
    ks = tuple(sorted({*config.eval.ks, DEEPEST}))
    out: dict[str, Any] = {}
    for method in methods:
        start = time.monotonic()
        rows, _, _ = untrained(method, config, corpus, max(ks[-1], config.retrieval.r), cache)
        seconds = time.monotonic() - start
        found = table(corpus, rows, ks)
        if not found:
            raise UserError(f"{corpus.name}: no mention of valid or test has a gold")
        subsets = {name: dataclasses.asdict(recall) for name, recall in found.items()}
        out[method] = {"seconds": seconds, "subsets": subsets}
    return {"name": corpus.name, "entities": len(corpus.entities), "ks": ks, "methods": out}


def rows(result: Mapping[str, Any]) -> list[Row]:
    """The table: every method on a subset, then the next subset."""
    methods = result["methods"]
    subsets = next(iter(methods.values()))["subsets"]
    return [
        (
            subset,
            method,
            str(methods[method]["subsets"][subset]["asked"]),
            *(f"{100 * methods[method]['subsets'][subset]['share'][k]:.1f}" for k in result["ks"]),
        )
        for subset in subsets
        for method in methods
    ]


def caption(result: Mapping[str, Any]) -> list[str]:
    """What the table does not say."""
    first = next(iter(result["methods"].values()))["subsets"]
    counts = "; ".join(f"{name}: {s['outside']} and {s['nil']}" for name, s in first.items())
    seconds = ", ".join(f"{name} {m['seconds']:.0f} s" for name, m in result["methods"].items())
    return [
        f"{result['name']}: {result['entities']} entities; percent of the mentions with a gold",
        f"gold outside the knowledge base (a miss), and NIL (left out): {counts}",
        f"seconds, less where names were cached: {seconds}",
    ]


def _print(result: Mapping[str, Any], head: Sequence[str]) -> None:
    console = Console(width=None if Console().is_terminal else 130, highlight=False)
    shown = Table(title="retrieval recall", title_justify="left", pad_edge=False)
    for i, name in enumerate(head):
        shown.add_column(name, justify="left" if i < 2 else "right")
    previous = ""
    for subset, *cells in rows(result):
        if previous and subset != previous:
            shown.add_section()
        shown.add_row("" if subset == previous else subset, *cells)
        previous = subset
    console.print(shown)
    for line in caption(result):
        console.print(f"  {line}")


def _write(workdir: Path, result: Mapping[str, Any], head: Sequence[str]) -> tuple[Path, Path]:
    lines = ["# Retrieval recall", "", *(f"* {line}" for line in caption(result)), ""]
    lines += ["| " + " | ".join(head) + " |", "|---" * 2 + "|---:" * (len(head) - 2) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows(result)]
    paths = workdir / "recall.json", workdir / "recall.md"
    files.write_json(paths[0], result)
    files.write_text(paths[1], "\n".join(lines) + "\n")
    return paths


def main() -> None:
    """Measure the config's data; print the table and write it to the workdir."""
    config, workdir = command.config_and_workdir()
    from drin_jax.extract.corpus import read_corpus
    from drin_jax.workdir import claim

    methods = list(dict.fromkeys(flags.FLAGS.methods))
    claim(workdir, config)
    corpus = read_corpus(config)
    if not methods:
        given = all(mention.candidates is not None for mention in corpus.mentions)
        methods = [method for method in METHODS if method != "given" or given]
    result = measure(config, corpus, methods, workdir / "cache")
    head = ("mentions", "method", "n", *(f"recall@{k}" for k in result["ks"]))
    _print(result, head)
    print("recall: " + ", ".join(map(str, _write(workdir, result, head))))


if __name__ == "__main__":
    flags.DEFINE_list("methods", [], f"Some of {', '.join(METHODS)}; all that the data allow.")
    command.run(main)
