"""A knowledge base of a million entities: built, searched and added to.

    python -m benchmarks.knowledge_base --root $DATA/wikimel [--entities N] [--json FILE] [--kb URL]

The entities are those of WikiMEL (--reader names another data set) and others that recombine first
and further names of theirs, with descriptions drawn from theirs. Queries are mentions of the data
set: `names` is the look-up of a surface form with the comparison of what it finds, `union` all of
it for a sentence: names, fullest form and words. Seconds and milliseconds are of CPU time, one
thread; memory is that of a process that opened it and has searched. With --kb, of a database where
there is none yet, they are of the clock, as the server works too.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.kb.change import open_change
from data_pipeline.kb.knowledge_base import is_url, open_kb
from data_pipeline.kb.text_index import text_index
from data_pipeline.readers import load
from data_pipeline.retrieval.union import POOLS, by_union, likeness
from data_pipeline.schema import Entity, Mention

ADDED = 1000


def recombined(entities: list[Entity], count: int, seed: int = 0) -> Iterator[Entity]:
    """`count` entities: those given, and others made of parts of them."""
    yield from entities[:count]
    rng = random.Random(seed)
    parts = [entity.name.split(" ", 1) for entity in entities if " " in entity.name]
    for number in range(len(entities), count):
        name = f"{rng.choice(parts)[0]} {rng.choice(parts)[1]}"
        yield Entity(f"made {number}", name, rng.choice(entities).description)


def timer(place: str) -> Callable[[], float]:
    """Seconds of this process, or of the clock where a server works as well."""
    return time.perf_counter if is_url(place) else time.process_time


def build(place: str, entities: list[Entity]) -> dict[str, float]:
    """Seconds to build it, and to add ADDED entities and find them."""
    now = timer(place)
    began = now()
    with open_change(place) as change:
        change.build(entities, name="benchmark")
    built = now()
    new = [Entity(f"new {i}", f"Newcomer Number{i}", "added later") for i in range(ADDED)]
    clock = time.perf_counter()
    with open_change(place) as change:
        kb = change.add(new)
    rows, _ = text_index(kb).names(new[-1].name, 1)
    assert kb[int(rows[0])].id == new[-1].id
    return {
        "build_cpu_s": built - began,
        "add_wall_s": time.perf_counter() - clock,
        "disk_mb": kb.size / 1e6,
    }


def search(place: str, mentions: list[Mention]) -> dict[str, Any]:
    """Milliseconds a query, and the memory of this process."""
    began, now = time.perf_counter(), timer(place)
    kb = open_kb(place)
    index = text_index(kb)
    by_union(kb, index, mentions[:1], 100)
    opened = time.perf_counter() - began
    out: dict[str, Any] = {"open_wall_s": opened, "entities": kb.entity_count}

    def one_name(mention: Mention) -> None:
        rows, _ = index.names(mention.name, POOLS["names"])
        likeness(kb, [mention.name], np.zeros(len(rows), int), rows)

    def united(mention: Mention) -> None:
        by_union(kb, index, [mention], 100)

    for name, query in (("names", one_name), ("union", united)):
        spent = []
        for mention in mentions:
            start = now()
            query(mention)
            spent.append(1e3 * (now() - start))
        p50, p95 = np.percentile(spent, [50, 95])
        out[name] = {"p50_ms": float(p50), "p95_ms": float(p95)}
    out["memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return out


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--reader", default="wikimel")
    parser.add_argument("--entities", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--kb", help="postgresql://… instead of a folder")
    parser.add_argument("--searched", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    corpus = load(given.reader, given.root, name=given.reader)
    mentions = random.Random(1).sample(corpus.mentions, min(given.queries, len(corpus.mentions)))
    if given.searched:
        print(json.dumps(search(given.searched, mentions)))
        return {}
    with tempfile.TemporaryDirectory() as temporary:
        place = given.kb or str(Path(temporary) / "kb")
        result = build(place, list(recombined(list(corpus.entities), given.entities)))
        again = [sys.executable, "-m", "benchmarks.knowledge_base", "--searched", place]
        again += ["--root", str(given.root), "--reader", given.reader]
        again += ["--queries", str(given.queries)]
        done = subprocess.run(again, check=True, capture_output=True, text=True)
        result |= json.loads(done.stdout)
    print(json.dumps(result, indent=1))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1))
    return result


if __name__ == "__main__":
    main()
