"""Pictures to vectors: a frozen ResNet over batches."""

from collections.abc import Hashable, Sequence
from functools import cached_property
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from data_pipeline.schema import UserError
from drin_jax.encoders import hf
from drin_jax.encoders.frozen import Frozen, check_arguments
from drin_jax.encoders.pixels import (
    FILES,
    PROCESSOR,
    Normalisation,
    check_pixels,
    picture_batches,
    read_preprocessor,
)
from drin_jax.encoders.resnet import ResNet, load_resnet


class ResNetEncoder:
    """A ResNet checkpoint as a function from pictures to vectors.

    Arguments and errors are those of `ClipEncoder`.
    """

    def __init__(
        self,
        name_or_folder: str | Path,
        *,
        batch: int = 32,
        dtype: str = "float32",
        devices: Sequence[jax.Device] | None = None,
    ):
        check_arguments(dtype, batch)
        self.folder = hf.resolve(name_or_folder, FILES, (PROCESSOR,))
        self.preprocessor, where = read_preprocessor(self.folder)
        self._normalise = Normalisation.of(self.preprocessor, where)
        model = load_resnet(self.folder, dtype)
        if model.config.num_channels != 3:
            raise UserError(
                f"{self.folder / 'config.json'}: num_channels is {model.config.num_channels}; "
                "pass a checkpoint for colour pictures"
            )
        self.width = model.config.hidden_sizes[-1]
        self.batch = batch
        self._frozen = Frozen(model, dtype, self._forward, devices)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the checkpoint's config, weights and preprocessor files."""
        return hf.fingerprint(self.folder)

    def encode(self, pixels: np.ndarray, regions: bool = False) -> dict[str, np.ndarray]:
        """Vectors float32 of uint8 pixels [n, h, w, 3].

        Returns:
            "pooled" [n, v], the mean over the last feature map (MATH [4], [5]), and with `regions`
            the map itself, "regions" [n, g, v], row by row (g = 49 of pictures of 224 x 224).

        Raises:
            UserError: pixels of another type or shape.
        """
        check_pixels(pixels)
        if not len(pixels):
            one = np.zeros((1, *pixels.shape[1:]), np.uint8)
            shapes = self._frozen.shapes(regions, one)
            return {name: np.zeros((0, *x.shape[1:]), x.dtype) for name, x in shapes.items()}
        batches = picture_batches(pixels, self.batch, len(self._frozen.devices))
        return self._frozen.gather(regions, batches, len(pixels))

    def _forward(
        self, model: ResNet, regions: Hashable, pixels: UInt8[Array, "b h w 3"]
    ) -> dict[str, Float[Array, "b ..."]]:
        grid, pooled = model(self._normalise(pixels))
        return {"pooled": pooled, "regions": grid} if regions else {"pooled": pooled}
