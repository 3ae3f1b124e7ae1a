"""The authors' PyTorch parameters and preprocessed arrays <-> ours: of DRIN, MEL-HI and GHMFC.

Their names and layouts are those of `tests/golden/README.md`: linear weights are [out, in], ours
[in, out]; their four edge types tt, ti, it, ii are our tt, tv, vt, vv; their CLIP similarities are
cosines times 100. Of DRIN only the released form (`model.form = "upstream"`) has such parameters.
PyTorch's attention keeps the maps of query, key and value in one array where their widths agree,
and their biases always.
"""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from data_pipeline.schema import UserError
from drin_jax import models
from drin_jax.encoders.pretrained import misfits
from drin_jax.models.graph import cosine
from drin_jax.types import GraphBatch

TorchArrays = Mapping[str, np.ndarray]

# Our modules -> their parameters, "{}" for weight and bias.
_DRIN = {
    "inputs.mention_text": "vertex_encoder.mention_text_encoder.final_layer.linear.{}",
    "inputs.entity_text": "vertex_encoder.entity_text_encoder.final_layer.{}",
    "inputs.mention_image": "vertex_encoder.mention_image_linear.{}",
    "inputs.entity_image": "vertex_encoder.entity_image_linear.{}",
}
_DRIN_LAYER = {"w_h": "w_h", "w_u": "w_u", "w_v": "w_v", "norm": "layer_norm"}
_MELHI = {
    "image": "image_map_text.{}",
    "mention": "mention_encoder.mention_final_map.{}",
    "entity": "entity_final_map.{}",
    "lstm.inputs": "mention_encoder.mention_lstm.{}_ih_l0",
    "lstm.recurrent": "mention_encoder.mention_lstm.{}_hh_l0",
}
_FUSION = "mention_encoder.intermediate_layer"
_GHMFC = {
    "text": f"{_FUSION}.text_linear.{{}}",
    "image": f"{_FUSION}.image_linear.{{}}",
    "gate": f"{_FUSION}.score_linear.{{}}",
    "entity": "entity_encoder.final_layer.{}",
}
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def torch_names(layers: int) -> dict[str, str]:
    """Our dotted parameter names of `DRIN` with so many layers -> the authors'."""
    of_layers = {
        f"layers.{i}.{ours}": f"gcn_layers.{i}.{theirs}.{{}}"
        for i in range(layers)
        for ours, theirs in _DRIN_LAYER.items()
    }
    return _of_modules(_DRIN | of_layers)


def ghmfc_names() -> dict[str, str]:
    """The same of `GHMFC`, unpacked."""
    modules = dict(_GHMFC)
    for side, direction in (("text_attention", "t2v"), ("image_attention", "v2t")):
        block = f"{_FUSION}.{direction}_attention"
        for stage, way in (("across", "a2b"), ("back", "b2a")):
            attention = f"{block}.{way}_attention"
            modules[f"{side}.{stage}_ffn"] = f"{block}.{way}_ffn.{{}}"
            modules[f"{side}.{stage}.out"] = f"{attention}.out_proj.{{}}"
            for ours, theirs in zip(("query", "key", "value"), _PROJECTIONS, strict=True):
                modules[f"{side}.{stage}.{ours}"] = f"{attention}.{theirs}_{{}}"
        for i in range(4):
            modules[f"{side}.norms.{i}"] = f"{block}.layernorms.{i}.{{}}"
    return _of_modules(modules)


def _of_modules(modules: Mapping[str, str]) -> dict[str, str]:
    names = {}
    for ours, theirs in modules.items():
        weight = "scale" if "norm" in ours else "kernel"
        names[f"{ours}.{weight}"] = theirs.format("weight")
        names[f"{ours}.bias"] = theirs.format("bias")
    return names


def _names(ours: Collection[str]) -> dict[str, str]:
    """The authors' names of a model's parameters, told apart by what they are called here."""
    layers = {name.split(".")[1] for name in ours if name.startswith("layers.")}
    for names in (_of_modules(_MELHI), ghmfc_names(), torch_names(len(layers))):
        if set(ours) <= set(names):
            return names
    raise UserError(
        "this model has no counterpart in the authors' program; those that have are drin "
        "(model.form upstream), mel_hi and ghmfc, over a store with pictures"
    )


def _unpack(state_dict: TorchArrays) -> dict[str, np.ndarray]:
    """`in_proj_weight` and `in_proj_bias` as one array each of query, key and value."""
    out: dict[str, np.ndarray] = {}
    for name, array in state_dict.items():
        module, _, kind = name.rpartition("in_proj_")
        if kind not in ("weight", "bias") or len(array) % 3:
            out[name] = array
            continue
        parts = zip(np.split(array, 3), _PROJECTIONS, strict=True)
        out |= {f"{module}{theirs}_{kind}": part for part, theirs in parts}
    return out


def _pack(arrays: TorchArrays) -> dict[str, np.ndarray]:
    """The inverse of `_unpack`: weights of three shapes stay apart, as PyTorch has them."""
    out = dict(arrays)
    for name in arrays:
        module, first, kind = name.rpartition(f"{_PROJECTIONS[0]}_")
        names = [f"{module}{projection}_{kind}" for projection in _PROJECTIONS]
        if first and len({arrays[name].shape for name in names}) == 1:
            out[f"{module}in_proj_{kind}"] = np.concatenate([out.pop(name) for name in names])
    return out


def from_torch(model: nnx.Module, state_dict: TorchArrays) -> None:
    """Put the authors' parameters into `model`, strictly.

    Args:
        model: a `DRIN` of the upstream form, a `MELHI` or a `GHMFC`.

    Raises:
        UserError: naming the parameters that are missing, unexpected, or of another shape.
    """
    theirs = _unpack(state_dict)
    params = nnx.state(model, nnx.Param)
    flat = models.named(params)
    names = _names(flat)
    if told := misfits(theirs, {names[ours]: _transposed(ours, x) for ours, x in flat.items()}):
        raise UserError(f"the parameters do not fit the model ({told})")
    new = [
        jnp.asarray(_transposed(ours, np.asarray(theirs[names[ours]])), leaf.dtype)
        for ours, leaf in flat.items()
    ]
    nnx.update(model, jax.tree.unflatten(jax.tree.structure(params), new))


def to_torch(params: nnx.State) -> dict[str, np.ndarray]:
    """Parameters, or gradients of them, under the authors' names and layouts."""
    flat = models.named(params)
    names = _names(flat)
    return _pack({names[ours]: _transposed(ours, np.asarray(x)) for ours, x in flat.items()})


def _transposed(ours: str, array: Any) -> Any:
    return array.T if ours.endswith(".kernel") else array


def span_mean(tokens: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Mean over token positions [start, end) of `tokens` [..., s, t], CLS counted."""
    positions = np.arange(tokens.shape[-2])
    chosen = (positions >= start[..., None]) & (positions < end[..., None])
    total = np.einsum("...s,...st->...t", chosen.astype(tokens.dtype), tokens)
    return total / np.maximum(chosen.sum(-1, keepdims=True), 1)


def from_release(inputs: TorchArrays, dataset: str) -> GraphBatch:
    """A batch of leaking graphs from arrays in the form of the authors' release.

    Args:
        inputs: `mention_text_feature` [b, s, t], `mention_start`, `mention_end` (CLS counted),
            `mention_image_feature` [b, 49, v], objects and scores of both sides, `similarity_*`
            [b, r+1] (cosines times 100), `answer` [b] (r: no gold), and the entities'
            `entity_text_feature`: [b, r+1, t] pooled for "wikidiverse", tokens [b, r+1, s, t] with
            `entity_text_mask` for "wikimel". With `mention_text_mask` [b, s] the batch also holds
            tokens and regions; without `similarity_miet`, as for systems that read no edges, the
            edges are zeros.
        dataset: "wikidiverse" or "wikimel".
    """
    x = {name: np.asarray(array) for name, array in inputs.items()}
    b, slots = x["entity_image_feature"].shape[:2]
    entity_tokens = x["entity_text_feature"]
    if dataset == "wikimel":
        length = x["entity_text_mask"].sum(-1)
        entity_text = span_mean(entity_tokens, np.ones_like(length), length - 1)  # no CLS, no SEP
        entity_edge = entity_tokens[:, :, 0]
    elif dataset == "wikidiverse":
        entity_text = entity_edge = entity_tokens
    else:
        raise UserError(f"dataset {dataset!r} has no known released form; use wikidiverse, wikimel")
    mention_text = span_mean(x["mention_text_feature"], x["mention_start"], x["mention_end"])
    v = x["mention_image_feature"].shape[-1]
    edges = [jnp.zeros((b, slots))] * 4
    if "similarity_miet" in x:
        edges = [
            cosine(jnp.asarray(mention_text)[:, None], jnp.asarray(entity_edge)),
            jnp.asarray(x["similarity_mtei"]) / 100,
            jnp.asarray(x["similarity_miet"]) / 100,
            object_similarity(
                x["mention_object_feature"].reshape(b, 1, -1, v),
                x["mention_object_score"].reshape(b, 1, -1),
                x["entity_object_feature"].reshape(b, slots, -1, v),
                x["entity_object_score"].reshape(b, slots, -1),
            ),
        ]
    sequences = {}
    if "mention_text_mask" in x:
        span = np.stack([x["mention_start"], x["mention_end"]], 1).astype(np.int32)
        sequences = {
            "mention_tokens": jnp.asarray(x["mention_text_feature"]),
            "mention_token_mask": jnp.asarray(x["mention_text_mask"] > 0),
            "mention_span": jnp.asarray(span),
            "mention_regions": jnp.asarray(x["mention_image_feature"]),
        }
    answer = x["answer"].astype(np.int32)
    return GraphBatch(
        mention_text=jnp.asarray(mention_text),
        mention_image=jnp.asarray(x["mention_image_feature"].mean(1)),
        entity_text=jnp.asarray(entity_text),
        entity_image=jnp.asarray(x["entity_image_feature"].reshape(b, slots, -1)),
        edges=jnp.stack(edges, 1),
        mention_has_text=jnp.ones(b, bool),
        mention_has_image=jnp.ones(b, bool),
        entity_has_text=jnp.ones((b, slots), bool),
        entity_has_image=jnp.ones((b, slots), bool),
        candidate_mask=jnp.ones((b, slots), bool),
        gold=jnp.where(answer < slots - 1, answer, -1),
        mask=jnp.ones(b, bool),
        gold_slot=True,
        **sequences,
    )


def object_similarity(
    mention: np.ndarray,
    mention_score: np.ndarray,
    entity: np.ndarray,
    entity_score: np.ndarray,
) -> jax.Array:
    """R_vv [11] with the authors' denominator: score-weighted mean cosine over pairs of objects.

    Args: object features [b, 1, q, v] and [b, r, k, v], their scores [b, 1, q] and [b, r, k].
    """
    cosines = cosine(jnp.asarray(mention)[:, :, :, None], jnp.asarray(entity)[:, :, None])
    weights = jnp.asarray(mention_score)[..., None] * jnp.asarray(entity_score)[:, :, None]
    return jnp.sum(weights * cosines, (2, 3)) / (jnp.sum(weights, (2, 3)) + 1e-9)
