"""What relations cost: a new mention's evidence and score, and a training step beside DRIN's.

    python -m benchmarks.relations --workdir=RUN [--mentions N] [--batch B] [--r R]

Over a finished run of a system that reads evidence: how long its memory takes to build from the
training mentions, and the median time of one test mention after another, from its candidates and
vectors to its evidence, and from there to its scores. Then one training step at the paper's widths
(text 768, image 2048, d 768, L 2, float32) of `relational` with every relation, and as many members
as configs/multimodal.py has, beside DRIN's on the same cores in turns: medians and their ratio.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from benchmarks.random_batches import IMAGE, LAYERS, TEXT, WIDTH, random_batch
from data_pipeline.loader import GraphTables
from data_pipeline.relations.evidence import VECTORS, Retrieved, reading, standardised
from data_pipeline.schema import EVIDENCE_COLUMNS
from drin_jax.config import card
from drin_jax.extract.corpus import read_corpus
from drin_jax.models.drin import DRIN
from drin_jax.models.relational import Relational
from drin_jax.parallel.data_parallel import DataParallel
from drin_jax.training.step import create_state, make_train_step
from drin_jax.types import GraphBatch
from drin_jax.workdir import open_run


def one_at_a_time(workdir: Path, count: int) -> dict[str, float]:
    """Seconds to build the memory; median milliseconds of evidence and of scores of a mention."""
    run = open_run(workdir)
    store = run.store
    corpus = {mention.id: mention for mention in read_corpus(run.config).mentions}
    mentions = [corpus[id] for id in store.strings("mention_id")]
    began = time.perf_counter()
    relations, component = reading(store, mentions)
    built = time.perf_counter() - began
    found, scale = Retrieved.of(store, "test"), np.asarray(store.array("evidence_scale"))
    rows = np.asarray(store.array("test_mention"))
    own = store.array(VECTORS[0])
    has = [np.asarray(store.array(f"{side}_has_image")) for side in ("mention", "entity")]
    spent = []
    for i in range(min(count, len(rows))):
        some = slice(i, i + 1)
        began = time.perf_counter()
        m = relations.mentions([mentions[rows[i]]], own[rows[some]], component[rows[some]])
        there = np.broadcast_arrays(has[0][rows[some], None], has[1][found[some].rows])
        pictures = np.stack(there, 2)
        values = standardised(relations(m, found[some], pictures), scale)
        spent.append(time.perf_counter() - began)
        assert np.allclose(values, store.array("test_evidence")[some], atol=0.02)
    setup, params = run.setup, run.params
    forward = jax.jit(lambda params, batch: nnx.merge(setup.graphdef, params)(batch)[0])
    tables = GraphTables(store, "test", setup.spec)
    batches = [GraphBatch.from_host(tables.batch(np.array([i]))) for i in range(min(count, 50))]
    jax.block_until_ready(forward(params, batches[0]))
    return {
        "memory s": built,
        "evidence ms": 1e3 * statistics.median(spent),
        "scores ms": 1e3 * statistics.median(timed(forward, params, one) for one in batches),
    }


def timed(call: Callable[..., Any], *args: Any) -> float:
    """Seconds until the result is there."""
    began = time.perf_counter()
    jax.block_until_ready(call(*args))
    return time.perf_counter() - began


def steps(batch: int, r: int, repeats: int) -> dict[str, float]:
    """Median milliseconds of a step of `drin` and of `relational`, and their ratio."""
    arrays = random_batch(batch, r)
    rng = np.random.default_rng(0)
    values = rng.standard_normal((batch, r, len(EVIDENCE_COLUMNS)), dtype=np.float32)
    parallel, optimizer = DataParallel(devices=1), optax.adam(1e-3)
    runs: dict[str, Callable[[], float]] = {}
    members = card("multimodal").get_config().model.members
    for name, system, own in (("drin", DRIN, {}), ("relational", Relational, {"members": members})):
        model = system(TEXT, IMAGE, width=WIDTH, layers=LAYERS, **own, rngs=nnx.Rngs(0))
        graphdef, params = nnx.split(model, nnx.Param)
        form = "hinge" if name == "drin" else "softmax"
        step = parallel.train_step(
            make_train_step(graphdef, optimizer, loss_form=form, margin=0.25)
        )
        seed = None if name == "drin" else 0
        more = {} if name == "drin" else {"evidence": values}
        state = [parallel.replicate(create_state(params, optimizer, seed))]
        shards = parallel.shard(arrays | more)

        def once(step: Any = step, state: list[Any] = state, shards: Any = shards) -> float:
            began = time.perf_counter()
            state[0], _ = step(state[0], shards)
            jax.block_until_ready(state[0].params)
            return time.perf_counter() - began

        once()
        runs[name] = once
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, once in runs.items():
            spent[name].append(once())
    found = {f"{name} step ms": 1e3 * statistics.median(times) for name, times in spent.items()}
    ratios = (b / a for a, b in zip(*spent.values(), strict=True))
    return found | {"ratio": statistics.median(ratios)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, help="of a finished run; without it, steps alone")
    parser.add_argument("--mentions", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--r", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    found = one_at_a_time(given.workdir, given.mentions) if given.workdir else {}
    for name, value in (found | steps(given.batch, given.r, given.repeats)).items():
        print(f"{name:<20} {value:,.2f}")


if __name__ == "__main__":
    main()
