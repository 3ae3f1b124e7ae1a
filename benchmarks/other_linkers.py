"""WikiMEL's published test mentions linked by PyPI's `entity-linkings` and by a run of ours.

    python -m benchmarks.other_linkers --run=RUN --encoder=FOLDER --other-python=PYTHON
        [--mentions N] [--systems bm25,dense,ours,ours_untrained] [--json FILE]

RUN is the workdir of a finished run on WikiMEL, FOLDER a MiniLM, PYTHON that of an environment with
entity-linkings. Both sides get the same entities (name and description), the same mentions in the
order of the run's store; each system is a process of its own. --mentions takes the first N.

* bm25: entity-linkings' BM25 of surface forms and names, untrained.
* dense: its TEXTEMBEDDING (marked mention and text against name and description) with MiniLM
  untrained, mean pooling and cosine. It reads a folder that its own `save_pretrained` wrote.
* ours: `link_many` of the run.
* ours_untrained: our knowledge base's search by names and words alone, nothing trained.

A mention that its text lacks has no span, which entity-linkings needs: its text becomes "mention:
text" there. Speed is that of all mentions, after the first 64 were linked once; CPU ms are of all
cores for a mention. Memory is the peak of the process. Lines of user code are those of the two
functions of a system, docstrings left out.

This file runs in both environments: what is not in the standard library is imported where needed.
"""

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

NAMES = {
    "bm25": "entity-linkings, BM25 of names",
    "dense": "entity-linkings, dense, MiniLM untrained",
    "ours_untrained": "ours, `kb.search`: names and words, untrained",
    "ours": "ours, trained on WikiMEL, MiniLM frozen",
}
BATCH = 64
Row = Mapping[str, Any]


def bm25_made(folder: Path) -> Any:
    """A retriever over the entities."""
    from entity_linkings import get_retrievers, load_dictionary

    dictionary = load_dictionary(str(folder / "entities.jsonl"), cache_dir=folder / "cache")
    retriever = get_retrievers("bm25")(dictionary)
    retriever.indexer = retriever.create_indexer()
    return retriever


def dense_made(folder: Path) -> Any:
    """A retriever over the entities, which it encodes."""
    import torch
    from entity_linkings import get_retrievers, load_dictionary
    from entity_linkings.candidate_retriever.textembedding.encoder import TextEmbeddingModel
    from transformers import AutoTokenizer

    dense = get_retrievers("textembedding")
    plain, own = os.environ["ENCODER"], folder / "dense"
    config = dense.Config(str(own), distance="cosine", prefix_context="", prefix_candidate="")
    torch.manual_seed(0)
    own.mkdir()
    marks = [config.ent_start_token, config.ent_end_token, config.entity_token, config.nil_token]
    tokenizer = AutoTokenizer.from_pretrained(plain)
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    encoder = TextEmbeddingModel(plain, config.pooling, config.distance)
    encoder.resize_token_embeddings(len(tokenizer))
    encoder.save_pretrained(str(own))
    tokenizer.save_pretrained(str(own))
    dictionary = load_dictionary(str(folder / "entities.jsonl"), cache_dir=folder / "cache")
    retriever = dense(dictionary, config)
    retriever.indexer = retriever.create_indexer()
    return retriever


def other_linked(retriever: Any, rows: Sequence[Row]) -> list[str]:
    """Ids of the best entities, in the order of the mentions."""
    from datasets import Dataset

    wanted = [
        {"id": row["id"], "text": row["other_text"], "entities": [row["other"]]} for row in rows
    ]
    found = retriever.retrieve_candidates(Dataset.from_list(wanted), top_k=1, batch_size=BATCH)
    return [candidates[0] for candidates in found]


def ours_made(folder: Path) -> Any:
    """A linker with the run's model and knowledge base."""
    from drin_jax import Linker

    linker = Linker.from_pretrained(os.environ["RUN"])
    linker.warm_up(BATCH)
    return linker


def ours_linked(linker: Any, rows: Sequence[Row]) -> list[str]:
    """Ids of the best entities, in the order of the mentions."""
    queries = [{"text": row["text"], "span": row["span"], "mention": row["name"]} for row in rows]
    return [one.best.id for one in linker.link_many(queries, batch=BATCH, k=1)]


def ours_untrained_linked(linker: Any, rows: Sequence[Row]) -> list[str]:
    """Ids of the best entities, in the order of the mentions."""
    return [linker.kb.search(row["name"], row["text"], k=1)[0].id for row in rows]


SYSTEMS: dict[str, tuple[Callable[..., Any], Callable[..., list[str]]]] = {
    "bm25": (bm25_made, other_linked),
    "dense": (dense_made, other_linked),
    "ours_untrained": (ours_made, ours_untrained_linked),
    "ours": (ours_made, ours_linked),
}


def lines_of(functions: Iterable[Callable[..., Any]]) -> int:
    """Lines of code of functions, without their heads and docstrings."""
    count = 0
    for function in functions:
        lines = [line for line in inspect.getsource(function).splitlines() if line.strip()]
        count += len(lines) - 2
    return count


def measured(system: str, folder: Path) -> dict[str, Any]:
    """One system, here and now."""
    rows = [json.loads(line) for line in (folder / "mentions.jsonl").read_text().splitlines()]
    made, linked = SYSTEMS[system]
    began = time.perf_counter()
    linker = made(folder)
    ready = time.perf_counter()
    linked(linker, rows[:BATCH])
    warm, spent = time.perf_counter(), time.process_time()
    found = linked(linker, rows)
    seconds, spent = time.perf_counter() - warm, time.process_time() - spent
    right = sum(id == row["gold"] for id, row in zip(found, rows, strict=True))
    peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    return {
        "system": system,
        "mentions": len(rows),
        "right": right,
        "top1": 100 * right / len(rows),
        "ready_s": ready - began,
        "per_second": len(rows) / seconds,
        "cpu_ms": 1000 * spent / len(rows),
        "peak_gb": int(peak) * 1024 / 1e9,
        "lines": lines_of(SYSTEMS[system]),
    }


def write(run: Path, folder: Path, count: int) -> int:
    """Entities and mentions of a run's test split as files; how many entities there are."""
    import numpy as np

    from drin_jax.extract.corpus import read_corpus
    from drin_jax.workdir import open_run

    opened = open_run(run)
    corpus = read_corpus(opened.config)
    known = {mention.id: mention for mention in corpus.mentions}
    ids = opened.store.strings("mention_id")
    test = [known[ids[row]] for row in np.asarray(opened.store.array("test_mention"))]
    entities = [
        {"id": one.id, "name": one.name, "description": one.description} for one in corpus.entities
    ]
    mentions = []
    for one in test[: count or None]:
        span, text = (one.start, one.end), one.text
        if one.start is None:
            span, text = (0, len(one.name)), f"{one.name}: {one.text}"
        other = {"start": span[0], "end": span[1], "label": [one.gold]}
        mentions.append(
            {"id": one.id, "name": one.name, "text": one.text, "gold": one.gold}
            | {"span": None if one.start is None else span, "other_text": text, "other": other}
        )
    for name, rows in (("entities", entities), ("mentions", mentions)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    return len(entities)


def main() -> None:
    """Measure each system in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.other_linkers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--run", type=Path)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--other-python", help="of an environment with entity-linkings")
    parser.add_argument("--mentions", type=int, default=0, help="the first so many; 0: all")
    parser.add_argument("--systems", default=",".join(NAMES))
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measured(args.child[0], Path(args.child[1]))))
        return
    results = []
    for system in args.systems.split(","):
        with tempfile.TemporaryDirectory() as name:  # nothing of one is found by another
            entities = write(args.run, Path(name), args.mentions)
            ours = system.startswith("ours")
            child = ["--child", system, name]
            command = [sys.executable, "-m", "benchmarks.other_linkers", *child]
            if not ours:
                command = [args.other_python, "-I", __file__, *child]
            places = {"RUN": str(args.run), "ENCODER": str(args.encoder), "HF_HUB_OFFLINE": "1"}
            found = subprocess.run(
                command, env=os.environ | places, stdout=subprocess.PIPE, text=True, check=True
            )
        results.append(json.loads(found.stdout.splitlines()[-1]))
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    print(f"{entities:,} entities, {results[0]['mentions']:,} mentions\n")
    print("| | Top-1 | mentions a second | CPU ms | peak memory | ready after | lines of code |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for one in results:
        print(
            f"| {NAMES[one['system']]} | {one['top1']:.1f} | {one['per_second']:.0f} "
            f"| {one['cpu_ms']:.1f} | {one['peak_gb']:.2f} GB "
            f"| {one['ready_s']:.0f} s | {one['lines']} |"
        )
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
