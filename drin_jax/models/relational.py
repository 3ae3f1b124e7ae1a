"""DRIN with relations of many values: what is ours in this house, beside the paper's `drin`."""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from data_pipeline.schema import EVIDENCE, EVIDENCE_COLUMNS, RELATIONS
from drin_jax.models.drin import DRIN
from drin_jax.models.gcn import gelu
from drin_jax.models.graph import blind, value
from drin_jax.types import Aux, GraphBatch

_RELATION = np.array([[*EVIDENCE].index(name) for name in EVIDENCE_COLUMNS])  # of each value


class Reading(nnx.Module):
    """One network that reads evidence: states of the edges, and what they add to scores.

    Args:
        kinds: of the graph's edges that it adds to; 0: there is no graph.
        how: dtype and rngs.
    """

    def __init__(self, kinds: int, state: int, layers: int, dropout: float, nil: bool, **how: Any):
        k, self.dropout = len(EVIDENCE_COLUMNS), dropout
        self.to_edges = nnx.List([_zero(state, kinds, **how) for _ in range(layers) if kinds])
        self.first = nnx.Linear(k, state, **how)
        self.updates = nnx.List([nnx.Linear(state, state, **how) for _ in range(layers)])
        self.of_state = _zero(state, 1, **how)
        self.of_evidence = _zero(k, 1, **how)
        self.of_none = (
            nnx.Linear(state, 1, kernel_init=nnx.initializers.zeros, **how) if nil else None
        )

    def __call__(
        self, x: Float[Array, "b r k"], there: Bool[Array, "b scored"], keys: Array | None
    ) -> tuple[Float[Array, "b scored"], Float[Array, " b"] | None, list[Float[Array, "b r s"]]]:
        """w.a_j^L + u.x_j - n of the scored slots, float32; n, where it is learnt; a^0 to a^L."""
        states = [gelu(self.first(x))]
        for i, update in enumerate(self.updates):
            a = states[-1]
            states.append(a + gelu(update(_dropped(a, self.dropout, keys, i))))
        last = _dropped(states[-1], self.dropout, keys, len(self.updates))
        scores = (self.of_state(last) + self.of_evidence(x))[..., 0].astype(jnp.float32)
        scores = scores[:, : there.shape[1]]
        if self.of_none is None:
            return scores, None, states
        kept, any_there = last[:, : there.shape[1]], there.any(1, keepdims=True)
        most = jnp.max(kept, 1, where=there[..., None], initial=-jnp.inf)
        none = self.of_none(jnp.where(any_there, most, 0)).astype(jnp.float32)
        return scores - none, none[:, 0], states


class Relational(nnx.Module):
    """Scores candidates by what their edges carry: a state made of evidence, and DRIN's weights.

        x_j     = the standardised values of the enabled relations between mention and candidate j
        a_j^0   = gelu(W_0 x_j + b_0)
        a_j^l+1 = a_j^l + gelu(W_l a_j^l + b_l)
        A^l    += V_l a_j^l                       before layer l of DRIN, on the edges there are
        s_j     = w.a_j^L + u.x_j + tau cos(mt^L, et_j^L) - n

    n is 0, or with `nil` what the mention has for that no candidate is right: q.max_j a_j^L + n_0,
    so that scores are log odds against that.

    With several `members`, each has its own W, b, w, u, q and V, first values and dropout; the
    score and V's part of A are their means, and the loss is the mean of what each one's own score
    has (Lakshminarayanan et al. 2017, whose members are trained one by one).

    The paper's relations among `relations` are those of DRIN's graph, which is there where
    `vertices` is set. With V, w and u zero and tau 1, as it begins, it is DRIN to the last bit.

    Args:
        members: networks that read the evidence.
        state: width of an edge's state.
        dropout: of the state, while training.
        drop_relations: share of the mentions that train without a relation, of each relation.
        drop_pictures: share of the mentions that train as if they had no picture.
        nil: whether n is learnt.
        vertices: whether texts and pictures are vertices of a graph too.
        others: DRIN's.
    """

    fields: ClassVar[tuple[str, ...]] = (
        *DRIN.fields,
        *("members", "state", "dropout", "drop_relations", "drop_pictures", "vertices", "nil"),
    )
    needs: ClassVar[tuple[str, ...]] = ("evidence",)
    random: ClassVar[bool] = True  # while training it takes a key for each mention

    def __init__(
        self,
        text_width: int,
        image_width: int,
        *,
        layers: int = 2,
        relations: tuple[str, ...] = (*RELATIONS, *EVIDENCE),
        members: int = 1,
        state: int = 128,
        dropout: float = 0.3,
        drop_relations: float = 0.0,
        drop_pictures: float = 0.0,
        vertices: bool = True,
        nil: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        **of_drin: Any,
    ):
        self.evidence = tuple(name for name in EVIDENCE if name in relations)
        self.drop_relations, self.drop_pictures = drop_relations, drop_pictures
        self.graph = (
            DRIN(
                text_width,
                image_width,
                layers=layers,
                relations=tuple(name for name in RELATIONS if name in relations),
                dtype=dtype,
                rngs=rngs,
                **of_drin,
            )
            if vertices
            else None
        )
        kinds = 0
        if self.graph is not None:
            self.relations = self.graph.relations
            kinds = 4 if self.graph.inputs.pictures else 1
            self.tau = nnx.Param(jnp.ones(()))
        self.readings = nnx.List(
            [
                Reading(kinds, state, layers, dropout, nil, dtype=dtype, rngs=rngs)
                for _ in range(members)
            ]
        )

    def __call__(
        self, batch: GraphBatch, keys: Array | None = None
    ) -> tuple[Float[Array, "b scored"], Aux]:
        """Scores [b, scored slots], 0 for a slot without a candidate, and what they came from.

        Args:
            keys: [b] random keys, one a mention: dropout is on.

        `aux` holds `state` [b, r, state], the edges' last one, of the first member, `evidence`
        [b, r, k], what it was made of, with vertices all that DRIN's has, and with keys and several
        members `members` [b, members, scored], the scores by each.
        """
        x, batch = self._seen(batch, keys)
        there = batch.candidate_mask[:, : batch.scored]
        scores, nones, states = zip(
            *(read(x, there, _of_member(keys, i)) for i, read in enumerate(self.readings)),
            strict=True,
        )
        of_each, aux = jnp.stack(scores, 1), {"state": states[0][-1], "evidence": x}
        if self.graph is not None:
            edges = [
                [to(a) for to, a in zip(read.to_edges, own[:-1], strict=True)]
                for read, own in zip(self.readings, states, strict=True)
            ]
            of_layers = [_as_edges(_mean(weights)) for weights in zip(*edges, strict=True)]
            cosines, more = self.graph(batch, of_layers)
            of_each, aux = of_each + value(self.tau) * cosines[:, None], aux | more
        of_each = jnp.where(there[:, None], of_each, 0)
        if nones[0] is not None:
            aux["nil"] = _mean(nones)
        if keys is not None and len(scores) > 1:
            aux["members"] = of_each
        return of_each.mean(1), aux

    def _seen(
        self, batch: GraphBatch, keys: Array | None
    ) -> tuple[Float[Array, "b r k"], GraphBatch]:
        """The evidence of the enabled relations and the batch, less what is dropped."""
        on = np.array([name in self.evidence for name in EVIDENCE])
        kept = jnp.broadcast_to(jnp.asarray(on), (batch.mask.shape[0], len(on)))
        if keys is not None and self.drop_relations:
            kept = kept & _drawn(keys, 100, 1 - self.drop_relations, len(on))
        if keys is not None and self.drop_pictures:
            batch = blind(batch, _drawn(keys, 101, 1 - self.drop_pictures))
        return jnp.where(kept[:, None, _RELATION], batch.needed("evidence"), 0), batch


def _zero(width: int, out: int, **how: Any) -> nnx.Linear:
    """A linear map without bias that begins at zero."""
    return nnx.Linear(width, out, use_bias=False, kernel_init=nnx.initializers.zeros, **how)


def _of_member(keys: Array | None, member: int) -> Array | None:
    """Keys [b] of one reading, the first's as they are."""
    if keys is None or not member:
        return keys
    return jax.vmap(lambda key: jax.random.fold_in(key, 1000 + member))(keys)


def _mean(arrays: Sequence[Array]) -> Array:
    return jnp.stack(arrays).mean(0)


def _as_edges(weights: Float[Array, "b r kinds"]) -> Float[Array, "b k k r"]:
    b, r, kinds = weights.shape
    k = 2 if kinds == 4 else 1
    return weights.astype(jnp.float32).swapaxes(1, 2).reshape(b, k, k, r)


def _drawn(keys: Array, number: int, share: float, *shape: int) -> Bool[Array, "b ..."]:
    """True for so large a share, each mention by its own key."""
    return jax.vmap(
        lambda key: jax.random.bernoulli(jax.random.fold_in(key, number), share, shape)
    )(keys)


def _dropped(
    a: Float[Array, "b r s"], rate: float, keys: Array | None, number: int
) -> Float[Array, "b r s"]:
    if keys is None or not rate:
        return a
    kept = _drawn(keys, number, 1 - rate, *a.shape[1:])
    return jnp.where(kept, a / (1 - rate), 0)
