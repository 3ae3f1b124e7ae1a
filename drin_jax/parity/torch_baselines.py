"""The PyTorch parameters of MEL-HI and GHMFC, as re-implemented with the authors' release.

Their names and layouts are those of `tests/golden/README.md`. PyTorch's attention keeps the maps of
query, key and value in one array where their widths agree, and their biases always; `unpack` takes
them apart, `pack` puts them together again.
"""

from collections.abc import Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]

_MELHI = {
    "image": "image_map_text",
    "mention": "mention_encoder.mention_final_map",
    "entity": "entity_final_map",
}
_LSTM = "mention_encoder.mention_lstm"
_FUSION = "mention_encoder.intermediate_layer"
_GHMFC = {
    "text": f"{_FUSION}.text_linear",
    "image": f"{_FUSION}.image_linear",
    "gate": f"{_FUSION}.score_linear",
    "entity": "entity_encoder.final_layer",
}
_ATTENTIONS = {"text_attention": "t2v_attention", "image_attention": "v2t_attention"}
_STAGES = {"across": "a2b", "back": "b2a"}
_PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}


def _linear(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.kernel": f"{theirs}.weight", f"{ours}.bias": f"{theirs}.bias"}


def melhi_names() -> dict[str, str]:
    """Our dotted parameter names of `MELHI` -> the reference's."""
    names: dict[str, str] = {}
    for ours, theirs in _MELHI.items():
        names |= _linear(ours, theirs)
    for ours, theirs in (("inputs", "ih"), ("recurrent", "hh")):
        names[f"lstm.{ours}.kernel"] = f"{_LSTM}.weight_{theirs}_l0"
        names[f"lstm.{ours}.bias"] = f"{_LSTM}.bias_{theirs}_l0"
    return names


def ghmfc_names() -> dict[str, str]:
    """Our dotted parameter names of `GHMFC` -> the reference's, unpacked."""
    names: dict[str, str] = {}
    for ours, theirs in _GHMFC.items():
        names |= _linear(ours, theirs)
    for side, direction in _ATTENTIONS.items():
        block = f"{_FUSION}.{direction}"
        for stage, way in _STAGES.items():
            names |= _linear(f"{side}.{stage}_ffn", f"{block}.{way}_ffn")
            names |= _linear(f"{side}.{stage}.out", f"{block}.{way}_attention.out_proj")
            for ours, theirs in _PROJECTIONS.items():
                projection = f"{block}.{way}_attention.{theirs}"
                names[f"{side}.{stage}.{ours}.kernel"] = f"{projection}_weight"
                names[f"{side}.{stage}.{ours}.bias"] = f"{projection}_bias"
        for i in range(4):
            names[f"{side}.norms.{i}.scale"] = f"{block}.layernorms.{i}.weight"
            names[f"{side}.norms.{i}.bias"] = f"{block}.layernorms.{i}.bias"
    return names


def unpack(state_dict: Arrays) -> dict[str, np.ndarray]:
    """`in_proj_weight` and `in_proj_bias` as one array each of query, key and value."""
    out: dict[str, np.ndarray] = {}
    for name, array in state_dict.items():
        module, _, kind = name.rpartition("in_proj_")
        if kind not in ("weight", "bias") or len(array) % 3:
            out[name] = array
            continue
        for part, theirs in zip(np.split(array, 3), _PROJECTIONS.values(), strict=True):
            out[f"{module}{theirs}_{kind}"] = part
    return out


def pack(arrays: Arrays) -> dict[str, np.ndarray]:
    """The inverse of `unpack`: weights of three shapes stay apart, as PyTorch has them."""
    out = dict(arrays)
    first, *others = _PROJECTIONS.values()
    for kind in ("bias", "weight"):
        for name in [name for name in arrays if name.endswith(f"{first}_{kind}")]:
            module = name.removesuffix(f"{first}_{kind}")
            parts = [arrays[name], *(arrays[f"{module}{other}_{kind}"] for other in others)]
            if len({part.shape for part in parts}) == 1:
                for projection in _PROJECTIONS.values():
                    del out[f"{module}{projection}_{kind}"]
                out[f"{module}in_proj_{kind}"] = np.concatenate(parts)
    return out
