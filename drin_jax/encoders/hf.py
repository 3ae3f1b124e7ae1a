"""The folder of a Hugging Face checkpoint: found, downloaded, its files read strictly.

No code of a checkpoint is run.
"""

import dataclasses
import fnmatch
import hashlib
import importlib.util
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub

from data_pipeline import hub
from data_pipeline.schema import UserError
from drin_jax.encoders.layers import ACTIVATIONS

Config = TypeVar("Config")

# Weights, best first: one file, or the shards that an index lists.
SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
_SHARDS = {SAFETENSORS: "model-*.safetensors", PICKLED: "pytorch_model-*.bin"}
_HASHED = (
    *("config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt"),
)
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: JSON can hold it, UTF-8 cannot


def resolve(name: str | Path, files: Sequence[str], optional: Sequence[str] = ()) -> Path:
    """The local folder of checkpoint `name`: a folder as it is, else a hub id.

    What an earlier download left in the hub's cache is used without asking the network.

    Args:
        files: names that must be there beside the weights; "a|b" is satisfied by either.
        optional: names to download where the hub has them.

    Raises:
        UserError: no such folder, an id the hub does not know, no network, a file missing or
            damaged, weights that need torch, which is not there.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        _require(path, files)
        return path
    if path.exists() or str(name).startswith((".", "/", "~")) or str(name).count("/") > 1:
        what = "is a file, not a folder" if path.exists() else "does not exist"
        raise UserError(f"encoder {name}: {what}; pass a checkpoint folder or a Hugging Face id")
    wanted = [part for entry in files for part in entry.split("|")] + list(optional)
    try:
        found = huggingface_hub.snapshot_download(
            str(name), allow_patterns=wanted, local_files_only=True
        )
        _require(Path(found), files)
        return Path(found)
    except (OSError, ValueError, UserError):  # not in the cache, or not whole
        folder = _download(str(name), wanted)
        _require(folder, files)
        return folder


def _download(name: str, wanted: Sequence[str]) -> Path:
    told = f"encoder {name}"
    with hub.explained(told, "download it elsewhere and pass its folder"):
        _, files = hub.listed(name, "model")
        patterns = [*wanted, *weight_files(files, told)]
        chosen = {
            path: size
            for path, size in files.items()
            if any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
        }
        return hub.download(told, name, "model", None, chosen, patterns=patterns)


def _require(folder: Path, files: Sequence[str]) -> None:
    for entry in files:
        if not any((folder / part).is_file() for part in entry.split("|")):
            raise UserError(f"{folder}: has no {entry.replace('|', ' or ')}; complete the folder")
    for path in weight_paths(folder):
        if not path.is_file():
            raise UserError(f"{path}: missing; complete the folder")


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


def from_fields(
    kind: type[Config], values: Mapping[str, Any], where: str | Path, **more: Any
) -> Config:
    """A config dataclass out of a JSON object, its own defaults standing for what is missing.

    Fields are positive ints, floats, strings, bools or tuples of positive ints.

    Args:
        where: names the object in errors.
        more: fields that are taken as they are.

    Raises:
        UserError: a value of another type, or an int below 1.
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
    return kind(**given)


def _positive(value: Any) -> bool:
    return type(value) is int and value > 0


def check_activation(name: str, where: str | Path) -> None:
    """UserError where the activation is not one of ours."""
    if name not in ACTIVATIONS:
        raise UserError(
            f"{where}: hidden_act {name!r} is not supported; "
            f"pass a checkpoint with one of {', '.join(ACTIVATIONS)}"
        )


def check_heads(width: int, heads: int, where: str | Path) -> None:
    """UserError where the heads do not divide the width."""
    if width % heads:
        raise UserError(
            f"{where}: hidden_size {width} is not a multiple of "
            f"num_attention_heads {heads}; the file is damaged"
        )


def load_tokenizer(folder: Path, vocab_size: int) -> Any:
    """The checkpoint's own fast tokenizer.

    Raises:
        UserError: damaged files, no fast tokenizer, more tokens than the model has.
    """
    from transformers import AutoTokenizer  # imports slowly, and torch with it where installed

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # whatever transformers and tokenizers raise on a damaged file
        told = " ".join(str(error).split())[:120]
        raise UserError(f"{folder}: tokenizer files not readable ({told}); mend them") from None
    if not tokenizer.is_fast:
        raise UserError(f"{folder}: needs a fast tokenizer; add its tokenizer.json")
    if len(tokenizer) > vocab_size:
        raise UserError(
            f"{folder}: its tokenizer has {len(tokenizer)} tokens, its config.json "
            f"vocab_size {vocab_size}; use a matching pair"
        )
    return tokenizer


def whole_characters(text: str) -> str:
    """`text` with U+FFFD for every half of a surrogate pair, which no tokenizer takes."""
    return _SURROGATE.sub("\ufffd", text)


def fingerprint(folder: Path) -> str:
    """SHA-256 over names and bytes of a checkpoint's config, weights and tokenizer files."""
    digest = hashlib.sha256()
    names = {path.name for pattern in _HASHED for path in folder.glob(pattern)}
    for single, shards in _SHARDS.items():
        some = (single, f"{single}.index.json", shards)
        if weights := {path.name for pattern in some for path in folder.glob(pattern)}:
            names |= weights
            break
    for name in sorted(names):
        with open(folder / name, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()
