"""Two texts read together by BERT, one score a pair (Nogueira and Cho, arXiv:1901.04085).

    [CLS] mention's text [SEP] entity's text [SEP]  ->  w.tanh(W h_CLS + b) + c

As transformers' BertForSequenceClassification with one label, whose checkpoints are read and
written; any BERT may begin one, with w = c = 0.
"""

import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from data_pipeline.files import write_json, write_tensors
from data_pipeline.schema import Span, UserError
from drin_jax.encoders import bert, hf, pretrained
from drin_jax.encoders.bert import Bert, BertConfig
from drin_jax.encoders.frozen import Batch, Frozen, check_arguments, plan, shapes
from drin_jax.encoders.text_encoder import FILES, bert_tokenizer, windows

SPECIAL = 3  # tokens: one CLS and two SEP
NAMES = {f"bert.{ours}": f"bert.{theirs}" for ours, theirs in bert.NAMES.items()} | {
    "classifier": "classifier"
}

# Token ids [b,s], and [b,2]: tokens in all, and of the first text with CLS and SEP.
Rows = tuple[Any, Any]
Pair = tuple[str, Span, str]  # the mention's text, where the mention is in it, the entity's text


class PairScore(nnx.Module):
    """The network: scores [b] of pairs."""

    def __init__(self, config: BertConfig, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        self.bert = Bert(config, dtype=dtype, rngs=rngs)
        self.classifier = nnx.Linear(
            *(config.hidden_size, 1),
            kernel_init=nnx.initializers.zeros,
            dtype=dtype,
            param_dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, rows: Rows) -> Float[Array, " b"]:
        """Scores of pairs."""
        ids, counts = rows
        at = jnp.arange(ids.shape[1])
        mask, second = at < counts[:, :1], at >= counts[:, 1:]
        _, pooled = self.bert(ids, mask, (second & mask).astype(jnp.int32), first_only=True)
        assert pooled is not None
        return self.classifier(pooled)[:, 0].astype(jnp.float32)


class PairTokenizer:
    """Pairs of texts as rows of tokens: of the mention's a window around it, of the entity's the
    beginning, each of half the length where both are longer.

    Args:
        folder: of the checkpoint.
        max_length: tokens of a pair, with CLS and SEP.

    Raises:
        UserError: its tokenizer cannot be used.
    """

    def __init__(self, folder: Path, config: BertConfig, max_length: int):
        self.max_length = min(max_length, config.max_position_embeddings)
        if config.type_vocab_size < 2:
            raise UserError(f"{folder}: its BERT knows no second text (type_vocab_size 1)")
        self._tokenizer = bert_tokenizer(folder, config)

    def rows(self, pairs: Sequence[Pair]) -> list[tuple[np.ndarray, int]]:
        """Of each pair its token ids, and how many of them are the first text's."""
        budget = self.max_length - SPECIAL
        texts, spans, others = zip(*pairs, strict=True) if pairs else ((), (), ())
        of_entity, theirs = windows(self._tokenizer, others, None, budget)
        left = [budget - min(other.high, budget // 2) for other in theirs]
        of_mention, own = windows(self._tokenizer, texts, spans, left)
        out = []
        for one, other in zip(own, theirs, strict=True):
            a = of_mention[one.text][one.low : one.high]
            b = of_entity[other.text][: budget - len(a)]
            cls, sep = [self._tokenizer.cls_token_id], [self._tokenizer.sep_token_id]
            row = np.concatenate([cls, a, sep, b, sep])
            out.append((row.astype(np.int32), len(a) + 2))
        return out

    @staticmethod
    def batch(rows: Sequence[tuple[np.ndarray, int]], length: int, size: int) -> Rows:
        """These rows, padded to a length and a number; rows without a pair are a lone token."""
        tokens = np.zeros((size, length), np.int32)
        counts = np.ones((size, 2), np.int32)
        for i, (row, first) in enumerate(rows):
            tokens[i, : len(row)] = row
            counts[i] = len(row), first
        return tokens, counts


class CrossEncoder(Frozen):
    """A checkpoint as a function from pairs of texts to scores.

    Args:
        name_or_folder: a Hugging Face id or a folder with its files.
        dtype: "float32" or "bfloat16".
        max_length: tokens of a pair; the model's own limit holds where it is lower.
        batch_tokens: padded tokens of a batch on one device.

    Raises:
        UserError: no such checkpoint, another kind of model, a damaged or unfitting file.
    """

    def __init__(
        self,
        name_or_folder: str | Path,
        *,
        dtype: str = "float32",
        max_length: int = 128,
        batch_tokens: int = 4096,
    ):
        check_arguments(dtype, batch_tokens)
        self.folder = hf.resolve(name_or_folder, FILES)
        model = load(self.folder, dtype)
        self.tokenizer = PairTokenizer(self.folder, model.bert.config, max_length)
        self.batch_tokens = batch_tokens
        super().__init__(model, dtype, lambda model, _, rows: model(rows))

    def warm_up(self, most: int) -> None:
        """Compiles what reads up to `most` pairs at once, of any length."""
        limit = self.tokenizer.max_length
        for length, size in shapes(most, limit, self.batch_tokens, len(self.devices)):
            self("pairs", self.tokenizer.batch([], length, size)).block_until_ready()

    def scores(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Of each pair [n] float32, higher is better; no more than that."""
        if not pairs:
            return np.zeros(0, np.float32)
        rows = self.tokenizer.rows(pairs)
        return np.asarray(self.gather("pairs", self._batches(rows), len(rows)))

    def _batches(self, rows: Sequence[tuple[np.ndarray, int]]) -> Iterator[Batch]:
        lengths = np.array([len(row) for row, _ in rows])
        limit = self.tokenizer.max_length
        for members, length, size in plan(lengths, limit, self.batch_tokens, len(self.devices)):
            yield members, self.tokenizer.batch([rows[i] for i in members], length, size)


def load(folder: Path, dtype: str = "float32") -> PairScore:
    """The network of a checkpoint's folder; of a BERT without a head for one score, or without a
    pooler, that begins anew.

    Raises UserError for another kind of model and for weights that do not fit it.
    """
    config = BertConfig.from_folder(folder)
    tensors = bert.tensors(folder)
    head = pretrained.read(folder, ignore=("bert.*", "cls.*", "qa_outputs.*"))
    head = {name: x for name, x in head.items() if name.startswith("classifier.")}
    build = partial(PairScore, config, dtype=jnp.dtype(dtype))
    fresh = pretrained.tensors(build(rngs=nnx.Rngs(0)), NAMES)
    own = ("classifier.", "bert.pooler")
    found = {name: x for name, x in fresh.items() if name.startswith(own)}
    found |= {f"bert.{name}": x for name, x in tensors.items()}
    if head and head["classifier.weight"].shape == found["classifier.weight"].shape:
        found |= head
    return pretrained.load(build, found, NAMES, where=folder)


def save(model: PairScore, source: Path, folder: Path) -> None:
    """Writes a checkpoint that transformers reads too as BertForSequenceClassification.

    Args:
        source: of the checkpoint that it began from; its tokenizer and config are copied.
    """
    for name in pretrained.BESIDE_WEIGHTS:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    values = pretrained.read_json(source / "config.json")
    values |= {"architectures": ["BertForSequenceClassification"], "dtype": "float32"}
    labels = {"num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    write_json(folder / "config.json", values | labels)
    arrays = pretrained.tensors(model, NAMES)
    whole = {name: np.array(array, np.float32, order="C") for name, array in arrays.items()}
    write_tensors(folder / pretrained.SAFETENSORS, whole)
