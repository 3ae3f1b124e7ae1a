"""What a model scores on graphs whose every feature is noise: nothing, if the protocol is honest.

The graphs are the data set's own (candidates, golds, missing text and pictures), but every vertex
feature and edge weight is drawn afresh for every mention and every step, so no entity can be
recognised and nothing can be memorised. What is left to learn from is the graph's shape alone. A
held-out accuracy above chance means that the gold's place can be read off it, as with the published
protocol, whose appended gold slot doubles the gold's weight (docs/protocol.md).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array
from scipy import stats

from data_pipeline.output import Progress
from data_pipeline.schema import EVIDENCE_COLUMNS
from drin_jax import models
from drin_jax.evaluation.ranks import slot_counts, summarize
from drin_jax.training.losses import margin_loss
from drin_jax.types import GraphBatch

NOISE_WIDTH = 64
# Similarities of real features are not centred on zero; around zero the first layer hears nothing.
EDGE_MEAN, EDGE_SPREAD = 0.5, 0.04
LEARNING_RATE = 5e-3
STEPS_A_DISPATCH = 50
MIN_TRIALS = 2000
BATCH = 64


class Structure(NamedTuple):
    """All that is kept of a split's graphs. Arrays [n, ...]; `gold` is a slot or -1."""

    candidates: Any  # [n, r] bool
    entity_has_text: Any  # [n, r]
    entity_has_image: Any  # [n, r]
    mention_has_image: Any  # [n]
    gold: Any  # [n]

    def take(self, rows: Any) -> "Structure":
        """The graphs of these rows."""
        return Structure(*(array[rows] for array in self))


@dataclasses.dataclass(frozen=True)
class NoiseFloor:
    """Tie-aware Top-1 over held-out mentions whose gold is a candidate, and what guessing gets."""

    accuracy: float
    low: float  # 95 % Wilson interval
    high: float
    chance: float
    trials: int
    steps: int
    gold_slot: bool

    @property
    def at_chance(self) -> bool:
        """Whether chance lies inside the interval."""
        return self.low <= self.chance <= self.high


def noise_batch(graphs: Structure, key: Array, gold_slot: bool) -> GraphBatch:
    """Graphs of pure noise. An appended gold slot repeats the gold candidate's noise, as a gold
    that was retrieved stands in the published program's graph twice."""
    b, r = graphs.candidates.shape
    slot, candidates = jnp.maximum(graphs.gold, 0), graphs.candidates
    if gold_slot:
        candidates = jnp.append(candidates, (graphs.gold >= 0)[:, None], 1)

    def with_gold(x: Array, axis: int = 1) -> Array:
        index = slot.reshape(b, *(1,) * (x.ndim - 1))
        return jnp.append(x, jnp.take_along_axis(x, index, axis), axis) if gold_slot else x

    def noise(key: Array, *shape: int) -> Array:
        return jax.random.normal(key, shape, jnp.float32)

    keys = jax.random.split(key, 6)
    return GraphBatch(
        mention_text=noise(keys[2], b, NOISE_WIDTH),
        mention_image=noise(keys[3], b, NOISE_WIDTH),
        entity_text=with_gold(noise(keys[0], b, r, NOISE_WIDTH)),
        entity_image=with_gold(noise(keys[1], b, r, NOISE_WIDTH)),
        evidence=with_gold(noise(keys[5], b, r, len(EVIDENCE_COLUMNS))),
        edges=with_gold(EDGE_MEAN + EDGE_SPREAD * noise(keys[4], b, 4, r), 2),
        mention_has_text=jnp.ones(b, bool),
        mention_has_image=graphs.mention_has_image,
        entity_has_text=with_gold(graphs.entity_has_text),
        entity_has_image=with_gold(graphs.entity_has_image),
        candidate_mask=candidates,
        gold=graphs.gold,
        mask=jnp.ones(b, bool),
        gold_slot=gold_slot,
    )


def measure(
    train: Structure,
    held_out: Structure,
    *,
    gold_slot: bool,
    loss_form: str,
    margin: float,
    steps: int = 1500,
    seed: int = 0,
    **model_fields: Any,
) -> NoiseFloor:
    """Train a narrow model for a while on noise and score it on other graphs of noise.

    Args:
        held_out: its mentions without a gold among the candidates are left out; the others are
            drawn as often as needed for `MIN_TRIALS` trials, each time with new noise.
        model_fields: of `models.build`, as in the audited config but for the widths.
    """
    model = models.build(
        image_width=NOISE_WIDTH,
        text_width=NOISE_WIDTH,
        rngs=nnx.Rngs(seed),
        **model_fields | {"width": NOISE_WIDTH},
    )
    graphdef, params = nnx.split(model, nnx.Param)
    optimizer = optax.adam(LEARNING_RATE)

    graphs = jax.tree.map(jnp.asarray, train)

    def step(carry: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], None]:
        params, opt_state = carry
        rows = jax.random.randint(key, (BATCH,), 0, len(train.gold))
        batch = noise_batch(graphs.take(rows), jax.random.fold_in(key, 1), gold_slot)

        def loss(params: Any) -> Array:
            scores, aux = nnx.merge(graphdef, params)(batch)
            return margin_loss(scores, aux, batch, form=loss_form, margin=margin)

        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    several = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys)[0])

    @jax.jit
    def score(params: Any, graphs: Any, key: Array) -> Array:
        return nnx.merge(graphdef, params)(noise_batch(graphs, key, gold_slot))[0]

    root = jax.random.key(seed)
    keys = jax.random.split(root, steps)
    carry = (params, optimizer.init(params))
    with Progress("noise floor", steps) as progress:
        for i in range(0, steps, STEPS_A_DISPATCH):
            some = keys[i : i + STEPS_A_DISPATCH]
            carry = jax.block_until_ready(several(carry, some))
            progress.advance(len(some))
    answerable = np.flatnonzero(held_out.gold >= 0)
    if len(answerable) == 0:
        return NoiseFloor(0.0, 0.0, 1.0, 0.0, 0, steps, gold_slot)
    rows = np.tile(answerable, -(-MIN_TRIALS // len(answerable)))
    padded = np.concatenate([rows, np.repeat(rows[:1], -len(rows) % BATCH)])
    scores = [
        score(carry[0], held_out.take(padded[i : i + BATCH]), jax.random.fold_in(root, steps + i))
        for i in range(0, len(padded), BATCH)
    ]
    drawn = held_out.take(rows)
    counts = slot_counts(np.concatenate(scores)[: len(rows)], drawn.gold, drawn.candidates)
    accuracy = summarize(counts.ranks("mean"), (1,))["hits@1"]
    right = stats.binomtest(round(accuracy * len(rows)), len(rows))
    low, high = map(float, right.proportion_ci(method="wilson"))
    chance = float(np.mean(1 / drawn.candidates.sum(1)))
    return NoiseFloor(accuracy, low, high, chance, len(rows), steps, gold_slot)
