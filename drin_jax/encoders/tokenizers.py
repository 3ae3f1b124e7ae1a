"""The tokenizer of a checkpoint folder."""

import re
from pathlib import Path
from typing import Any

from data_pipeline.schema import UserError

_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: JSON can hold it, UTF-8 cannot


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
