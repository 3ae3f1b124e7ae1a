"""Colours in pixels: which of the sample world's colours each pixel is nearest to."""

import functools

import numpy as np
from scipy import ndimage

from data_pipeline.sample_words import COLOURS

HUES = len(COLOURS)
CLASSES = HUES + 3  # and three greys


def hue_classes(pixels: np.ndarray) -> np.ndarray:
    """[P, 64, 64] uint8: the colour nearest in hue, else bright, middle or dark grey."""
    smooth = pixels
    for axis in (1, 2):
        smooth = ndimage.uniform_filter1d(smooth, 3, axis, output=np.uint8)
    return _colour_table()[0][_table_index(smooth)]


def _table_index(pixels: np.ndarray) -> np.ndarray:
    r, g, b = np.moveaxis(pixels >> 2, -1, 0).astype(np.int32)
    return (r << 12) | (g << 6) | b


@functools.cache
def _colour_table() -> tuple[np.ndarray, np.ndarray]:
    """Of every colour of 6 bits a channel: its class, and how far it belongs to each hue."""
    level = np.arange(64, dtype=np.float32) * 4 + 2
    rgb = np.stack(np.meshgrid(level, level, level, indexing="ij"), -1).reshape(-1, 3)
    hue, saturation = _hue(rgb)
    centres, _ = _hue(np.array(list(COLOURS.values()), np.float32))
    away = np.abs((hue[:, None] - centres + 0.5) % 1 - 0.5)
    value = rgb.max(-1)
    grey = np.where(value > 190, HUES, np.where(value > 60, HUES + 1, HUES + 2))
    classes = np.where((saturation > 0.4) & (value > 60), away.argmin(-1), grey)
    return classes.astype(np.uint8), np.exp(-((away / 0.05) ** 2)).astype(np.float32)


def _hue(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hue in [0, 1) and saturation."""
    high, low = rgb.max(-1), rgb.min(-1)
    spread = np.maximum(high - low, 1e-6)
    r, g, b = np.moveaxis(rgb, -1, 0)
    hue = np.where(
        high == r, (g - b) / spread, np.where(high == g, 2 + (b - r) / spread, 4 + (r - g) / spread)
    )
    return (hue / 6) % 1, spread / np.maximum(high, 1)


def memberships(pixels: np.ndarray) -> np.ndarray:
    """How far pixels [n, 3] belong to each of the colours: [n, HUES] in [0, 1]."""
    return _colour_table()[1][_table_index(pixels)]
