"""Texts and pictures into one space: a frozen CLIP over batches."""

from collections.abc import Hashable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from data_pipeline.schema import UserError
from drin_jax.encoders import hf, pretrained
from drin_jax.encoders.buckets import plan
from drin_jax.encoders.clip import LEGACY_EOS, Clip, load_clip
from drin_jax.encoders.frozen import Batch, Frozen, check_arguments
from drin_jax.encoders.pixels import FILES as PICTURE_FILES
from drin_jax.encoders.pixels import (
    PROCESSOR,
    Normalisation,
    check_pixels,
    picture_batches,
    read_preprocessor,
)

FILES = (*PICTURE_FILES, "tokenizer.json|vocab.json")
OPTIONAL = (
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", PROCESSOR),
)


class ClipEncoder:
    """A CLIP checkpoint as functions from texts and from pictures to projected embeddings.

    The embeddings are not normalised; what MATH [7] and [8] compare is their cosine.

    Args:
        name_or_folder: a Hugging Face id or a folder with its files.
        batch: pictures of a batch on one device; a batch of texts has as many of full length.
        dtype: "float32" (true float32 products, on accelerators too) or "bfloat16".
        devices: what the rows of a batch are split over; by default all local ones.

    Raises:
        UserError: the checkpoint is not there, of another kind, damaged, or does not fit together.
    """

    def __init__(
        self,
        name_or_folder: str | Path,
        *,
        batch: int = 64,
        dtype: str = "float32",
        devices: Sequence[jax.Device] | None = None,
    ):
        check_arguments(dtype, batch)
        self.folder = hf.resolve(name_or_folder, FILES, OPTIONAL)
        self.preprocessor, self.preprocessor_file = read_preprocessor(self.folder)
        self._normalise = Normalisation.of(self.preprocessor, self.preprocessor_file)
        model = load_clip(self.folder, dtype)
        self.width = model.config.projection_dim
        self.image_size = model.config.vision.image_size
        self.max_length = model.config.text.max_position_embeddings
        self.batch = batch
        self._tokenizer = hf.load_tokenizer(self.folder, model.config.text.vocab_size)
        self._end = self._check_end(model.config.text.eos_token_id)
        self._frozen = Frozen(model, dtype, self._forward, devices)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the checkpoint's config, weights, tokenizer and preprocessor files."""
        return pretrained.fingerprint(self.folder)

    def encode_texts(
        self, texts: Sequence[str], progress: str | None = None
    ) -> Float[np.ndarray, "n c"]:
        """Embeddings [n, c] float32. Equal texts are computed once.

        A text of more than `max_length` tokens, start and end included, keeps its head and its end
        token.

        Args:
            progress: title of a progress bar; None for none.
        """
        number: dict[str, int] = {}
        rows = np.asarray([number.setdefault(text, len(number)) for text in texts], np.int64)
        if not number:
            return np.zeros((0, self.width), np.float32)
        batches = self._text_batches(list(number))
        return self._frozen.gather("texts", batches, len(number), progress, "texts")[rows]

    def encode_pictures(self, pixels: np.ndarray) -> Float[np.ndarray, "n c"]:
        """Embeddings [n, c] float32 of uint8 pixels [n, image_size, image_size, 3].

        Raises:
            UserError: pixels of another type or size.
        """
        check_pixels(pixels, self.image_size)
        if not len(pixels):
            return np.zeros((0, self.width), np.float32)
        batches = picture_batches(pixels, self.batch, len(self._frozen.devices))
        return self._frozen.gather("pictures", batches, len(pixels))

    def _forward(self, model: Clip, kind: Hashable, rows: Array) -> Float[Array, "b c"]:
        if kind == "texts":
            return model.encode_text(rows).astype(jnp.float32)
        return model.encode_pixels(self._normalise(rows)).astype(jnp.float32)

    def _text_batches(self, texts: list[str]) -> Iterator[Batch]:
        """Token ids in batches by length, filled up with end tokens."""
        ids: list[list[int]] = self._tokenizer(
            [hf.whole_characters(text) for text in texts],
            truncation=True,
            max_length=self.max_length,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
        lengths = np.asarray([len(one) for one in ids], np.int64)
        tokens = self.batch * self.max_length
        for members, length, size in plan(
            lengths, self.max_length, tokens, len(self._frozen.devices)
        ):
            batch = np.full((size, length), self._end, np.int32)
            for row, i in zip(batch, members, strict=False):
                row[: len(ids[i])] = ids[i]
            yield members, batch

    def _check_end(self, eos: int) -> int:
        """The token that ends every text; UserError where the model would look for another."""
        ids: list[Any] = self._tokenizer("")["input_ids"]
        end = ids[-1] if ids else None
        wanted = len(self._tokenizer) - 1 if eos == LEGACY_EOS else eos
        if end != wanted:
            raise UserError(
                f"{self.folder}: its tokenizer ends texts with token {end}, by its config.json "
                f"the end is token {wanted}; use a matching pair"
            )
        return wanted
