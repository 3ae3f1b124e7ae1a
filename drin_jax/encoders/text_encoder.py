"""Texts to vectors: a frozen BERT over unique texts in length buckets, pooled on the device."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from data_pipeline.schema import POOLINGS, Span, UserError, check_least
from data_pipeline.store.split_arrays import distinct
from drin_jax.encoders import hf
from drin_jax.encoders.bert import Bert, BertConfig, load_bert
from drin_jax.encoders.frozen import Batch, Frozen, check_arguments, plan, shapes

FILES = ("config.json", "tokenizer.json|vocab.txt", "tokenizer_config.json")


class Window(NamedTuple):
    """What is encoded of a text: its tokens `low` to `high` between CLS and SEP, of which `first`
    to `last` (CLS is 0) are the mention's; CLS where it has none."""

    text: int
    low: int
    high: int
    first: int
    last: int

    @property
    def length(self) -> int:
        """Tokens, with the two that stand around them."""
        return self.high - self.low + 2


class TextEncoder(Frozen):
    """A BERT checkpoint as a function from texts to vectors.

    Rows depend on their own text and span only: batch mates, order and sharding of a call change a
    vector by no more than the rounding of another padded length (1e-5 in float32, about 2e-2 in
    bfloat16), and not at all between equal (text, span) of one call.

    Args:
        name_or_folder: a Hugging Face id or a folder with its files.
        dtype: "float32" (true float32 products, on accelerators too) or "bfloat16".
        max_length: tokens, CLS and SEP included; the model's own limit holds where it is lower.
        batch_tokens: padded tokens of a batch on one device.

    Raises:
        UserError: no such checkpoint, another kind of model, a damaged or unfitting file.
    """

    def __init__(
        self,
        name_or_folder: str | Path,
        *,
        dtype: str = "float32",
        max_length: int = 512,
        batch_tokens: int = 4096,
    ):
        check_arguments(dtype, batch_tokens)
        check_least("encoders.max_length", max_length, 3)
        self.folder = hf.resolve(name_or_folder, FILES)
        model = load_bert(self.folder, dtype)
        self.width = model.config.hidden_size
        self.has_pooler = model.pooler is not None
        self.max_length = min(max_length, model.config.max_position_embeddings)
        self.batch_tokens = batch_tokens
        self._tokenizer = bert_tokenizer(self.folder, model.config)
        super().__init__(model, dtype, _forward)

    def encode(
        self, texts: Sequence[str], spans: Sequence[Span] | None, poolings: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Vectors [N, t] float32 of N texts, one array a pooling.

        * "span": mean over the tokens that overlap the mention's characters (MATH.md [2]); CLS
          where the span is None or covers no token (blanks)
        * "cls": the first token
        * "mean": mean over all tokens, CLS and SEP included
        * "inner": the same without CLS and SEP; CLS where nothing is left
        * "pooler": tanh(W h_CLS + b) of the checkpoint

        A text over the limit is cut to a window with the mention in its middle, or, without a
        span, to its head. Tokens and offsets come from the checkpoint's own tokenizer.

        Args:
            spans: of the mention in each text, in characters, end exclusive; or None.

        Raises:
            UserError: an unknown pooling, "pooler" without one, a span outside its text.
        """
        for name in poolings:
            if name not in POOLINGS:
                raise UserError(f"pooling {name!r} is unknown; use one of {', '.join(POOLINGS)}")
        if "pooler" in poolings and not self.has_pooler:
            raise UserError(f"{self.folder}: has no pooler weights; use another pooling")
        kinds = tuple(name for name in POOLINGS if name in poolings)
        ids, windows = self._windows(texts, spans, keep_span="span" in kinds)
        unique, rows = distinct(windows)
        if not kinds or not unique:
            return {kind: np.zeros((len(texts), self.width), np.float32) for kind in kinds}
        vectors = self.gather(kinds, self._batches(ids, unique), len(unique))
        return {kind: vectors[kind][rows] for kind in kinds}

    def warm_up(self, poolings: Sequence[str], most: int) -> None:
        """Compiles what encodes up to `most` texts at once, of any length."""
        kinds = tuple(name for name in POOLINGS if name in poolings)
        for length, size in shapes(most, self.max_length, self.batch_tokens, len(self.devices)):
            none = self._batch([], [], length, size)
            for leaf in self(kinds, none).values():
                leaf.block_until_ready()

    def token_counts(
        self, texts: Sequence[str], spans: Sequence[Span], limit: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """What `encode_tokens` will give: tokens of each text [N], CLS and SEP included, and the
        mention's first and last+1 of them [N, 2]; CLS where the span covers no token."""
        _, windows = self._windows(texts, spans, limit=limit)
        counts = np.array([window.length for window in windows], np.int64)
        ends = [(window.first, window.last) for window in windows]
        return counts, np.array(ends, np.int32).reshape(-1, 2)

    def encode_tokens(self, texts: Sequence[str], spans: Sequence[Span], limit: int) -> np.ndarray:
        """The last layer's vectors [T, t] float32 of all tokens of N texts, one text after another.

        Args:
            spans: of the mention in each text, as in `encode`.
            limit: tokens, CLS and SEP included; a longer text is cut around the mention.
        """
        ids, windows = self._windows(texts, spans, limit=limit)
        ends = np.cumsum([window.length for window in windows], dtype=np.int64)
        out = np.zeros((int(ends[-1]) if windows else 0, self.width), np.float32)
        for members, hidden in self.run("tokens", self._batches(ids, windows)):
            for row, i in zip(hidden, members, strict=True):
                length = windows[i].length
                out[ends[i] - length : ends[i]] = row[:length]
        return out

    def _windows(
        self,
        texts: Sequence[str],
        spans: Sequence[Span] | None,
        keep_span: bool = True,
        limit: int | None = None,
    ) -> tuple[list[np.ndarray], list[Window]]:
        budget = min(self.max_length, limit or self.max_length) - 2
        return windows(self._tokenizer, texts, spans, budget, keep_span)

    def _batches(self, ids: list[np.ndarray], windows: list[Window]) -> Iterator[Batch]:
        lengths = np.asarray([window.length for window in windows], np.int64)
        for members, length, size in plan(
            lengths, self.max_length, self.batch_tokens, len(self.devices)
        ):
            yield members, self._batch(ids, [windows[i] for i in members], length, size)

    def _batch(
        self, ids: list[np.ndarray], windows: list[Window], length: int, size: int
    ) -> tuple[np.ndarray, ...]:
        """Token ids [size, length], and [size] lengths and span ends, counted with CLS."""
        tokens = np.zeros((size, length), np.int32)
        counts = np.ones((3, size), np.int32)  # rows without a text are a lone CLS
        tokens[:, 0] = self._tokenizer.cls_token_id
        for row, window in enumerate(windows):
            n = window.length
            tokens[row, 1 : n - 1] = ids[window.text][window.low : window.high]
            tokens[row, n - 1] = self._tokenizer.sep_token_id
            counts[:, row] = n, window.first, window.last
        return tokens, *counts


def bert_tokenizer(folder: Path, config: BertConfig) -> Any:
    """A BERT checkpoint's tokenizer. UserError where it is none."""
    tokenizer = hf.load_tokenizer(folder, config.vocab_size)
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise UserError(f"{folder}: its tokenizer has no CLS or no SEP; pass a BERT checkpoint")
    return tokenizer


def windows(
    tokenizer: Any,
    texts: Sequence[str],
    spans: Sequence[Span] | None,
    budget: int | Sequence[int],
    keep_span: bool = True,
) -> tuple[list[np.ndarray], list[Window]]:
    """Token ids of each unique text, and the window of each text of the call.

    Args:
        spans: as `TextEncoder.encode` takes them.
        budget: tokens of a window, CLS and SEP not counted; one for all, or one a text.
        keep_span: False: windows of one text differ in what they show alone.

    Raises:
        UserError: a span outside its text.
    """
    if spans is not None and len(spans) != len(texts):
        raise UserError(f"{len(texts)} texts came with {len(spans)} spans; give one a text")
    for i, (text, span) in enumerate(zip(texts, spans or (), strict=False)):
        if span and not 0 <= span[0] < span[1] <= len(text):
            raise UserError(
                f"text {i} ({text[:40]!r}): span {span} is empty or outside its "
                f"{len(text)} characters; correct its start and end"
            )
    unique, which = distinct(texts)
    if not unique:
        return [], []
    tokens = tokenizer(
        [hf.whole_characters(text) for text in unique],
        add_special_tokens=False,
        return_offsets_mapping=spans is not None,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    ids = [np.asarray(one, np.int32) for one in tokens["input_ids"]]
    found: list[Window] = []
    most = [budget] * len(texts) if isinstance(budget, int) else budget
    for k, span, room in zip(which.tolist(), spans or [None] * len(texts), most, strict=True):
        first = last = 0
        if span:
            first, last = token_span(tokens["offset_mapping"][k], span)
        low = max(min((first + last - room) // 2, first, len(ids[k]) - room), 0)
        high = min(low + room, len(ids[k]))
        own = (first - low + 1, min(last, high) - low + 1) if keep_span and last else (0, 1)
        found.append(Window(k, low, high, *own))
    return ids, found


def token_span(offsets: Sequence[tuple[int, int]], span: tuple[int, int]) -> tuple[int, int]:
    """First and last+1 token that overlap characters `span`; (0, 0) where none does."""
    hit = [i for i, (a, b) in enumerate(offsets) if a < b and a < span[1] and b > span[0]]
    return (hit[0], hit[-1] + 1) if hit else (0, 0)


def _forward(
    model: Bert, kinds: tuple[str, ...] | str, rows: tuple[Array, Array, Array, Array]
) -> Any:
    """One batch: BERT and every pooling of `kinds`, so that only vectors leave the device; with
    "tokens" the vectors [b, s, t] of all tokens."""
    ids, length, start, end = rows
    at = jnp.arange(ids.shape[1])
    first_only = kinds != "tokens" and set(kinds) <= {"cls", "pooler"}
    hidden, pooled = model(ids, at < length[:, None], first_only=first_only)
    hidden = hidden.astype(jnp.float32)
    if kinds == "tokens":
        return hidden

    def mean(low: Int[Array, " b"], high: Int[Array, " b"]) -> Float[Array, "b t"]:
        high = jnp.where(high > low, high, 1)  # no token: CLS
        low = jnp.where(high > low, low, 0)
        weights = ((at >= low[:, None]) & (at < high[:, None])) / (high - low)[:, None]
        return jnp.einsum("bs,bsd->bd", weights, hidden, precision="highest")

    make = {
        "span": lambda: mean(start, end),
        "cls": lambda: hidden[:, 0],
        "mean": lambda: mean(jnp.zeros_like(length), length),
        "inner": lambda: mean(jnp.ones_like(length), length - 1),
        "pooler": lambda: jnp.asarray(pooled, jnp.float32),
    }
    return {kind: make[kind]() for kind in kinds}
