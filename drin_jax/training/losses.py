"""Losses over a batch of candidate scores: margin ranking (MATH: matching and loss; paper [17])
and the cross-entropy over candidates.

S is `scores` [b, r], S_i+ the gold's. Every form is written over the whole batch: under data
parallelism scores, positives and masks are gathered over the axis first and divided by global
counts, so the number of devices changes nothing. Gradients of the gathered loss are averaged over
the axis (`step.py`): each device holds the whole loss and differentiates its own scores only.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from data_pipeline.schema import check_known
from drin_jax.models.graph import unit
from drin_jax.types import Aux, GraphBatch, Targets

FORMS = ("upstream", "hinge", "paper_own", "paper_batch", "hardest", "softmax")


BELOW = -1e9  # the score of what does not take part


def margin_loss(
    scores: Float[Array, "b r"],
    aux: Aux,
    batch: GraphBatch | Targets,
    *,
    form: str,
    margin: float,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """The loss of the global batch, of which this device holds a part when `axis_name` is given.

    Forms (mentions without a gold among the candidates have S+ = 0 in "upstream" and are left out
    of the others, whose mean is over the mentions that take part):
        upstream     every positive against every similarity of the batch, its own included
        hinge        every own negative against the positive, then the mean
        paper_own    [17], the mean own negative against the positive
        paper_batch  [17], the mean over the batch's candidates but the mention's gold slot
        hardest      the largest own negative against the positive, then the mean
        softmax      logsumexp_j S_j - S+ over own candidates, then the mean; without a margin.
                     Where `aux` has "nil", one outcome more scores 0: that none of them is right

    Where `aux` has "members", scores [b, members, r] by each network of a system that is several,
    it is the mean of their losses and not the loss of their mean.
    """
    check_known("loss.form", form, FORMS)
    if "members" in aux:  # in one exchange, as `vmap` makes one of all its collectives
        rest = {name: values for name, values in aux.items() if name != "members"}
        own = functools.partial(margin_loss, form=form, margin=margin, axis_name=axis_name)
        of_each = jax.vmap(lambda scores: own(scores, rest, batch), in_axes=1)
        return jnp.mean(of_each(aux["members"]))
    valid = batch.candidate_mask[:, : scores.shape[1]] & batch.mask[:, None]
    gold, mask = batch.gold, batch.mask
    if form != "paper_batch":
        scores, valid, gold, mask = _gather((scores, valid, gold, mask), axis_name)
    has_gold = (gold >= 0) & mask
    is_gold = jax.nn.one_hot(gold, scores.shape[1], dtype=bool)  # no slot where gold < 0
    positive = jnp.sum(jnp.where(is_gold, scores, 0), 1)
    if form == "paper_batch":
        negative = _batch_negative(positive, aux, valid, has_gold, axis_name)
        negative, positive, has_gold = _gather((negative, positive, has_gold), axis_name)
        return mean_where(jnp.maximum(negative - positive + margin, 0), has_gold)
    if form == "upstream":
        hinge = jnp.maximum(scores.reshape(1, -1) - positive[:, None] + margin, 0)
        return mean_where(hinge, mask[:, None] & valid.reshape(1, -1))
    negatives = valid & ~is_gold
    takes_part = has_gold & jnp.any(negatives, 1)
    if form == "softmax" and "nil" in aux:
        rival = jnp.logaddexp(jax.nn.logsumexp(jnp.where(valid, scores, BELOW), axis=1), 0.0)
        return mean_where(rival - jnp.where(has_gold, positive, 0.0), mask)
    if form in ("softmax", "hardest"):
        kept, over = (valid, jax.nn.logsumexp) if form == "softmax" else (negatives, jnp.max)
        rival = over(jnp.where(kept & takes_part[:, None], scores, BELOW), axis=1)
        above = rival - positive
        return mean_where(above if form == "softmax" else jax.nn.relu(above + margin), takes_part)
    if form == "hinge":
        hinge = jnp.maximum(scores - positive[:, None] + margin, 0)
        return mean_where(mean_where(hinge, negatives, axis=1), takes_part)
    return mean_where(
        jnp.maximum(mean_where(scores, negatives, axis=1) - positive + margin, 0), takes_part
    )


def matched(aux: Aux, form: str) -> Aux:
    """What a loss of this form needs of a model's `aux`."""
    of_form = {"paper_batch": ("mention", "entity"), "softmax": ("nil",)}
    wanted = ("members", *of_form.get(form, ()))
    return {name: aux[name] for name in wanted if name in aux}


def _batch_negative(
    positive: Float[Array, " b"],
    aux: Aux,
    valid: Bool[Array, "b r"],
    has_gold: Bool[Array, " b"],
    axis_name: str | None,
) -> Float[Array, " b"]:
    """Mean cosine of each mention with all candidates of the batch but its gold slot.

    A mean of cosines is the cosine side of one mean unit vector, so no b x (b r) table is made.
    """
    entity = unit(aux["entity"][:, : valid.shape[1]])
    total = jnp.sum(jnp.where(valid[..., None], entity, 0), (0, 1))
    count = jnp.sum(valid)
    if _several(axis_name):
        packed = jax.lax.psum(jnp.append(total, count.astype(total.dtype)), axis_name)
        total, count = packed[:-1], packed[-1]
    own = jnp.where(has_gold, positive, 0)
    return (unit(aux["mention"]) @ total - own) / jnp.maximum(count - has_gold, 1)


def _gather(arrays: tuple[Array, ...], axis_name: str | None) -> tuple[Array, ...]:
    """Each array of every device, concatenated along its first axis: in one exchange, as columns of
    one array, since over several processes an exchange costs more than what is in it."""
    if not _several(axis_name):
        return arrays
    columns = [array.reshape(len(array), -1).astype(jnp.float32) for array in arrays]
    gathered = _all_gather(jnp.concatenate(columns, 1), axis_name)
    ends = np.cumsum([column.shape[1] for column in columns])[:-1]
    return tuple(
        part.reshape(-1, *array.shape[1:]).astype(array.dtype)
        for part, array in zip(jnp.split(gathered, ends, axis=1), arrays, strict=True)
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _all_gather(own: Float[Array, "b n"], axis_name: str) -> Float[Array, "devices*b n"]:
    """`own` of every device. Its gradient needs no exchange: every device computes the same loss of
    the same array, so that the sum of their cotangents is so many times its own.

    Over several CPU processes JAX's own transpose costs more than itself: gloo's reduce-scatter
    leaves the connection with a send buffer of the part's size, which slows all later exchanges.
    """
    return jax.lax.all_gather(own, axis_name, tiled=True)


def _all_gather_forward(own: Array, axis_name: str) -> tuple[Array, None]:
    return _all_gather(own, axis_name), None


def _all_gather_backward(axis_name: str, _: None, cotangent: Array) -> tuple[Array]:
    devices = jax.lax.axis_size(axis_name)
    parts = cotangent.reshape(devices, -1, *cotangent.shape[1:])
    return (devices * parts[jax.lax.axis_index(axis_name)],)


_all_gather.defvjp(_all_gather_forward, _all_gather_backward)


def _several(axis_name: str | None) -> bool:
    return axis_name is not None and jax.lax.axis_size(axis_name) > 1


def mean_where(values: Array, where: Bool[Array, "..."], axis: int | None = None) -> Array:
    """Mean of the chosen values, 0 where none is chosen."""
    chosen = jnp.broadcast_to(where, values.shape)
    total = jnp.sum(jnp.where(chosen, values, 0), axis)
    return total / jnp.maximum(jnp.sum(chosen, axis), 1)
