"""A knowledge base of a million entities: built, searched and added to.

    python -m benchmarks.knowledge_base --root $DATA/wikimel [--entities N] [--json FILE]
        [--vectors STORE] [--kb URL]

The entities are those of WikiMEL (--reader names another data set) and others that recombine first
and further names of theirs, with descriptions drawn from theirs. Queries are mentions of the data
set: `names` is the look-up of a surface form with the comparison of what it finds, `union` all of
it for a sentence: names, fullest form and words. Seconds and milliseconds are of CPU time, one
thread; memory is that of a process that opened it and has searched by names and words. With --kb,
of a database where there is none yet, they are of the clock, as the server works too.

With --vectors, a feature store of the data set, the entities have vectors: two of the store's mixed
at random, with noise. Queries are the vectors of its mentions; what the index finds is compared
with an exact search. Nobody's nearest is near, which is hard on an index.
"""

import argparse
import functools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.kb.change import SegmentWriter, open_change
from data_pipeline.kb.knowledge_base import is_url, open_kb
from data_pipeline.kb.text_index import text_index
from data_pipeline.kb.vector_index import VectorIndex
from data_pipeline.readers import load
from data_pipeline.retrieval.union import POOLS, best_ratios, by_union
from data_pipeline.schema import Entity, Mention
from data_pipeline.store.reader import Store

ADDED = 1000
VECTORS, QUERIES = "entity_text_edge", "mention_text_edge"
READ = 1 << 15  # rows mixed at once


def recombined(entities: list[Entity], count: int, seed: int = 0) -> Iterator[Entity]:
    """`count` entities: those given, and others made of parts of them."""
    yield from entities[:count]
    rng = random.Random(seed)
    parts = [entity.name.split(" ", 1) for entity in entities if " " in entity.name]
    for number in range(len(entities), count):
        name = f"{rng.choice(parts)[0]} {rng.choice(parts)[1]}"
        yield Entity(f"made {number}", name, rng.choice(entities).description)


class Mixed:
    """Writes vectors of entities that do not exist; `spent` seconds on it, by the clock `now`."""

    def __init__(self, vectors: np.ndarray, now: Callable[[], float]):
        self._vectors, self._rng = vectors, np.random.default_rng(0)
        self._now, self.spent = now, 0.0

    def __call__(self, segment: SegmentWriter, entities: Sequence[Entity]) -> dict[str, Any]:
        began = self._now()
        have, width = self._vectors.shape
        table = segment.shards("entity_text", (len(entities), width), "float32", READ)
        for shard in table.missing():
            n = min(READ, len(entities) - shard * READ)
            one, other = (self._vectors[self._rng.integers(0, have, n)] for _ in range(2))
            share = self._rng.uniform(0.5, 0.9, (n, 1))
            noise = self._rng.normal(0, 0.15 / np.sqrt(width), (n, width))
            mixed = share * one + (1 - share) * other + noise
            mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
            table.write(shard, mixed.astype(np.float32))
        table.finish()
        self.spent += self._now() - began
        return {}


def timer(place: str) -> Callable[[], float]:
    """Seconds of this process, or of the clock where a server works as well."""
    return time.perf_counter if is_url(place) else time.process_time


def build(place: str, entities: list[Entity], fill: Mixed | None) -> dict[str, float]:
    """Seconds to build it, and to add ADDED entities and find them; both without the making of
    vectors."""
    now = timer(place)
    began = now()
    with open_change(place, fill) as change:
        change.build(entities, name="benchmark")
    built = now() - (fill.spent if fill else 0)
    new = [Entity(f"new {i}", f"Newcomer Number{i}", "added later") for i in range(ADDED)]
    clock = time.perf_counter()
    with open_change(place, fill) as change:
        kb = change.add(new)
    rows, _ = text_index(kb).names(new[-1].name, 1)
    assert kb[int(rows[0])].id == new[-1].id
    return {
        "build_s": built - began,
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
        best_ratios(kb, [[mention.name]], np.zeros(len(rows), int), rows)

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


def search_vectors(place: str, queries: np.ndarray) -> dict[str, Any]:
    """The index of the vectors: seconds to build it (0 for a database, which has built it already),
    milliseconds of a query for 10 entities, and how many of the 10 nearest it finds."""
    import faiss

    from drin_jax.extract.vector_retrieval import by_vectors

    faiss.omp_set_num_threads(1)
    kb, now = open_kb(place), timer(place)
    own: Any = kb.finder()
    began = now()
    nearest = functools.partial(own.nearest, VECTORS) if own else VectorIndex(kb, VECTORS).nearest
    built = now() - began
    found, spent = [], []
    for query in queries:
        start = now()
        found.append(nearest(query[None], 10)[0][0])
        spent.append(1e3 * (now() - start))
    exact, _ = by_vectors(queries, kb.array(VECTORS), 10, alive=kb.alive)
    shared = [len({*mine} & {*theirs}) / 10 for mine, theirs in zip(found, exact, strict=True)]
    p50, p95 = np.percentile(spent, [50, 95])
    told = {"build_s": built, "p50_ms": float(p50), "p95_ms": float(p95)}
    return told | {"recall@10": float(np.mean(shared))}


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
    parser.add_argument("--vectors", type=Path, help="a feature store of it")
    parser.add_argument("--searched", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    corpus = load(given.reader, given.root, name=given.reader)
    mentions = random.Random(1).sample(corpus.mentions, min(given.queries, len(corpus.mentions)))
    if given.searched:
        print(json.dumps(search(given.searched, mentions)))
        return {}
    with tempfile.TemporaryDirectory() as temporary:
        place = given.kb or str(Path(temporary) / "kb")
        store = Store.open(given.vectors) if given.vectors else None
        fill = Mixed(np.asarray(store.array(VECTORS)), timer(place)) if store else None
        result: dict[str, Any] = {}
        result |= build(place, list(recombined(list(corpus.entities), given.entities)), fill)
        again = [sys.executable, "-m", "benchmarks.knowledge_base", "--searched", place]
        again += ["--root", str(given.root), "--reader", given.reader]
        again += ["--queries", str(given.queries)]
        done = subprocess.run(again, check=True, capture_output=True, text=True)
        result |= json.loads(done.stdout)
        if store:
            asked = np.random.default_rng(1).permutation(store.sizes["mentions"])[: given.queries]
            result["vectors"] = search_vectors(place, np.asarray(store.array(QUERIES)[asked]))
    print(json.dumps(result, indent=1))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1))
    return result


if __name__ == "__main__":
    main()
