"""Pictures as pixels on their way into an encoder: batches of one size, normalised on the device.

Pixels are uint8 and have the encoder's size already: resizing and cropping is done before.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from data_pipeline.schema import UserError
from drin_jax.encoders import pretrained
from drin_jax.encoders.frozen import Batch

PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"  # newer transformers save it inside this one
FILES = ("config.json", f"{PREPROCESSOR}|{PROCESSOR}")

_FEW = 8  # a call with no more pictures runs as one batch of its own size: the linker's case


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
        mean, std = [0.0] * 3, [1.0] * 3
        if settings.get("do_normalize", True):
            mean, std = (_channels(settings, name, where) for name in ("image_mean", "image_std"))
        if type(factor) not in (int, float) or 0 in std:
            raise UserError(f"{where}: rescale_factor or image_std is no scale; download it again")
        return cls(
            tuple(factor / deviation for deviation in std),
            tuple(-middle / deviation for middle, deviation in zip(mean, std, strict=True)),
        )

    def __call__(self, pixels: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Float32 of what the files hold."""
        return pixels.astype(jnp.float32) * jnp.asarray(self.scale) + jnp.asarray(self.shift)


def _channels(settings: Mapping[str, Any], name: str, where: Path) -> list[float]:
    values = settings.get(name)
    if (
        not isinstance(values, list)
        or len(values) != 3
        or any(type(value) not in (int, float) for value in values)
    ):
        raise UserError(f"{where}: {name} is {values!r}, not three numbers; download it again")
    return values


def check_pixels(pixels: np.ndarray, side: int | None = None) -> None:
    """UserError where `pixels` are no uint8 [n, height, width, 3], or not `side` high and wide."""
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3:
        raise UserError(
            f"pixels are {pixels.dtype} {pixels.shape}; pass uint8 [n, height, width, 3]"
        )
    if side and pixels.shape[1:3] != (side, side):
        raise UserError(
            f"pictures are {pixels.shape[1]} x {pixels.shape[2]} pixels, the encoder takes "
            f"{side} x {side}; make the preprocessor's crop_size fit config.json's image_size"
        )


def picture_batches(pixels: np.ndarray, size: int, devices: int) -> Iterator[Batch]:
    """Batches of `size` pictures a device, the last one filled up with black ones.

    All batches of all calls have one size, so that nothing is compiled twice. Only a call with a
    handful of pictures runs as one smaller batch (1, 2, 4 or 8 a device).
    """
    whole = size * devices
    if 0 < len(pixels) <= _FEW:
        whole = min(whole, -(-(1 << (len(pixels) - 1).bit_length()) // devices) * devices)
    for start in range(0, len(pixels), whole):
        part = pixels[start : start + whole]
        rows = np.zeros((whole, *pixels.shape[1:]), np.uint8)
        rows[: len(part)] = part
        yield np.arange(start, start + len(part)), rows
