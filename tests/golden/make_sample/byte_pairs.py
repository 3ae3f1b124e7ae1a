"""The tokenizer of the sample's CLIP: byte-level BPE in Hugging Face's folder layout.

Merges are learned on the world's words, each until it is one token. Names, heraldic colours and
rare scene words are left out, so that they are spelled out in pieces, as words are that a real
CLIP met seldom.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer

from data_pipeline.sample import lexicon as words
from data_pipeline.sample import tiny_bert

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_LENGTH = 48  # the longest of the world's texts has 44
_SUFFIX = "</w>"


def spelled_out() -> set[str]:
    """Words of the world that are no tokens."""
    rare = {word for _, some in words.SCENES.values() for word in some}
    return rare | set(words.HERALDIC.values()) | {name.lower() for name in words.names()}


def write(folder: Path) -> int:
    """Writes the tokenizer's files; returns the number of tokens, the end token the last."""
    merges = _merges(sorted(tiny_bert.known_words() - spelled_out()))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [
        *letters,
        *(c + _SUFFIX for c in letters),
        *("".join(pair) for pair in merges),
    ]
    vocab = {token: i for i, token in enumerate(dict.fromkeys([*tokens, START, END]))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False) + "\n", "utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    settings: dict[str, Any] = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
        "model_max_length": MAX_LENGTH,
        "do_lower_case": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    return len(vocab)


def _merges(known: list[str]) -> list[tuple[str, str]]:
    """BPE's merges, in order, that make each of these words one token."""
    tokenizer = Tokenizer(BPE(end_of_word_suffix=_SUFFIX))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(
        vocab_size=100_000,
        min_frequency=1,
        show_progress=False,
        end_of_word_suffix=_SUFFIX,
    )
    tokenizer.train_from_iterator(known, trainer)
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
