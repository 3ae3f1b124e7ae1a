"""A Hugging Face checkpoint's folder read strictly: its config, a module filled with its weights.

Safetensors first. PyTorch's own files are read by `torch.load(weights_only=True)`, which runs no
code of theirs; nothing else is ever unpickled.
"""

import dataclasses
import fnmatch
import hashlib
import importlib.util
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file

from data_pipeline import files
from data_pipeline.schema import UserError
from drin_jax.encoders.layers import ACTIVATIONS

Config = TypeVar("Config")
Module = TypeVar("Module", bound=nnx.Module)

# Weights, best first: one file, or the shards that an index lists.
SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
_SHARDS = {SAFETENSORS: "model-*.safetensors", PICKLED: "pytorch_model-*.bin"}
BESIDE_WEIGHTS = (  # what a checkpoint is read from, where it is there
    *("config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt"),
)
_LEAVES = {  # of our modules -> of PyTorch's
    **dict.fromkeys(("kernel", "embedding", "scale"), "weight"),
    **{"bias": "bias", "mean": "running_mean", "var": "running_var"},
}
_SAFE = 2, 6  # in torch before, weights_only=True could be led to run code (CVE-2025-32434)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; UserError naming the file where it holds none."""
    return files.read_json(path, "download it again", "missing; pass a whole checkpoint folder")


def read_config(folder: Path, model_type: str) -> tuple[dict[str, Any], Path]:
    """`config.json` of a checkpoint and its path; UserError where it is another kind of model."""
    path = folder / "config.json"
    config = read_json(path)
    if (found := config.get("model_type")) != model_type:
        raise UserError(f"{path}: model_type is {found!r}; this encoder needs {model_type!r}")
    return config, path


def from_fields(
    kind: type[Config], values: Mapping[str, Any], where: str | Path, **more: Any
) -> Config:
    """A config dataclass out of a JSON object, its own defaults standing for what is missing.

    Fields are positive ints, floats, strings, bools or tuples of positive ints.

    Args:
        where: names the object in errors.
        more: fields that are taken as they are.

    Raises:
        UserError: a value of another type, an int below 1, an activation that is not one of ours,
            heads that do not divide the width.
    """
    given = dict(more)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name in given:
            continue
        value = values.get(field.name, field.default)
        if field.type == tuple[int, ...]:
            value = tuple(value) if isinstance(value, list | tuple) else value
            good = isinstance(value, tuple) and value and all(_positive(part) for part in value)
        elif field.type is int:
            good = _positive(value)
        elif field.type is float:
            good = type(value) in (int, float)
        else:
            good = type(value) is field.type
        if not good:
            raise UserError(f"{where}: {field.name} is {value!r}; download the file again")
        given[field.name] = value
    if (name := given.get("hidden_act", "relu")) not in ACTIVATIONS:
        raise UserError(
            f"{where}: hidden_act {name!r} is not supported; "
            f"pass a checkpoint with one of {', '.join(ACTIVATIONS)}"
        )
    width, heads = given.get("hidden_size", 1), given.get("num_attention_heads", 1)
    if width % heads:
        raise UserError(
            f"{where}: hidden_size {width} is not a multiple of "
            f"num_attention_heads {heads}; the file is damaged"
        )
    return kind(**given)


def _positive(value: Any) -> bool:
    return type(value) is int and value > 0


def fingerprint(folder: Path) -> str:
    """SHA-256 over names and bytes of a checkpoint's config, weights and tokenizer files."""
    digest = hashlib.sha256()
    for name in read_files(folder):
        digest.update(f"{name}\0{files.sha256(folder / name)}\n".encode())
    return digest.hexdigest()


def read_files(folder: Path) -> list[str]:
    """Names of a checkpoint's config, weights and tokenizer files, those that are read."""
    names = {path.name for pattern in BESIDE_WEIGHTS for path in folder.glob(pattern)}
    for single, shards in _SHARDS.items():
        some = (single, f"{single}.index.json", shards)
        if weights := {path.name for pattern in some for path in folder.glob(pattern)}:
            names |= weights
            break
    return sorted(names)


def weight_files(names: Collection[str], where: str | Path) -> list[str]:
    """Patterns of the files among `names` that hold a checkpoint's weights: safetensors first.

    Raises:
        UserError: there are none, or none but PyTorch's and torch is not installed.
    """
    for single, shards in _SHARDS.items():
        index = f"{single}.index.json"
        if single not in names and index not in names:
            continue
        if single == PICKLED and not importlib.util.find_spec("torch"):
            raise UserError(
                f"{where}: has its weights as {PICKLED} only; pip install 'drin-jax[detector]', "
                "which brings torch to read them, or convert them to safetensors with "
                "transformers' save_pretrained"
            )
        return [single] if single in names else [index, shards]
    raise UserError(
        f"{where}: has no {SAFETENSORS}, {SAFETENSORS}.index.json or {PICKLED}; complete the "
        "folder, or convert what it has with transformers' save_pretrained"
    )


def weight_paths(folder: Path) -> list[Path]:
    """The files of a folder that hold its weights: one, or the shards of its index.

    Raises:
        UserError: as `weight_files`, or an index that lists nothing.
    """
    first, *shards = weight_files([path.name for path in folder.iterdir()], folder)
    if not shards:
        return [folder / first]
    weight_map = read_json(folder / first).get("weight_map")
    if not isinstance(weight_map, dict):
        raise UserError(f"{folder / first}: has no weight_map; download it again")
    return [folder / name for name in sorted(set(weight_map.values()))]


def read(folder: Path, *, prefix: str = "", ignore: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint by name: of safetensors, or else of PyTorch's own files.

    Args:
        prefix: what a model with a head puts before the encoder's names ("bert."); taken off.
        ignore: patterns (`fnmatch`) of names to leave out, matched without the prefix. Everything
            else is returned, so that `load` can refuse what it does not know.

    Raises:
        UserError: a file is missing, cut or of another kind; PyTorch's files without torch.
    """
    tensors: dict[str, np.ndarray] = {}
    for path in weight_paths(folder):
        tensors |= {name.removeprefix(prefix): x for name, x in read_file(path).items()}
    ignored = [name for pattern in ignore for name in fnmatch.filter(tensors, pattern)]
    return {name: x for name, x in tensors.items() if name not in ignored}


def read_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors of one file by name, of a PyTorch state dict where it is no safetensors; no code
    of it is run.

    Raises:
        UserError: the file is cut, foreign or holds anything else; a torch too old to be safe.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{path}: not a whole file of weights ({error}); download it again"
            ) from None
    import torch  # who asks for such a file has said so where it is missing

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _SAFE:
        raise UserError(
            f"{path}: torch {torch.__version__} may run what is in it; install 2.6 or later"
        )
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the broken bytes led it to
        raise UserError(
            f"{path}: not a whole file of weights ({type(error).__name__}); download it again, or "
            "write it with torch.save(model.state_dict(), ...)"
        ) from None
    plain = isinstance(tensors, Mapping)
    if not plain or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise UserError(f"{path}: holds no state dict; write torch.save(model.state_dict(), ...)")
    return {  # NumPy has no bfloat16
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        for name, tensor in tensors.items()
    }


def load(
    build: Callable[..., Module],
    tensors: Mapping[str, np.ndarray],
    names: Mapping[str, str],
    *,
    where: str | Path = "checkpoint",
) -> Module:
    """The module `build(rngs=...)` filled with a PyTorch checkpoint's tensors.

    Linear kernels are transposed and convolution kernels go from OIHW to HWIO. Every value is cast
    once to the dtype its parameter was declared with.

    Args:
        names: as `checkpoint_names` takes them.
        where: names the checkpoint in errors.

    Raises:
        UserError: listing what is missing, unexpected or of another shape, in the checkpoint's
            names and layout.
    """
    graph, state = nnx.split(nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0))))
    paths, structure = jax.tree_util.tree_flatten_with_path(state)
    parameters = [(dotted(path), leaf) for path, leaf in paths]
    sources = [checkpoint_names(names, path) for path, _ in parameters]
    wanted: dict[str, jax.ShapeDtypeStruct] = {}
    for (path, leaf), theirs in zip(parameters, sources, strict=True):
        shape = (*leaf.shape[:-1], leaf.shape[-1] // len(theirs))
        if path.endswith("kernel"):
            shape = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
        wanted |= dict.fromkeys(theirs, jax.ShapeDtypeStruct(shape, leaf.dtype))
    if told := misfits(tensors, wanted):
        raise UserError(
            f"{where}: the weights do not fit config.json ({told}); use a matching pair"
        )
    leaves = []
    for (path, leaf), theirs in zip(parameters, sources, strict=True):
        arrays = [tensors[name] for name in theirs]
        if path.endswith("kernel"):
            arrays = [x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T for x in arrays]
        joined = np.concatenate(arrays, axis=-1) if len(arrays) > 1 else arrays[0]
        leaves.append(jnp.asarray(joined.astype(leaf.dtype)))
    return nnx.merge(graph, jax.tree_util.tree_unflatten(structure, leaves))


def tensors(module: nnx.Module, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """What `load` would fill this module with: a PyTorch checkpoint's tensors by their names."""
    found: dict[str, np.ndarray] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(nnx.split(module)[1])[0]:
        name, theirs = dotted(path), checkpoint_names(names, dotted(path))
        for one, part in zip(theirs, np.split(np.asarray(leaf), len(theirs), -1), strict=True):
            if name.endswith("kernel"):
                part = part.transpose(3, 2, 0, 1) if part.ndim == 4 else part.T
            found[one] = part
    return found


def checkpoint_names(names: Mapping[str, str], path: str) -> list[str]:
    """The tensors of a Hugging Face checkpoint that follow each other along the last axis of our
    parameter `path`.

    Args:
        names: our module, or parameter -> theirs. "*" stands for a number, and {0}, {1} for the
            first and second of them; "a.b|c" is a.b and a.c, fused in our one.
    """
    parts = path.split(".")
    numbers = [part for part in parts if part.isdigit()]
    ours = ".".join("*" if part.isdigit() else part for part in parts)
    module, _, leaf = ours.rpartition(".")
    theirs, kind = (names[ours], "") if ours in names else (names[module], f".{_LEAVES[leaf]}")
    above, _, fused = theirs.format(*numbers).rpartition(".")
    return [f"{above}.{one}{kind}".lstrip(".") for one in fused.split("|")]


def misfits(found: Mapping[str, Any], wanted: Mapping[str, Any], most: int = 6) -> str:
    """Which arrays are missing, unexpected or of another shape; "" where none is."""
    wrong = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": sorted(found.keys() - wanted.keys()),
        "wrong shape": [
            f"{name} {tuple(found[name].shape)}, not {tuple(array.shape)}"
            for name, array in wanted.items()
            if name in found and found[name].shape != array.shape
        ],
    }
    return "; ".join(
        f"{kind}: {', '.join(some[:most])}" + f" and {len(some) - most} more" * (len(some) > most)
        for kind, some in wrong.items()
        if some
    )


def dotted(path: tuple[Any, ...]) -> str:
    """A parameter's path in a module, "layers.0.qkv.kernel"."""
    keys = (getattr(key, "key", getattr(key, "name", None)) for key in path)
    return ".".join(str(key) for key in keys if key not in (None, "value"))
