"""Draws the sample world's pictures: banners of entities, and what mentions are shown with."""

import functools
import math

import numpy as np
from PIL import Image, ImageDraw

from data_pipeline.sample_words import COLOURS

SIZE = 64
NOISE = 10.0  # standard deviation of the noise of a pixel, in levels of 255
_NOISE_STEP = 6  # noise comes in steps, which keeps the files small

Colour = tuple[int, int, int]


def draw(shows: tuple[str, ...], rng: np.random.Generator) -> np.ndarray:
    """Pixels [64, 64, 3] uint8 of ("banner", field, pattern, shape, colour), ("scene", scene),
    ("emblem", shape, colour) or ("neutral",)."""
    if shows[0] == "banner":
        image = _banner(*shows[1:], rng=rng)
    elif shows[0] == "scene":
        image = _SCENES[shows[1]](rng)
    elif shows[0] == "emblem":
        image = _emblem(*shows[1:], rng=rng)
    else:
        image = _clutter(rng)
    noise = np.rint(rng.normal(0, NOISE / _NOISE_STEP, (SIZE, SIZE, 1))) * _NOISE_STEP
    return np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8)


def _shade(colour: Colour, factor: float) -> Colour:
    r, g, b = (int(min(255, c * factor)) for c in colour)
    return r, g, b


def _jitter(colour: Colour, rng: np.random.Generator, spread: float = 10) -> Colour:
    r, g, b = np.clip(np.array(colour) + rng.normal(0, spread, 3), 0, 255).astype(int).tolist()
    return r, g, b


@functools.cache
def _outline(shape: str) -> tuple[tuple[float, float], ...]:
    """Corners of a shape of about unit area-equivalent radius, around the origin."""
    if shape == "square":
        return ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9))
    if shape == "bar":
        return ((-1.5, -0.5), (1.5, -0.5), (1.5, 0.5), (-1.5, 0.5))
    if shape == "triangle":
        return tuple(
            (1.35 * math.sin(a), -1.35 * math.cos(a)) for a in np.arange(3) * 2 * math.pi / 3
        )
    if shape == "star":
        points = [(1.5 if i % 2 == 0 else 0.6, i * math.pi / 5) for i in range(10)]
        return tuple((r * math.sin(a), -r * math.cos(a)) for r, a in points)
    if shape == "cross":
        w, h = 0.42, 1.3
        corner = ((-w, -h), (w, -h), (w, -w), (h, -w), (h, w), (w, w))
        return corner + tuple((-x, -y) for x, y in corner)
    angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    circle = tuple((math.cos(a), math.sin(a)) for a in angles)
    if shape == "ring":
        outer = (*((1.2 * x, 1.2 * y) for x, y in circle), (1.2, 0.0))
        return outer + tuple((0.7 * x, -0.7 * y) for x, y in (*circle, (1.0, 0.0)))
    if shape == "crescent":
        arc = np.linspace(0.6, 2 * math.pi - 0.6, 20)
        x0, y0 = 1.25 * math.cos(0.6), 1.25 * math.sin(0.6)
        outer = tuple((1.25 * math.cos(a), 1.25 * math.sin(a)) for a in arc)
        centre = 0.75
        inner_radius, start = math.hypot(x0 - centre, y0), math.atan2(y0, x0 - centre)
        inner = np.linspace(2 * math.pi - start, start, 20)
        return outer + tuple(
            (centre + inner_radius * math.cos(a), inner_radius * math.sin(a)) for a in inner
        )
    return circle  # disc


def stamp(
    canvas: ImageDraw.ImageDraw,
    shape: str,
    colour: Colour,
    x: float,
    y: float,
    radius: float,
    turn: float,
) -> None:
    """Draws a filled shape around (x, y), turned by `turn` radians."""
    c, s = radius * math.cos(turn), radius * math.sin(turn)
    canvas.polygon(
        [(x + c * u - s * v, y + s * u + c * v) for u, v in _outline(shape)], fill=colour
    )


def blank(background: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A picture of one colour, and what draws on it."""
    image = Image.new("RGB", (SIZE, SIZE), background)
    return image, ImageDraw.Draw(image)


def _banner(
    field: str, pattern: str, shape: str, colour: str, *, rng: np.random.Generator
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
    elif pattern == "checks":
        for x in cells:
            for y in cells:
                canvas.rectangle((x, y, x + 3, y + 3), fill=dark)
                canvas.rectangle((x + 4, y + 4, x + 7, y + 7), fill=dark)
    elif pattern == "dots":
        for x in cells:
            for y in cells:
                canvas.ellipse((x, y, x + 3, y + 3), fill=dark)
    x, y = 32 + rng.uniform(-3, 3, 2)
    stamp(
        canvas,
        shape,
        _jitter(COLOURS[colour], rng),
        x,
        y,
        rng.uniform(12, 15),
        rng.uniform(-0.15, 0.15),
    )
    return image


def _clutter(rng: np.random.Generator) -> Image.Image:
    """Greyish blocks: a picture that decides nothing."""
    image, canvas = blank(_grey(rng))
    for _ in range(10):
        x, y, w, h = rng.uniform(-8, SIZE), rng.uniform(-8, SIZE), *rng.uniform(8, 32, 2)
        canvas.rectangle((x, y, x + w, y + h), fill=_grey(rng))
    return image


def _grey(rng: np.random.Generator) -> Colour:
    return (
        _jitter((128, 124, 120), rng, 6)
        if rng.random() < 0.3
        else _shade(_jitter((128, 124, 120), rng, 5), float(rng.uniform(0.5, 1.7)))
    )


def _emblem(shape: str, colour: str, *, rng: np.random.Generator) -> Image.Image:
    """A charge, small, turned and off centre, among clutter and up to two smaller shapes."""
    image = _clutter(rng)
    canvas = ImageDraw.Draw(image)
    radius = rng.uniform(8.5, 11.5)
    x, y = rng.uniform(16, SIZE - 16, 2)
    for _ in range(int(rng.integers(3))):
        u, v = rng.uniform(10, SIZE - 10, 2)
        if math.hypot(u - x, v - y) > 1.5 * radius + 10:
            other = COLOURS[str(rng.choice(list(COLOURS)))]
            stamp(
                canvas,
                str(rng.choice(("disc", "square", "triangle"))),
                other,
                u,
                v,
                rng.uniform(4, 5.5),
                rng.uniform(-3, 3),
            )
    stamp(canvas, shape, _jitter(COLOURS[colour], rng, 14), x, y, radius, rng.uniform(-0.4, 0.4))
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
    top, low = np.array(_jitter((110, 60, 120), rng)), np.array(_jitter((245, 140, 60), rng))
    for y in range(SIZE):
        r, g, b = (top + (low - top) * y / SIZE).astype(int).tolist()
        canvas.line((0, y, SIZE, y), fill=(r, g, b))
    canvas.rectangle((0, rng.uniform(50, 58), SIZE, SIZE), fill=_jitter((50, 30, 40), rng))
    return image


_SCENES = {
    "sea": _sea,
    "forest": _forest,
    "desert": _desert,
    "snow": _snow,
    "night": _night,
    "city": _city,
    "meadow": _meadow,
    "sunset": _sunset,
}
