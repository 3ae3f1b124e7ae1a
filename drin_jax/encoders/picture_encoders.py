"""Pictures to vectors, and with CLIP texts into the same space: frozen checkpoints over batches.

Pixels are uint8 and have the encoder's size already: resizing and cropping is done before. They are
normalised on the device.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from data_pipeline.schema import UserError
from data_pipeline.store.split_arrays import distinct
from drin_jax.encoders import hf, pretrained
from drin_jax.encoders.clip import LEGACY_EOS, Clip, load_clip
from drin_jax.encoders.frozen import (
    Batch,
    Frozen,
    check_arguments,
    check_pixels,
    picture_batches,
    plan,
    shapes,
)
from drin_jax.encoders.resnet import ResNet, load_resnet

PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"  # newer transformers save it inside this one


class PictureEncoder(Frozen):
    """A checkpoint as a function from pictures to vectors.

    Args:
        name_or_folder: a Hugging Face id or a folder with its files.
        batch: pictures of a batch on one device; a batch of texts has as many of full length.
        dtype: "float32" (true float32 products, on accelerators too) or "bfloat16".

    Attributes:
        width: of the vectors.
        preprocessor: the checkpoint's image processor settings, of `preprocessor_file`.

    Raises:
        UserError: the checkpoint is not there, of another kind, damaged, or does not fit together.
    """

    FILES: tuple[str, ...] = ("config.json", f"{PREPROCESSOR}|{PROCESSOR}")
    width: int

    def __init__(self, name_or_folder: str | Path, *, batch: int = 32, dtype: str = "float32"):
        check_arguments(dtype, batch)
        self.folder = hf.resolve(name_or_folder, self.FILES)
        self.preprocessor, self.preprocessor_file = read_preprocessor(self.folder)
        self._normalise = Normalisation.of(self.preprocessor, self.preprocessor_file)
        self.batch = batch
        super().__init__(self._load(dtype), dtype, self._forward)

    @abstractmethod
    def _load(self, dtype: str) -> Any:
        """The module, once the rest of the folder is known to fit it."""

    @abstractmethod
    def _forward(self, model: Any, kind: Hashable, rows: Array) -> Any:
        """As `Frozen` takes it."""

    def _pictures(self, kind: Hashable, pixels: np.ndarray) -> Any:
        if not len(pixels):
            return self.nothing(kind, np.zeros((1, *pixels.shape[1:]), np.uint8))
        batches = picture_batches(pixels, self.batch, len(self.devices))
        return self.gather(kind, batches, len(pixels))


class ResNetEncoder(PictureEncoder):
    """A ResNet checkpoint as a function from pictures to vectors, of the whole or of regions."""

    def _load(self, dtype: str) -> ResNet:
        model = load_resnet(self.folder, dtype)
        if model.config.num_channels != 3:
            raise UserError(
                f"{self.folder / 'config.json'}: num_channels is {model.config.num_channels}; "
                "pass a checkpoint for colour pictures"
            )
        self.width = model.config.hidden_sizes[-1]
        return model

    def encode(self, pixels: np.ndarray, regions: bool = False) -> dict[str, np.ndarray]:
        """Vectors float32 of uint8 pixels [n, h, w, 3].

        Returns:
            "pooled" [n, v], the mean over the last feature map (MATH [4], [5]), and with `regions`
            the map itself, "regions" [n, g, v], row by row (g = 49 of pictures of 224 x 224).

        Raises:
            UserError: pixels of another type or shape.
        """
        check_pixels(pixels)
        return self._pictures(regions, pixels)

    def _forward(
        self, model: ResNet, regions: Hashable, pixels: UInt8[Array, "b h w 3"]
    ) -> dict[str, Float[Array, "b ..."]]:
        grid, pooled = model(self._normalise(pixels))
        return {"pooled": pooled, "regions": grid} if regions else {"pooled": pooled}


class ClipEncoder(PictureEncoder):
    """A CLIP checkpoint as functions from texts and from pictures to projected embeddings.

    The embeddings are not normalised; what MATH [7] and [8] compare is their cosine.
    """

    FILES = (*PictureEncoder.FILES, "tokenizer.json|vocab.json")

    def _load(self, dtype: str) -> Clip:
        model = load_clip(self.folder, dtype)
        text = model.config.text
        self.width = model.config.projection_dim
        self.image_size = model.config.vision.image_size
        self.max_length = text.max_position_embeddings
        self._tokenizer = hf.load_tokenizer(self.folder, text.vocab_size)
        ids: list[Any] = self._tokenizer("")["input_ids"]
        end = ids[-1] if ids else None
        legacy = text.eos_token_id == LEGACY_EOS
        self._end = len(self._tokenizer) - 1 if legacy else text.eos_token_id
        if end != self._end:
            raise UserError(
                f"{self.folder}: its tokenizer ends texts with token {end}, by its config.json "
                f"the end is token {self._end}; use a matching pair"
            )
        return model

    def encode_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "n c"]:
        """Embeddings [n, c] float32. Equal texts are computed once.

        A text of more than `max_length` tokens, start and end included, keeps its head and its end
        token.
        """
        unique, rows = distinct(texts)
        if not unique:
            return np.zeros((0, self.width), np.float32)
        return self.gather("texts", self._text_batches(unique), len(unique))[rows]

    def warm_up(self, most: int) -> None:
        """Compiles what encodes up to `most` texts at once, of any length."""
        tokens = self.batch * self.max_length
        for length, size in shapes(most, self.max_length, tokens, len(self.devices)):
            self("texts", np.full((size, length), self._end, np.int32)).block_until_ready()

    def encode_pictures(self, pixels: np.ndarray) -> Float[np.ndarray, "n c"]:
        """Embeddings [n, c] float32 of uint8 pixels [n, image_size, image_size, 3].

        Raises:
            UserError: pixels of another type or size.
        """
        check_pixels(pixels, self.image_size)
        return self._pictures("pictures", pixels)

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
        for members, length, size in plan(lengths, self.max_length, tokens, len(self.devices)):
            batch = np.full((size, length), self._end, np.int32)
            for row, i in zip(batch, members, strict=False):
                row[: len(ids[i])] = ids[i]
            yield members, batch


def read_preprocessor(folder: Path) -> tuple[dict[str, Any], Path]:
    """A checkpoint's image processor settings, and the file they are from.

    As in transformers, `processor_config.json` is asked first, if it has an `image_processor`.
    """
    path = folder / PROCESSOR
    if path.is_file():
        inner = pretrained.read_json(path).get("image_processor")
        if isinstance(inner, dict):
            return inner, path
        if not (folder / PREPROCESSOR).is_file():
            raise UserError(f"{path}: has no image_processor; add the checkpoint's {PREPROCESSOR}")
    return pretrained.read_json(folder / PREPROCESSOR), folder / PREPROCESSOR


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """Pixel values times `scale` plus `shift`, one of each a channel."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]

    @classmethod
    def of(cls, settings: Mapping[str, Any], where: Path) -> "Normalisation":
        """(pixels · rescale_factor − image_mean) / image_std, as far as the settings ask for it.

        Raises:
            UserError: mean or deviation missing, or no three numbers.
        """
        factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1
        used: dict[str, Any] = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
        if settings.get("do_normalize", True):
            used = {name: settings.get(name) for name in used}
            for name, values in used.items():
                kinds = [type(x) for x in values] if isinstance(values, list) else []
                if len(kinds) != 3 or not {int, float}.issuperset(kinds):
                    told = f"{name} is {values!r}, not three numbers"
                    raise UserError(f"{where}: {told}; download it again")
        mean, std = used.values()
        if type(factor) not in (int, float) or 0 in std:
            raise UserError(f"{where}: rescale_factor or image_std is no scale; download it again")
        return cls(
            tuple(factor / deviation for deviation in std),
            tuple(-middle / deviation for middle, deviation in zip(mean, std, strict=True)),
        )

    def __call__(self, pixels: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Float32 of what the files hold."""
        return pixels.astype(jnp.float32) * jnp.asarray(self.scale) + jnp.asarray(self.shift)
