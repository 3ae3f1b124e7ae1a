"""Draws the sample world's pictures: banners of entities, and what mentions are shown with."""

import dataclasses
import itertools
import math

import numpy as np
from PIL import Image, ImageDraw

from data_pipeline.sample.lexicon import COLOURS
from data_pipeline.sample.shapes import SIZE, Colour, Found, stamp

NOISE = 10.0  # standard deviation of the noise of a pixel, in levels of 255
_NOISE_STEP = 6  # noise comes in steps, which keeps the files small


@dataclasses.dataclass(frozen=True, slots=True)
class Drawing:
    """Pixels [64, 64, 3] uint8, and the shapes that were stamped on them, best score first."""

    pixels: np.ndarray
    found: tuple[Found, ...]


def draw(shows: tuple[str, ...], rng: np.random.Generator) -> Drawing:
    """A picture of ("banner", field, pattern, shape, colour), ("scene", scene),
    ("emblem", shape, colour) or ("neutral",)."""
    found: list[Found] = []
    if shows[0] == "banner":
        image = _banner(*shows[1:], rng=rng, found=found)
    elif shows[0] == "scene":
        image = _SCENES[shows[1]](rng)
    elif shows[0] == "emblem":
        image = _emblem(*shows[1:], rng=rng, found=found)
    else:
        image = _clutter(rng)
    noise = np.rint(rng.normal(0, NOISE / _NOISE_STEP, (SIZE, SIZE, 1))) * _NOISE_STEP
    pixels = np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8)
    return Drawing(pixels, tuple(sorted(found, key=lambda one: -one.score)))


def _shade(colour: Colour, factor: float) -> Colour:
    r, g, b = (int(min(255, c * factor)) for c in colour)
    return r, g, b


def _jitter(colour: Colour, rng: np.random.Generator, spread: float = 10) -> Colour:
    r, g, b = np.clip(np.array(colour) + rng.normal(0, spread, 3), 0, 255).astype(int).tolist()
    return r, g, b


def blank(background: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A picture of one colour, and what draws on it."""
    image = Image.new("RGB", (SIZE, SIZE), background)
    return image, ImageDraw.Draw(image)


def _banner(
    field: str,
    pattern: str,
    shape: str,
    colour: str,
    *,
    rng: np.random.Generator,
    found: list[Found],
) -> Image.Image:
    """A charge on a field whose pattern is a darker tone of the field's own colour."""
    ground = _jitter(COLOURS[field], rng)
    image, canvas = blank(ground)
    dark = _shade(ground, float(rng.uniform(0.66, 0.74)))
    phase = int(rng.integers(8))
    cells = range(-8 + phase, SIZE + 8, 8)
    if pattern == "stripes":
        for x in cells:
            canvas.rectangle((x, 0, x + 3, SIZE), fill=dark)
    elif pattern == "bands":
        for y in cells:
            canvas.rectangle((0, y, SIZE, y + 3), fill=dark)
    elif pattern == "slants":
        for x in range(-SIZE - 12 + phase, SIZE, 11):
            canvas.line((x, 0, x + SIZE, SIZE), fill=dark, width=4)
    elif pattern in ("checks", "dots"):
        for x, y in itertools.product(cells, cells):
            if pattern == "dots":
                canvas.ellipse((x, y, x + 3, y + 3), fill=dark)
            else:
                canvas.rectangle((x, y, x + 3, y + 3), fill=dark)
                canvas.rectangle((x + 4, y + 4, x + 7, y + 7), fill=dark)
    x, y = 32 + rng.uniform(-3, 3, 2)
    tone = _jitter(COLOURS[colour], rng)
    radius, turn = rng.uniform(12, 15), rng.uniform(-0.15, 0.15)
    found.append(stamp(canvas, shape, tone, x, y, radius, turn, rng))
    return image


def _clutter(rng: np.random.Generator) -> Image.Image:
    """Greyish blocks: a picture that decides nothing."""
    image, canvas = blank(_grey(rng))
    for _ in range(10):
        x, y, w, h = (rng.uniform(-8, SIZE), rng.uniform(-8, SIZE), *rng.uniform(8, 32, 2))
        canvas.rectangle((x, y, x + w, y + h), fill=_grey(rng))
    return image


def _grey(rng: np.random.Generator) -> Colour:
    if rng.random() < 0.3:
        return _jitter((128, 124, 120), rng, 6)
    return _shade(_jitter((128, 124, 120), rng, 5), float(rng.uniform(0.5, 1.7)))


def _emblem(
    shape: str, colour: str, *, rng: np.random.Generator, found: list[Found]
) -> Image.Image:
    """A charge, small, turned and off centre, among clutter and up to two smaller shapes."""
    image = _clutter(rng)
    canvas = ImageDraw.Draw(image)
    radius = rng.uniform(8.5, 11.5)
    x, y = rng.uniform(16, SIZE - 16, 2)
    for _ in range(int(rng.integers(3))):
        u, v = rng.uniform(10, SIZE - 10, 2)
        if math.hypot(u - x, v - y) > 1.5 * radius + 10:
            other = COLOURS[str(rng.choice(list(COLOURS)))]
            what, small = (str(rng.choice(("disc", "square", "triangle"))), rng.uniform(4, 5.5))
            found.append(stamp(canvas, what, other, u, v, small, rng.uniform(-3, 3), rng))
    tone, turn = _jitter(COLOURS[colour], rng, 14), rng.uniform(-0.4, 0.4)
    found.append(stamp(canvas, shape, tone, x, y, radius, turn, rng))
    return image


def _sea(rng: np.random.Generator) -> Image.Image:
    image, canvas = blank(_jitter((170, 205, 235), rng))
    horizon = rng.uniform(18, 34)
    canvas.rectangle((0, horizon, SIZE, SIZE), fill=_jitter((30, 80, 150), rng))
    for y in np.arange(horizon + 4, SIZE, 6):
        x = rng.uniform(-10, 10)
        canvas.line((x, y, SIZE - 10 + x, y), fill=(90, 140, 200), width=1)
    return image


def _forest(rng: np.random.Generator) -> Image.Image:
    image, canvas = blank(_jitter((40, 90, 45), rng))
    for x in rng.uniform(0, SIZE, 7):
        canvas.rectangle((x, 10, x + 3, SIZE), fill=_jitter((85, 60, 35), rng))
        canvas.ellipse((x - 7, rng.uniform(-6, 6), x + 10, 26), fill=_jitter((30, 110, 50), rng))
    return image


def _desert(rng: np.random.Generator) -> Image.Image:
    image, canvas = blank(_jitter((190, 210, 225), rng))
    for base in (30, 40, 52):
        x = rng.uniform(-20, 50)
        canvas.ellipse((x - 60, base - 6, x + 70, 140), fill=_jitter((222, 184, 115), rng, 12))
    return image


def _snow(rng: np.random.Generator) -> Image.Image:
    image, canvas = blank(_jitter((176, 186, 200), rng))
    canvas.rectangle((0, rng.uniform(20, 36), SIZE, SIZE), fill=_jitter((240, 244, 250), rng, 4))
    for x in rng.uniform(0, SIZE, 3):
        canvas.polygon([(x, 14), (x - 9, 40), (x + 9, 40)], fill=_jitter((225, 232, 240), rng, 6))
    return image


def _night(rng: np.random.Generator) -> Image.Image:
    image, canvas = blank(_jitter((14, 18, 44), rng, 5))
    for x, y in rng.uniform(0, SIZE, (14, 2)):
        canvas.point((x, y), fill=(250, 250, 230))
    canvas.rectangle((0, rng.uniform(46, 58), SIZE, SIZE), fill=(8, 10, 14))
    return image


def _city(rng: np.random.Generator) -> Image.Image:
    image, canvas = blank(_jitter((165, 180, 195), rng))
    for x in range(-4, SIZE, 9):
        top = rng.uniform(8, 38)
        canvas.rectangle((x, top, x + 8, SIZE), fill=_jitter((95, 90, 95), rng, 14))
    return image


def _meadow(rng: np.random.Generator) -> Image.Image:
    image, canvas = blank(_jitter((165, 210, 240), rng))
    canvas.rectangle((0, rng.uniform(16, 28), SIZE, SIZE), fill=_jitter((120, 195, 70), rng))
    for x, y in np.stack([rng.uniform(0, SIZE, 16), rng.uniform(30, SIZE, 16)], 1):
        canvas.ellipse((x, y, x + 2, y + 2), fill=_jitter((240, 200, 220), rng, 20))
    return image


def _sunset(rng: np.random.Generator) -> Image.Image:
    image, canvas = blank((0, 0, 0))
    top, low = (np.array(_jitter((110, 60, 120), rng)), np.array(_jitter((245, 140, 60), rng)))
    for y in range(SIZE):
        r, g, b = (top + (low - top) * y / SIZE).astype(int).tolist()
        canvas.line((0, y, SIZE, y), fill=(r, g, b))
    canvas.rectangle((0, rng.uniform(50, 58), SIZE, SIZE), fill=_jitter((50, 30, 40), rng))
    return image


_SCENES = {
    **{"sea": _sea, "forest": _forest, "desert": _desert, "snow": _snow},
    **{"night": _night, "city": _city, "meadow": _meadow, "sunset": _sunset},
}
