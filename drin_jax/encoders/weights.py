"""The weights of a Hugging Face checkpoint: its tensors by name, and a module filled with them.

Safetensors first. PyTorch's own files are read by `torch.load(weights_only=True)`, which runs no
code of theirs; nothing else is ever unpickled.
"""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open

from data_pipeline.schema import UserError
from drin_jax.encoders.hf import weight_paths

Module = TypeVar("Module", bound=nnx.Module)

_SAFE = 2, 6  # in torch before, weights_only=True could be led to run code (CVE-2025-32434)


def read(folder: Path, *, prefix: str = "", ignore: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint by name: of safetensors, or else of PyTorch's own files.

    Args:
        prefix: what a model with a head puts before the encoder's names ("bert."); taken off.
        ignore: patterns (`fnmatch`) of names to leave out, matched without the prefix. Everything
            else is returned, so that `load` can refuse what it does not know.

    Raises:
        UserError: a file is missing, cut or of another kind; PyTorch's files without torch.
    """

    def wanted(name: str) -> bool:
        name = name.removeprefix(prefix)
        return not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore)

    tensors: dict[str, np.ndarray] = {}
    for path in weight_paths(folder):
        some = _safetensors if path.suffix == ".safetensors" else _pickled
        tensors |= {name.removeprefix(prefix): x for name, x in some(path, wanted).items()}
    return tensors


def _safetensors(path: Path, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in filter(wanted, file.keys())}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not a whole safetensors file ({error}); download it again"
        ) from None


def _pickled(path: Path, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    import torch  # `weight_paths` has said so where it is missing

    tensors = read_pickled(torch, path)
    for name, tensor in tensors.items():
        if tensor.dtype == torch.bfloat16:  # NumPy has none
            tensors[name] = tensor.float()
    return {name: tensors[name].numpy() for name in filter(wanted, tensors)}


def read_pickled(torch: ModuleType, path: Path) -> dict[str, Any]:
    """The tensors of a state dict by name; no code of the file is run.

    Raises:
        UserError: the file is cut, foreign or holds anything else; a torch too old to be safe.
    """
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
    return dict(tensors)


def load(
    module: Module,
    tensors: Mapping[str, np.ndarray],
    rename: Callable[[str], str | tuple[str, ...]],
    *,
    where: str | Path = "checkpoint",
) -> Module:
    """Fills `module` (built under `nnx.eval_shape`) with a PyTorch checkpoint's tensors.

    Linear kernels are transposed and convolution kernels go from OIHW to HWIO. Every value is cast
    once to the dtype its parameter was declared with.

    Args:
        rename: our dotted path of a parameter -> the checkpoint's name, or names, whose tensors
            follow each other along our last axis (a fused projection).
        where: names the checkpoint in errors.

    Raises:
        UserError: listing what is missing, unexpected or of another shape, in the checkpoint's
            names and layout.
    """
    graph, state = nnx.split(module)
    wrong: dict[str, list[str]] = {"missing": [], "unexpected": [], "wrong shape": []}
    used: set[str] = set()
    leaves = []
    paths, structure = jax.tree_util.tree_flatten_with_path(state)
    for path, wanted in paths:
        ours = dotted(path)
        names = rename(ours)
        names = (names,) if isinstance(names, str) else names
        used.update(names)
        absent = [name for name in names if name not in tensors]
        wrong["missing"] += absent
        if absent:
            continue
        arrays = [_our_layout(ours, tensors[name]) for name in names]
        shape = (*wanted.shape[:-1], wanted.shape[-1] // len(names)) if wanted.shape else ()
        bad = [name for name, array in zip(names, arrays, strict=True) if array.shape != shape]
        for name in bad:
            needed = _their_shape(ours, shape)
            wrong["wrong shape"].append(f"{name} {tensors[name].shape}, not {needed}")
        if not bad:
            joined = np.concatenate(arrays, axis=-1) if len(arrays) > 1 else arrays[0]
            leaves.append(jnp.asarray(joined.astype(wanted.dtype)))
    wrong["unexpected"] = sorted(set(tensors) - used)
    if any(wrong.values()):
        told = "; ".join(f"{kind}: {_few(names)}" for kind, names in wrong.items() if names)
        raise UserError(
            f"{where}: the weights do not fit config.json ({told}); use a matching pair"
        )
    return nnx.merge(graph, jax.tree_util.tree_unflatten(structure, leaves))


def _few(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def dotted(path: tuple[Any, ...]) -> str:
    keys = (getattr(key, "key", getattr(key, "name", None)) for key in path)
    return ".".join(str(key) for key in keys if key not in (None, "value"))


def _our_layout(path: str, array: np.ndarray) -> np.ndarray:
    if path.endswith("kernel"):
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return array


def _their_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if path.endswith("kernel"):
        return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
    return shape
