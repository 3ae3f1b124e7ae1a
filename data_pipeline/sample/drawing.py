"""Draws the sample world's pictures: banners of entities, what mentions are shown with, and the
boxes that a detector would find."""

import dataclasses
import functools
import itertools
import math

import numpy as np
from PIL import Image, ImageDraw

from data_pipeline.sample.lexicon import COLOURS, GROUNDS

SIZE = 64  # of every picture, in pixels
NOISE = 10.0  # standard deviation of the noise of a pixel, in levels of 255
_NOISE_STEP = 6  # noise comes in steps, which keeps the files small
_MARGIN = 1.5  # pixels a box reaches beyond what it holds
_LOOSE = 0.8  # standard deviation of its sides, in pixels
_SURE = 16.0  # radius at which a detector would be certain
_WAVERING = 0.03  # standard deviation of its score

Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A shape in a picture: left, top, right, bottom (end exclusive) and a score in (0, 1]."""

    box: tuple[int, int, int, int]
    score: float


@dataclasses.dataclass(frozen=True, slots=True)
class Drawing:
    """Pixels [64, 64, 3] uint8, and the shapes that were stamped on them, best score first."""

    pixels: np.ndarray
    found: tuple[Found, ...]


def draw(shows: tuple[str, ...], rng: np.random.Generator) -> Drawing:
    """A picture of ("banner", field, pattern, shape, colour), ("scene", scene),
    ("emblem", shape, colour) or ("neutral",)."""
    kind, *what = shows
    picture = _Picture(rng)
    if kind == "banner":
        picture.banner(*what)
    elif kind == "scene":
        picture.scene(*what)
    else:
        picture.clutter()
        if kind == "emblem":
            picture.emblem(*what)
    noise = np.rint(rng.normal(0, NOISE / _NOISE_STEP, (SIZE, SIZE, 1))) * _NOISE_STEP
    pixels = np.clip(np.asarray(picture.image, np.float32) + noise, 0, 255).astype(np.uint8)
    return Drawing(pixels, tuple(sorted(picture.found, key=lambda one: -one.score)))


def _shade(colour: Colour, factor: float) -> Colour:
    r, g, b = (int(min(255, c * factor)) for c in colour)
    return r, g, b


class _Picture:
    """A picture at work, and the shapes found on it so far."""

    def __init__(self, rng: np.random.Generator):
        self.rng, self.found = rng, list[Found]()
        self.image = Image.new("RGB", (SIZE, SIZE))
        self.canvas = ImageDraw.Draw(self.image)

    def tone(self, colour: Colour, spread: float = 10) -> Colour:
        """One near the colour."""
        near = np.array(colour) + self.rng.normal(0, spread, 3)
        r, g, b = np.clip(near, 0, 255).astype(int).tolist()
        return r, g, b

    def grey(self) -> Colour:
        """A greyish one, dark to light."""
        if self.rng.random() < 0.3:
            return self.tone((128, 124, 120), 6)
        return _shade(self.tone((128, 124, 120), 5), float(self.rng.uniform(0.5, 1.7)))

    def fill(self, colour: Colour, top: float = 0) -> None:
        """All of it from `top` down in one colour."""
        self.canvas.rectangle((0, top, SIZE, SIZE), fill=colour)

    def banner(self, field: str, pattern: str, shape: str, colour: str) -> None:
        """A charge on a field whose pattern is a darker tone of the field's own colour."""
        rng, canvas = self.rng, self.canvas
        ground = self.tone(COLOURS[field])
        self.fill(ground)
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
        tone = self.tone(COLOURS[colour])
        self.stamp(shape, tone, x, y, rng.uniform(12, 15), rng.uniform(-0.15, 0.15))

    def clutter(self) -> None:
        """Greyish blocks: they decide nothing."""
        self.fill(self.grey())
        for _ in range(10):
            x, y, w, h = *self.rng.uniform(-8, SIZE, 2), *self.rng.uniform(8, 32, 2)
            self.canvas.rectangle((x, y, x + w, y + h), fill=self.grey())

    def emblem(self, shape: str, colour: str) -> None:
        """A charge, small, turned and off centre, and up to two smaller shapes."""
        rng = self.rng
        radius = rng.uniform(8.5, 11.5)
        x, y = rng.uniform(16, SIZE - 16, 2)
        for _ in range(int(rng.integers(3))):
            u, v = rng.uniform(10, SIZE - 10, 2)
            if math.hypot(u - x, v - y) > 1.5 * radius + 10:
                other = COLOURS[str(rng.choice(list(COLOURS)))]
                what, small = str(rng.choice(("disc", "square", "triangle"))), rng.uniform(4, 5.5)
                self.stamp(what, other, u, v, small, rng.uniform(-3, 3))
        tone = self.tone(COLOURS[colour], 14)
        self.stamp(shape, tone, x, y, radius, rng.uniform(-0.4, 0.4))

    def scene(self, scene: str) -> None:
        """One of `lexicon.SCENES`."""
        rng, canvas, tone = self.rng, self.canvas, self.tone
        ground = tone(GROUNDS[scene], 5 if scene == "night" else 10)
        self.fill(ground)
        match scene:
            case "sea":
                horizon = rng.uniform(18, 34)
                self.fill(tone((30, 80, 150)), horizon)
                for y in np.arange(horizon + 4, SIZE, 6):
                    x = rng.uniform(-10, 10)
                    canvas.line((x, y, SIZE - 10 + x, y), fill=(90, 140, 200), width=1)
            case "forest":
                for x in rng.uniform(0, SIZE, 7):
                    canvas.rectangle((x, 10, x + 3, SIZE), fill=tone((85, 60, 35)))
                    crown = (x - 7, rng.uniform(-6, 6), x + 10, 26)
                    canvas.ellipse(crown, fill=tone((30, 110, 50)))
            case "desert":
                for base in (30, 40, 52):
                    x = rng.uniform(-20, 50)
                    dune = (x - 60, base - 6, x + 70, 140)
                    canvas.ellipse(dune, fill=tone((222, 184, 115), 12))
            case "snow":
                top = rng.uniform(20, 36)
                self.fill(tone((240, 244, 250), 4), top)
                for x in rng.uniform(0, SIZE, 3):
                    peak = [(x, 14), (x - 9, 40), (x + 9, 40)]
                    canvas.polygon(peak, fill=tone((225, 232, 240), 6))
            case "night":
                for x, y in rng.uniform(0, SIZE, (14, 2)):
                    canvas.point((x, y), fill=(250, 250, 230))
                self.fill((8, 10, 14), rng.uniform(46, 58))
            case "city":
                for x in range(-4, SIZE, 9):
                    top = rng.uniform(8, 38)
                    canvas.rectangle((x, top, x + 8, SIZE), fill=tone((95, 90, 95), 14))
            case "meadow":
                top = rng.uniform(16, 28)
                self.fill(tone((120, 195, 70)), top)
                for x, y in zip(rng.uniform(0, SIZE, 16), rng.uniform(30, SIZE, 16), strict=True):
                    canvas.ellipse((x, y, x + 2, y + 2), fill=tone((240, 200, 220), 20))
            case "sunset":
                high, low = np.array(ground), np.array(tone((245, 140, 60)))
                for y in range(SIZE):
                    r, g, b = (high + (low - high) * y / SIZE).astype(int).tolist()
                    canvas.line((0, y, SIZE, y), fill=(r, g, b))
                top = rng.uniform(50, 58)
                self.fill(tone((50, 30, 40)), top)

    def stamp(
        self, shape: str, colour: Colour, x: float, y: float, radius: float, turn: float
    ) -> None:
        """Draws a filled shape around (x, y), turned by `turn` radians, and boxes it.

        Boxes are square: a region is scaled to a square before it is encoded, and a bar that fills
        its box would come out as a square.
        """
        c, s = radius * math.cos(turn), radius * math.sin(turn)
        corners = [(x + c * u - s * v, y + s * u + c * v) for u, v in _outline(shape)]
        self.canvas.polygon(corners, fill=colour)
        low, high = np.min(corners, axis=0), np.max(corners, axis=0) + 1
        middle, half = (low + high) / 2, (high - low).max() / 2 + _MARGIN
        sides = np.concatenate([middle - half, middle + half]) + self.rng.normal(0, _LOOSE, 4)
        left, top, right, bottom = np.clip(np.rint(sides), 0, SIZE).astype(int).tolist()
        score = float(np.clip(radius / _SURE + self.rng.normal(0, _WAVERING), 0.05, 1))
        self.found.append(Found((left, top, right, bottom), round(score, 3)))


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

    def around(radius: float, angles: np.ndarray, x: float = 0) -> tuple[tuple[float, float], ...]:
        return tuple((x + radius * math.cos(a), radius * math.sin(a)) for a in angles)

    angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    if shape == "ring":
        hole = tuple((x, -y) for x, y in around(0.7, angles))
        return (*around(1.2, angles), (1.2, 0.0), *hole, (0.7, 0.0))
    if shape == "crescent":
        arc = np.linspace(0.6, 2 * math.pi - 0.6, 20)
        x0, y0, centre = 1.25 * math.cos(0.6), 1.25 * math.sin(0.6), 0.75
        radius, start = math.hypot(x0 - centre, y0), math.atan2(y0, x0 - centre)
        inner = np.linspace(2 * math.pi - start, start, 20)
        return around(1.25, arc) + around(radius, inner, centre)
    return around(1, angles)  # disc
