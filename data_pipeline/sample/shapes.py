"""Shapes of the sample world: drawn, and boxed as a detector would box them."""

import dataclasses
import functools
import math

import numpy as np
from PIL import ImageDraw

SIZE = 64  # of every picture, in pixels
Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]

_MARGIN = 1.5  # pixels a box reaches beyond what it holds
_LOOSE = 0.8  # standard deviation of its sides, in pixels
_SURE = 16.0  # radius at which a detector would be certain
_WAVERING = 0.03  # standard deviation of its score


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A shape in a picture: left, top, right, bottom (end exclusive) and a score in (0, 1]."""

    box: Box
    score: float


def stamp(
    canvas: ImageDraw.ImageDraw,
    shape: str,
    colour: Colour,
    x: float,
    y: float,
    radius: float,
    turn: float,
    rng: np.random.Generator,
) -> Found:
    """Draws a filled shape around (x, y), turned by `turn` radians, and boxes it.

    Boxes are square: a region is scaled to a square before it is encoded, and a bar that fills its
    box would come out as a square.
    """
    c, s = radius * math.cos(turn), radius * math.sin(turn)
    corners = [(x + c * u - s * v, y + s * u + c * v) for u, v in _outline(shape)]
    canvas.polygon(corners, fill=colour)
    low, high = np.min(corners, axis=0), np.max(corners, axis=0) + 1
    middle, half = (low + high) / 2, (high - low).max() / 2 + _MARGIN
    sides = np.concatenate([middle - half, middle + half]) + rng.normal(0, _LOOSE, 4)
    left, top, right, bottom = np.clip(np.rint(sides), 0, SIZE).astype(int).tolist()
    score = float(np.clip(radius / _SURE + rng.normal(0, _WAVERING), 0.05, 1))
    return Found((left, top, right, bottom), round(score, 3))


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
