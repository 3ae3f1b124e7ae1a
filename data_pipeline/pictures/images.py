"""Pictures from files: whatever a file holds, an upright RGB picture or the reason there is none.

A picture that cannot be shown to an encoder as it is meant gets a status and is masked; nothing
here raises on the content of a file, and no unreadable picture becomes a blank one.
"""

import dataclasses
import functools
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from data_pipeline.schema import MAX_BYTES, MAX_PIXELS, PictureFile, UserError

# What became of a picture; a store's scratch table holds the index. The first five were read.
STATUSES = (
    "read",
    "read: turned upright by its EXIF entry",
    "read: colours converted (CMYK, palette, transparent, grey or 16 bits a channel)",
    "read: first frame of an animation",
    "read: both converted and turned",
    "masked: no such file",
    "masked: not a picture",
    "masked: cut or damaged",
    "masked: too large",
    "masked: too small",
    "masked: one colour all over",
)
READ = 5  # statuses below this one
_CODE = {name: code for code, name in enumerate(STATUSES)}
MISSING, TOO_LARGE = _CODE["masked: no such file"], _CODE["masked: too large"]

# Raster formats; others (EPS, PDF, SVG) need an interpreter, which is not run on foreign files.
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF")
MIN_SIDE = 8
BAND_PIXELS = 1 << 18  # converted at once
# Bytes a pixel: of Pillow's own picture by its mode, 4 in all others, and of decoders that hold a
# whole picture of their own; measured, as the tests do again.
_MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
_DECODER_BYTES = {"WEBP": 14, "AVIF": 12, "JPEG2000": 21, "TIFF": 6}
_ORIENTATION = 0x0112
_BILINEAR, _BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a picture becomes the encoder's input, [height, width, 3] uint8.

    `shortest` scales the shorter side to it and keeps the shape; None scales straight to the size.
    What is then more than the size is cut off around the middle, what is less is padded with 0.
    """

    height: int
    width: int
    shortest: int | None
    resample: int

    def __call__(self, image: Image.Image) -> np.ndarray:
        """The picture as an encoder takes it, [h,w,3] uint8."""
        size = self.scaled(*image.size)
        if size != image.size:
            image = image.resize(size, self.resample)
        # An odd pixel more before the picture than behind it, as processors have it.
        left, top = (size[0] - self.width) // 2, (size[1] - self.height) // 2
        if size != (self.width, self.height):
            image = image.crop((left, top, left + self.width, top + self.height))
        return np.asarray(image)

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after scaling."""
        if self.shortest is None:
            return self.width, self.height
        long = int(self.shortest * max(width, height) / min(width, height))
        return (self.shortest, long) if width <= height else (long, self.shortest)


def plain(size: int) -> Recipe:
    """The paper's: scaled to size x size, whatever the shape; bilinear."""
    return Recipe(size, size, None, _BILINEAR)


def processor(settings: Mapping[str, Any], where: str) -> Recipe:
    """What a checkpoint's own image processor does before it rescales and normalises.

    Args:
        settings: its `preprocessor_config.json`; CLIP's, ConvNeXT's (which ResNet checkpoints use)
            or ViT's kind.
        where: names the file in errors.

    Raises:
        UserError: another kind of processor, or sizes that make no sense.
    """
    kind = str(settings.get("image_processor_type") or settings.get("feature_extractor_type") or "")
    for end in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        kind = kind.removesuffix(end)
    try:
        if kind == "CLIP":
            return _clip(settings)
        if kind == "ConvNext":
            size = settings.get("size", {"shortest_edge": 384})
            shortest = _whole(size["shortest_edge"] if isinstance(size, Mapping) else size)
            share = settings.get("crop_pct", 224 / 256)
            scaled = int(shortest / share) if shortest < 384 else None
            return Recipe(shortest, shortest, scaled, int(settings.get("resample", _BICUBIC)))
        if kind == "ViT":
            height, width = _sides(settings.get("size", 224))
            return Recipe(height, width, None, int(settings.get("resample", _BILINEAR)))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: its sizes make no sense ({error}); download it again") from None
    raise UserError(
        f"{where}: image processor {kind!r} is not one of CLIP, ConvNext, ViT; "
        'use image.preprocess = "paper" or another checkpoint'
    )


def _clip(settings: Mapping[str, Any]) -> Recipe:
    if not settings.get("do_resize", True) or not settings.get("do_center_crop", True):
        raise ValueError("do_resize and do_center_crop must be on")
    size, crop = settings.get("size", 224), settings.get("crop_size", 224)
    resample = int(settings.get("resample", _BICUBIC))
    height, width = _sides(crop)
    if isinstance(size, Mapping) and "shortest_edge" not in size:
        scaled = _sides(size)
        if scaled != (height, width):
            raise ValueError(f"size {size} and crop_size {crop}")
        return Recipe(height, width, None, resample)
    shortest = size["shortest_edge"] if isinstance(size, Mapping) else size
    return Recipe(height, width, _whole(shortest), resample)


def _sides(size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping):
        return _whole(size["height"]), _whole(size["width"])
    return _whole(size), _whole(size)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} is no size in pixels")
    return value


@dataclasses.dataclass(frozen=True)
class Limits:
    """A picture of more pixels, or that takes more memory to decode (`cost`), is not decoded; one
    narrower or lower than `min_side` shows nothing."""

    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES
    min_side: int = MIN_SIDE


def open_picture(
    file: PictureFile | Path, limits: Limits = Limits()
) -> tuple[Image.Image | None, int]:
    """The picture in a file, upright RGB, and its status; None where it is masked."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd files; our status says it
            return _open(io.BytesIO(file) if isinstance(file, bytes) else Path(file), limits)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None, MISSING
    except UnidentifiedImageError:
        return None, _CODE["masked: not a picture"]
    except (Image.DecompressionBombError, MemoryError):
        return None, TOO_LARGE
    except Exception:  # decoders raise whatever the damage makes them meet first
        return None, _CODE["masked: cut or damaged"]


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def cost(file: Image.Image) -> int:
    """Bytes that decoding an opened picture takes at most, by its size, mode and format."""
    own = _MODE_BYTES.get(file.mode, 4)
    second = 5 if file.mode != "RGB" else own  # converted and looked over, or perhaps turned
    progressive = file.format in ("JPEG", "MPO") and "progressive" in file.info
    decoder = 2 * len(file.getbands()) if progressive else _DECODER_BYTES.get(str(file.format), 1)
    return file.width * file.height * (own + max(decoder, second))


def _open(source: Path | io.BytesIO, limits: Limits) -> tuple[Image.Image | None, int]:
    with Image.open(source, formats=_formats()) as file:
        width, height = file.size
        if width * height > limits.max_pixels or cost(file) > limits.max_bytes:
            return None, TOO_LARGE
        if min(width, height) < limits.min_side:
            return None, _CODE["masked: too small"]
        animated = getattr(file, "is_animated", False) and file.format != "MPO"
        file.load()  # raises where the file is cut
        turned = file.getexif().get(_ORIENTATION, 1) != 1
        ImageOps.exif_transpose(file, in_place=True)
        converted = file.mode != "RGB"
        image = _to_rgb(file) if converted else file.copy() if animated else file
    ends: Any = image.getextrema()
    if all(low == high for low, high in ends):
        return None, _CODE["masked: one colour all over"]
    if animated:
        return image, _CODE["read: first frame of an animation"]
    return image, (4 if converted and turned else 2 if converted else 1 if turned else 0)


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB of any mode, a band after the other: transparency on white, all bits of deep greys kept
    to scale."""
    width, height = image.size
    step = max(1, BAND_PIXELS // width)
    areas = [(0, top, width, min(top + step, height)) for top in range(0, height, step)]
    deep = image.mode.startswith(("I", "F"))
    scale = (0.0, 65535.0)
    if deep:
        ends = [_ends(image.crop(area)) for area in areas]
        low, high = np.nanmin([low for low, _ in ends]), np.nanmax([high for _, high in ends])
        if image.mode == "F" or low < 0 or high > 65535:
            scale = float(low), float(high)
    out = Image.new("RGB", image.size)
    for area in areas:
        band = image.crop(area)
        out.paste(_deep(band, *scale) if deep else _flat(band), area)
    return out


def _ends(band: Image.Image) -> tuple[float, float]:
    """The least and the most of a band, NaN where it has no number."""
    values = np.asarray(band, np.float64)
    values = values[~np.isnan(values)]
    return (float(values.min()), float(values.max())) if values.size else (np.nan, np.nan)


def _deep(band: Image.Image, low: float, high: float) -> Image.Image:
    values = np.asarray(band, np.float64)
    if (low, high) != (0.0, 65535.0):
        values = (values - low) / max(high - low, 1e-12) * 65535
    return Image.fromarray(np.nan_to_num(values / 257).round().astype(np.uint8)).convert("RGB")


def _flat(band: Image.Image) -> Image.Image:
    if band.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in band.info:
        band = band.convert("RGBA")
        ground = Image.new("RGBA", band.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, band).convert("RGB")
    return band.convert("RGB")


def crops(image: Image.Image, boxes: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Regions of a picture, each scaled to the recipe's size: [k, height, width, 3] uint8.

    Args:
        boxes: [k, 4] left, top, right, bottom in the picture's pixels, as `clipped` leaves them.
    """
    size = (recipe.width, recipe.height)
    out = np.zeros((len(boxes), recipe.height, recipe.width, 3), np.uint8)
    for row, (left, top, right, bottom) in zip(out, boxes.tolist(), strict=True):
        area = (int(left), int(top), int(np.ceil(right)), int(np.ceil(bottom)))
        row[:] = np.asarray(image.crop(area).resize(size, _BILINEAR))
    return out


def clipped(boxes: np.ndarray, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes cut to a picture of (width, height), and which of them still hold a pixel."""
    limit = np.array([*size, *size], np.float32)
    inside = np.clip(np.asarray(boxes, np.float32).reshape(-1, 4), 0, limit)
    return inside, ((inside[:, 2:] - inside[:, :2]).min(1, initial=np.inf) >= 1)
