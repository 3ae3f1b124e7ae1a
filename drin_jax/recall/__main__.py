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

from data_pipeline import files
from data_pipeline.retrieval.recall import table
from data_pipeline.schema import Corpus, UserError, check_known
from drin_jax import command
from drin_jax.evaluation.tables import Table
from drin_jax.extract.pairs import untrained

METHODS = ("names", "statistics", "given")
DEEPEST = 100  # recall is told at this depth too, whatever eval.ks are


def measure(
    config: ConfigDict, corpus: Corpus, methods: Sequence[str], cache: Path
) -> dict[str, Any]:
    """What recall.json holds: counts and recall of each method on each subset, and seconds.

    Raises:
        UserError: an unknown method, none, or "given" where the data set gives no candidates.
    """
    for method in methods or [""]:
        check_known("--methods", method, METHODS)
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


def shown(result: Mapping[str, Any]) -> Table:
    """Every method on a subset, then the next subset: denominator, and recall at each k."""
    ks, methods = result["ks"], result["methods"]
    first = next(iter(methods.values()))["subsets"]
    counts = "; ".join(f"{name}: {s['outside']} and {s['nil']}" for name, s in first.items())
    seconds = ", ".join(f"{name} {m['seconds']:.0f} s" for name, m in methods.items())
    rows = []
    for subset in first:
        for method in methods:
            found = methods[method]["subsets"][subset]
            shares = [f"{100 * found['share'][k]:.1f}" for k in ks]
            rows.append([subset, method, str(found["asked"]), *shares])
    return Table(
        title="Retrieval recall",
        head=["mentions", "method", "n", *(f"recall@{k}" for k in ks)],
        rows=rows,
        notes=[
            f"{result['name']}: {result['entities']} entities; percent of the mentions with a gold",
            f"gold outside the knowledge base (a miss), and NIL (left out): {counts}",
            f"seconds, less where names were cached: {seconds}",
        ],
        words=2,
        grouped=1,
    )


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
    paths = workdir / "recall.json", workdir / "recall.md"
    files.write_json(paths[0], result)
    told = shown(result)
    files.write_text(paths[1], f"# {told.title}\n\n{told.markdown()}\n")
    told.show()
    print("recall: " + ", ".join(map(str, paths)))


if __name__ == "__main__":
    flags.DEFINE_list("methods", [], f"Some of {', '.join(METHODS)}; all that the data allow.")
    command.run(main)
