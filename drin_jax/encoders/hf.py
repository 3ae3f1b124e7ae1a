"""The folder of a Hugging Face checkpoint: found or downloaded; and its tokenizer.

No code of a checkpoint is run.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.utils import filter_repo_objects

from data_pipeline import hub
from data_pipeline.schema import UserError
from drin_jax.encoders.pretrained import BESIDE_WEIGHTS, weight_files, weight_paths

_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: JSON can hold it, UTF-8 cannot


def resolve(name: str | Path, files: Sequence[str]) -> Path:
    """The local folder of checkpoint `name`: a folder as it is, else a hub id.

    What an earlier download left in the hub's cache is used without asking the network.

    Args:
        files: names that must be there beside the weights; "a|b" is satisfied by either.

    Raises:
        UserError: no such folder, an id the hub does not know, no network, a file missing or
            damaged, weights that need torch, which is not there.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return _whole(path, files)
    if path.exists() or str(name).startswith((".", "/", "~")) or str(name).count("/") > 1:
        what = "is a file, not a folder" if path.exists() else "does not exist"
        raise UserError(f"encoder {name}: {what}; pass a checkpoint folder or a Hugging Face id")
    try:
        found = huggingface_hub.snapshot_download(
            str(name), allow_patterns=[*BESIDE_WEIGHTS], local_files_only=True
        )
        return _whole(Path(found), files)
    except (OSError, ValueError, UserError):  # not in the cache, or not whole
        return _whole(_download(str(name)), files)


def _download(name: str) -> Path:
    told = f"encoder {name}"
    with hub.explained(told, "download it elsewhere and pass its folder"):
        _, there = hub.listed(name, "model")
        patterns = [*BESIDE_WEIGHTS, *weight_files(there, told)]
        chosen = filter_repo_objects(there, allow_patterns=patterns)
        files = {path: there[path] for path in chosen}
        return hub.download(told, name, "model", files, allow_patterns=patterns)


def _whole(folder: Path, files: Sequence[str]) -> Path:
    for entry in files:
        if not any((folder / part).is_file() for part in entry.split("|")):
            raise UserError(f"{folder}: has no {entry.replace('|', ' or ')}; complete the folder")
    for path in weight_paths(folder):
        if not path.is_file():
            raise UserError(f"{path}: missing; complete the folder")
    return folder


def load_tokenizer(folder: Path, vocab_size: int) -> Any:
    """The checkpoint's own fast tokenizer.

    Raises:
        UserError: damaged files, no fast tokenizer, more tokens than the model has.
    """
    # Of models without PyTorch, of which none is read here.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
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
