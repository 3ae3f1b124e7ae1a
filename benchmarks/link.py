"""What linking costs: one mention after another, many at once, and a service under load.

    python -m benchmarks.link --model=PLACE [--run=WORKDIR] [--kb=KB | --entities N] [--mentions N]
                              [--json FILE]

Mentions are those of the model's data set's test split, from raw text. `one` is a warm linker asked
for one mention at a time (median and 99th percentile), `many` the same linker in batches, `alone`
without batches, `names` rapidfuzz over all names alone, which is what a look-up by name costs.
`start` is a fresh process up to its first answer, its compiled programs kept. With --entities the
knowledge base is the model's own and others that recombine its names, descriptions and vectors
(`benchmarks.knowledge_base`), so many in all.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rapidfuzz import fuzz, process
from rapidfuzz.utils import default_process

from benchmarks.knowledge_base import Mixed, recombined
from data_pipeline.kb.change import Change, SegmentWriter
from data_pipeline.kb.knowledge_base import KnowledgeBase, open_kb
from data_pipeline.schema import SAME_AS, Entity
from drin_jax import Linker, Query
from drin_jax.command import keep_compiled
from drin_jax.extract.corpus import read_corpus
from drin_jax.linking.model import LinkModel
from drin_jax.linking.places import find_model
from drin_jax.workdir import open_run

START = """
import sys, time
began = time.perf_counter()
from drin_jax.command import keep_compiled
keep_compiled()
from drin_jax import Linker
linker = Linker.from_pretrained(sys.argv[1], kb=sys.argv[2] or None)
linker.link(sys.argv[3], mention=sys.argv[4])
print(time.perf_counter() - began)
"""


def queries_of(run: Path, count: int) -> list[Query]:
    """Test mentions of a run's data set, from its raw files."""
    config = open_run(run).config
    found = [mention for mention in read_corpus(config).mentions if mention.split == "test"]
    return [
        Query(m.text, None if m.start is None else (m.start, m.end or 0), m.name, m.image)
        for m in found[:count]
    ]


def measured(linker: Linker, queries: Sequence[Query], batch: int) -> dict[str, Any]:
    """Milliseconds of a mention and mentions a second."""
    linker.warm_up(batch)
    spent = []
    for query in queries[:300]:
        began = time.perf_counter()
        linker.link(query.text, query.span, query.mention, query.image)
        spent.append(1000 * (time.perf_counter() - began))
    rates = {}
    for name, size in (("many", batch), ("alone", 1)):
        some = queries if size > 1 else queries[:300]
        began = time.perf_counter()
        for _ in linker.link_many(some, batch=size):
            pass
        rates[name] = len(some) / (time.perf_counter() - began)
    names = [default_process(name) for name in open_kb(linker.kb.info()["path"]).names]
    began = time.perf_counter()
    for query in queries[:300]:
        process.extract(default_process(query.mention or ""), names, scorer=fuzz.WRatio, limit=10)
    rates["names"] = min(300, len(queries)) / (time.perf_counter() - began)
    return {
        "entities": len(linker.kb),
        "mentions": len(queries),
        "one_ms": statistics.median(spent),
        "one_ms_p99": float(np.percentile(spent, 99)),
        "per_second": rates,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def enlarged(model: LinkModel, count: int, folder: Path) -> KnowledgeBase:
    """The model's knowledge base and entities that do not exist, `count` in all."""
    own = model.kb
    mixed = Mixed(np.asarray(own.array("entity_text")), time.perf_counter)

    def fill(segment: SegmentWriter, entities: Sequence[Entity]) -> dict[str, Any]:
        mixed(segment, entities)
        for name, (shape, dtype) in own.tables.items():
            if name != "entity_text" and name not in SAME_AS:
                value = name == "entity_has_text"
                segment.write(name, np.full((len(entities), *shape[1:]), value, dtype))
        return {}

    with Change(folder, fill) as change:
        return change.build([*recombined([*own], count)], name="benchmark")


def started(place: str, kb: str | None, query: Query) -> float:
    """Seconds of a fresh process to its first answer; the second of two, so that programs are
    kept."""
    command = [sys.executable, "-c", START, place, kb or "", query.text, query.mention or ""]
    return [
        float(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]
        )
        for _ in range(2)
    ][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--run", help="workdir whose test mentions are linked; by default --model")
    parser.add_argument("--kb")
    parser.add_argument("--entities", type=int)
    parser.add_argument("--mentions", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    queries = queries_of(Path(args.run or args.model), args.mentions)
    keep_compiled()
    if args.entities:
        model, _ = find_model(args.model)
        with tempfile.TemporaryDirectory() as folder:
            kb = enlarged(model, args.entities, Path(folder) / "kb")
            found = measured(Linker(model, kb), queries, args.batch)
    else:
        linker = Linker.from_pretrained(args.model, kb=args.kb)
        found = measured(linker, queries, args.batch)
        found["start_s"] = started(args.model, args.kb, queries[0])
    rates = found["per_second"]
    print(
        f"{found['entities']:,} entities, {found['mentions']:,} mentions\n"
        f"one mention: {found['one_ms']:.1f} ms (99th percentile {found['one_ms_p99']:.1f} ms)\n"
        f"a second: {rates['many']:.0f} in batches of {args.batch}, {rates['alone']:.0f} one by "
        f"one, {rates['names']:.0f} by names alone\n"
        f"memory {found['peak_memory_gb']:.2f} GB"
    )
    if "start_s" in found:
        print(f"first answer of a fresh process: {found['start_s']:.1f} s")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
