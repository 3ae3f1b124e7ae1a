"""What a model scores on graphs whose every feature is noise: nothing, if the protocol is honest.

The graphs are the data set's own (candidates, golds, missing text and pictures), but every vertex
feature and edge weight is drawn afresh for every mention and every step, so no entity can be
recognised and nothing can be memorised. What is left to learn from is the graph's shape alone. A
held-out accuracy above chance means that the gold's place can be read off it, as with the published
protocol, whose appended gold slot doubles the gold's weight (docs/protocol.md).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array

from data_pipeline.progress import Progress
from drin_jax import models
from drin_jax.evaluation.ranks import slot_counts, summarize, wilson_interval
from drin_jax.training.losses import margin_loss
from drin_jax.types import GraphBatch

NOISE_WIDTH = 64
# Similarities of real features are not centred on zero; around zero the first layer hears nothing.
EDGE_MEAN, EDGE_SPREAD = 0.5, 0.04
LEARNING_RATE = 5e-3
STEPS_A_DISPATCH = 50
MIN_TRIALS = 2000
BATCH = 64


@dataclasses.dataclass(frozen=True)
class Structure:
    """All that is kept of a split's graphs. Arrays [n, ...]; `gold` is a slot or -1."""

    candidates: np.ndarray  # [n, r] bool
    entity_has_text: np.ndarray  # [n, r]
    entity_has_image: np.ndarray  # [n, r]
    mention_has_image: np.ndarray  # [n]
    gold: np.ndarray  # [n]

    def take(self, rows: np.ndarray) -> "Structure":
        """The graphs of these rows."""
        return Structure(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))


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


def noise_batch(graphs: Any, key: Array, gold_slot: bool) -> GraphBatch:
    """Graphs of pure noise. An appended gold slot repeats the gold candidate's noise, as a gold
    that was retrieved stands in the published program's graph twice."""
    candidates, has_text, has_image, mention_has_image, gold = graphs
    b, r = candidates.shape
    keys = jax.random.split(key, 5)
    entity_text, entity_image = (
        jax.random.normal(k, (b, r, NOISE_WIDTH), jnp.float32) for k in keys[:2]
    )
    mention_text, mention_image = (
        jax.random.normal(k, (b, NOISE_WIDTH), jnp.float32) for k in keys[2:4]
    )
    edges = EDGE_MEAN + EDGE_SPREAD * jax.random.normal(keys[4], (b, 4, r), jnp.float32)
    if gold_slot:
        slot = jnp.maximum(gold, 0)[:, None]

        def append(x: Array, axis: int = 1) -> Array:
            index = slot.reshape(b, *(1,) * (x.ndim - 1))
            return jnp.concatenate([x, jnp.take_along_axis(x, index, axis)], axis)

        entity_text, entity_image = append(entity_text), append(entity_image)
        edges = append(edges, 2)
        has_text, has_image = append(has_text), append(has_image)
        candidates = jnp.concatenate([candidates, (gold >= 0)[:, None]], 1)
    return GraphBatch(
        mention_text=mention_text,
        mention_image=mention_image,
        entity_text=entity_text,
        entity_image=entity_image,
        edges=edges,
        mention_has_text=jnp.ones(b, bool),
        mention_has_image=mention_has_image,
        entity_has_text=has_text,
        entity_has_image=has_image,
        candidate_mask=candidates,
        gold=gold,
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

    def scores_of(params: Any, batch: GraphBatch) -> tuple[Array, Any]:
        return nnx.merge(graphdef, params)(batch)

    def step(carry: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], None]:
        params, opt_state = carry
        rows = jax.random.randint(key, (BATCH,), 0, len(train.gold))
        batch = noise_batch(tuple(a[rows] for a in graphs), jax.random.fold_in(key, 1), gold_slot)

        def loss(params: Any) -> Array:
            scores, aux = scores_of(params, batch)
            return margin_loss(scores, aux, batch, form=loss_form, margin=margin)

        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    several = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys)[0])

    @jax.jit
    def score(params: Any, graphs: Any, key: Array) -> Array:
        return scores_of(params, noise_batch(graphs, key, gold_slot))[0]

    graphs = tuple(jnp.asarray(a) for a in _arrays(train))
    root = jax.random.key(seed)
    keys = jax.random.split(root, steps)
    carry = (params, optimizer.init(params))
    with Progress("noise floor", steps) as progress:
        for i in range(0, steps, STEPS_A_DISPATCH):
            carry = jax.block_until_ready(several(carry, keys[i : i + STEPS_A_DISPATCH]))
            progress.advance(len(keys[i : i + STEPS_A_DISPATCH]))
    params = carry[0]
    answerable = np.flatnonzero(held_out.gold >= 0)
    if len(answerable) == 0:
        return NoiseFloor(0.0, 0.0, 1.0, 0.0, 0, steps, gold_slot)
    rows = np.tile(answerable, -(-MIN_TRIALS // len(answerable)))
    padded = np.concatenate([rows, np.repeat(rows[:1], -len(rows) % BATCH)])
    scores = np.concatenate(
        [
            np.asarray(
                score(
                    params,
                    _arrays(held_out.take(padded[i : i + BATCH])),
                    jax.random.fold_in(root, steps + i),
                )
            )
            for i in range(0, len(padded), BATCH)
        ]
    )[: len(rows)]
    drawn = held_out.take(rows)
    ranks = slot_counts(scores, drawn.gold, drawn.candidates).ranks("mean")
    accuracy = summarize(ranks, (1,))["hits@1"]
    low, high = wilson_interval(accuracy * len(rows), len(rows))
    chance = float(np.mean(1 / drawn.candidates.sum(1)))
    return NoiseFloor(accuracy, low, high, chance, len(rows), steps, gold_slot)


def _arrays(graphs: Structure) -> tuple[np.ndarray, ...]:
    return tuple(getattr(graphs, field.name) for field in dataclasses.fields(graphs))
