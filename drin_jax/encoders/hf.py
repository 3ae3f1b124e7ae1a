"""Hugging Face checkpoints: find the folder, read its files strictly, fill a module with them.

Only `config.json`, tokenizer files and safetensors are read; nothing is unpickled and no code of a
checkpoint is run.
"""

import fnmatch
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from data_pipeline.schema import UserError
from drin_jax.encoders.hub_cache import remove_damaged

Module = TypeVar("Module", bound=nnx.Module)

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
WEIGHTS = f"{SINGLE}|{INDEX}"  # what `resolve` asks for
_SHARDS = "model-*.safetensors"
_HASHED = (
    *("config.json", SINGLE, INDEX, _SHARDS, "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt"),
)
_SECONDS = 10.0  # to wait for the hub's first answer


def resolve(name: str | Path, files: Sequence[str], optional: Sequence[str] = ()) -> Path:
    """The local folder of checkpoint `name`: a folder as it is, else a hub id.

    What an earlier download left in the hub's cache is used without asking the network.

    Args:
        files: names that must be there; "a|b" is satisfied by either.
        optional: names to download where the hub has them.

    Raises:
        UserError: no such folder, an id the hub does not know, no network, a file missing.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        _require(path, files)
        return path
    if path.exists() or str(name).startswith((".", "/", "~")) or str(name).count("/") > 1:
        what = "is a file, not a folder" if path.exists() else "does not exist"
        raise UserError(f"encoder {name}: {what}; pass a checkpoint folder or a Hugging Face id")
    wanted = [part for entry in files for part in entry.split("|")] + list(optional)
    if INDEX in wanted:
        wanted.append(_SHARDS)
    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                str(name), allow_patterns=wanted, local_files_only=True
            )
        )
        _require(folder, files)
    except (OSError, ValueError, UserError):  # not in the cache, or not whole
        folder = _download(str(name), wanted)
        _require(folder, files)
    return folder


def _download(name: str, wanted: Sequence[str]) -> Path:
    mend = "download it elsewhere and pass its folder"
    try:
        # snapshot_download has no time limit of its own: ask for a sign of life first.
        huggingface_hub.HfApi().model_info(name, timeout=_SECONDS)
        if not sys.stderr.isatty():
            huggingface_hub.utils.disable_progress_bars()
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=list(wanted)))
    except GatedRepoError:
        raise UserError(f"encoder {name}: gated on the hub; log in (`hf auth login`)") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"encoder {name}: neither a folder nor an id the Hugging Face hub knows; check the name"
        ) from None
    except HFValidationError:
        raise UserError(
            f"encoder {name}: neither a folder nor a Hugging Face id; check the name"
        ) from None
    except Exception as error:  # the hub's client raises many kinds (httpx, requests, OSError)
        raise UserError(
            f"encoder {name}: no such folder, and the Hugging Face hub cannot be reached "
            f"({type(error).__name__}); {mend}"
        ) from None
    if damaged := remove_damaged(folder):
        told = f"encoder {name}: {_few(damaged)} arrived damaged (the hash is not the hub's)"
        raise UserError(f"{told}; run again")
    return folder


def _require(folder: Path, files: Sequence[str]) -> None:
    for entry in files:
        if not any((folder / part).is_file() for part in entry.split("|")):
            mend = "complete the folder"
            if entry == WEIGHTS and any(folder.glob("*.bin")):
                mend = "convert its PyTorch weights with transformers' save_pretrained"
            raise UserError(f"{folder}: has no {entry.replace('|', ' or ')}; {mend}")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; UserError naming the file where it holds none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; pass a whole checkpoint folder") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); download it again") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no JSON object; download it again")
    return values


def read_config(folder: Path, model_type: str) -> dict[str, Any]:
    """`config.json` of a checkpoint; UserError where it is another kind of model."""
    config = read_json(folder / "config.json")
    if (found := config.get("model_type")) != model_type:
        raise UserError(
            f"{folder / 'config.json'}: model_type is {found!r}; this encoder needs {model_type!r}"
        )
    return config


def load_safetensors(
    folder: Path, *, prefix: str = "", ignore: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint by name: `model.safetensors`, or the shards its index lists.

    Args:
        prefix: what a model with a head puts before the encoder's names ("bert."); taken off.
        ignore: patterns (`fnmatch`) of names to leave out, matched with and without the prefix.
            Everything else is returned, so that `load` can refuse what it does not know.

    Raises:
        UserError: a file is missing, truncated or no safetensors.
    """
    if (folder / SINGLE).is_file():
        shards = [SINGLE]
    else:
        _require(folder, [WEIGHTS])
        weight_map = read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict):
            raise UserError(f"{folder / INDEX}: has no weight_map; download it again")
        shards = sorted(set(weight_map.values()))
    tensors: dict[str, np.ndarray] = {}
    for shard in shards:
        path = folder / shard
        try:
            with safe_open(path, framework="np") as file:
                for key in file.keys():  # noqa: SIM118 (the file is no mapping)
                    name = key.removeprefix(prefix)
                    if not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore):
                        tensors[name] = file.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{path}: not a whole safetensors file ({error}); download it again"
            ) from None
    return tensors


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
        ours = _dotted(path)
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


def unload(
    module: nnx.Module, rename: Callable[[str], str | tuple[str, ...]]
) -> dict[str, np.ndarray]:
    """The opposite of `load`: a module's values under the names and layouts of a checkpoint."""
    tensors: dict[str, np.ndarray] = {}
    for path, value in jax.tree_util.tree_flatten_with_path(nnx.state(module))[0]:
        ours = _dotted(path)
        names = rename(ours)
        names = (names,) if isinstance(names, str) else names
        for name, part in zip(names, np.split(np.asarray(value), len(names), -1), strict=True):
            tensors[name] = np.ascontiguousarray(_their_layout(ours, part))
    return tensors


def save(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes `config.json` and `model.safetensors`, as transformers reads them too."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(dict(tensors), folder / SINGLE, metadata={"format": "pt"})


def _dotted(path: tuple[Any, ...]) -> str:
    keys = (getattr(key, "key", getattr(key, "name", None)) for key in path)
    return ".".join(str(key) for key in keys if key not in (None, "value"))


def _our_layout(path: str, array: np.ndarray) -> np.ndarray:
    if path.endswith("kernel"):
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return array


def _their_layout(path: str, array: np.ndarray) -> np.ndarray:
    if path.endswith("kernel"):
        return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    return array


def _their_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if path.endswith("kernel"):
        return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
    return shape


def _few(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def fingerprint(folder: Path) -> str:
    """SHA-256 over names and bytes of a checkpoint's config, weights and tokenizer files."""
    digest = hashlib.sha256()
    names = sorted({path.name for pattern in _HASHED for path in folder.glob(pattern)})
    for name in names:
        with open(folder / name, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()
