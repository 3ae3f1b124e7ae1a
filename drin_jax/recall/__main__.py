"""How many golds each first stage finds, before anything is encoded or trained.

    python -m drin_jax.recall --config=configs/sample.py --workdir=runs/sample \
        [--methods=union,names,statistics,given]

Retrieves at least 100 candidates of every mention by each method, and prints recall at eval.ks and
100 on valid, test and the clean part of test; of the union also what each of its stages finds. Its
vectors are those of the config's feature store, and are left out where that is not there. Writes
WORKDIR/recall.json and WORKDIR/recall.md.
"""

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from data_pipeline import files
from data_pipeline.kb.change import Change
from data_pipeline.kb.text_index import text_index
from data_pipeline.output import say
from data_pipeline.retrieval.recall import table
from data_pipeline.retrieval.union import POOLS
from data_pipeline.schema import PADDING, STAGES, Corpus, UserError, check_known
from drin_jax import command
from drin_jax.evaluation.tables import Table
from drin_jax.extract.pairs import unite, untrained
from drin_jax.extract.stored import open_store, store_path

METHODS = ("union", "names", "statistics", "given")
ALL = sum(POOLS.values())  # candidates that the union can have of a mention
DEEPEST = 100  # recall is told at this depth too, whatever eval.ks are


def measure(
    config: ConfigDict, corpus: Corpus, methods: Sequence[str], workdir: Path
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
        if method == "union":
            found = _united(config, corpus, ks[-1], workdir)
        else:
            r = max(ks[-1], config.retrieval.r)
            found = {method: untrained(method, config, corpus, r, workdir / "cache")[0]}
        seconds = time.monotonic() - start
        for name, rows in found.items():
            told = table(corpus, rows, ks)
            if not told:
                raise UserError(f"{corpus.name}: no mention of valid or test has a gold")
            subsets = {subset: dataclasses.asdict(recall) for subset, recall in told.items()}
            out[name] = {"seconds": seconds, "subsets": subsets}
    return {"name": corpus.name, "entities": len(corpus.entities), "ks": ks, "methods": out}


def _united(
    config: ConfigDict, corpus: Corpus, deepest: int, workdir: Path
) -> dict[str, np.ndarray]:
    """Rows [M, deepest] of the union, and of each of its stages alone."""
    path = store_path(config, workdir)
    if path.exists():
        store = open_store(config, path)
        found = unite(corpus.mentions, store.kb, text_index(store.kb), ALL, store.array)
    else:
        say(f"no feature store at {path}: the union goes without vectors")
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=workdir) as folder, Change(folder) as change:
            kb = change.build(corpus.entities, name=corpus.name)
            found = unite(corpus.mentions, kb, text_index(kb), ALL, None)
    out = {"union": found.rows[:, :deepest]}
    for number, stage in enumerate(STAGES):
        rank = found.ranks[:, :, number]
        mention, slot = np.nonzero((rank != PADDING) & (rank < deepest))
        rows = np.full((len(rank), deepest), PADDING, np.int32)
        rows[mention, rank[mention, slot]] = found.rows[mention, slot]
        if len(mention):
            out[f"its {stage}"] = rows
    return out


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
    result = measure(config, corpus, methods, workdir)
    paths = workdir / "recall.json", workdir / "recall.md"
    files.write_json(paths[0], result)
    told = shown(result)
    files.write_text(paths[1], f"# {told.title}\n\n{told.markdown()}\n")
    told.show()
    print("recall: " + ", ".join(map(str, paths)))


if __name__ == "__main__":
    flags.DEFINE_list("methods", [], f"Some of {', '.join(METHODS)}; all that the data allow.")
    command.run(main)
