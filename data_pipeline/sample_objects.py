"""Objects in the sample's pictures: coloured regions, what they look like and how sure one is."""

import functools

import numpy as np
from scipy import ndimage

from data_pipeline.sample_colours import HUES, memberships
from data_pipeline.sample_pictures import SIZE, blank, stamp
from data_pipeline.sample_words import COLOURS, SHAPES

OBJECTS = 3  # kept of a picture, the largest first
_SMALLEST = 30  # pixels


def find(pixels: np.ndarray, hue: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The largest coloured regions that do not touch the border.

    Returns what their outlines look like [P, k, shapes], their colours [P, k, colours] and their
    scores [P, k], the square root of their share of the picture (0: no such object).
    """
    p = len(pixels)
    labels = np.zeros(hue.shape, np.int32)
    plane = np.zeros((3, 3, 3), bool)
    plane[1] = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    count = 0
    for k in range(HUES):
        found, n = ndimage.label(hue == k, plane)
        labels += np.where(found > 0, found + count, 0)
        count += n
    area = np.bincount(labels.ravel(), minlength=count + 1)
    border = np.zeros(count + 1, bool)
    for edge in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        border[edge.ravel()] = True
    keep = (area >= _SMALLEST) & ~border
    keep[0] = False
    ids = np.flatnonzero(keep)
    new = np.zeros(count + 1, np.int32)
    new[ids] = np.arange(1, len(ids) + 1)
    labels = new[labels]
    where = np.nonzero(labels)
    which = labels[where] - 1
    owner = np.zeros(len(ids), np.int64)
    owner[which] = where[0]
    area = area[ids].astype(np.float64)
    outline = _outlines(which, where[1], where[2], area)
    shape = nearest(outline, *_shape_prototypes(), temperature=0.5)
    member = memberships(pixels[where])
    colour = np.stack([np.bincount(which, m, len(ids)) for m in member.T], 1) / area[:, None]
    # The largest objects of each picture, in its k slots.
    order = np.lexsort((-area, owner))
    rank = np.arange(len(ids)) - np.searchsorted(owner[order], owner[order])
    order, rank = order[rank < OBJECTS], rank[rank < OBJECTS]
    slots = owner[order], rank
    shapes = np.zeros((p, OBJECTS, len(SHAPES)))
    colours = np.zeros((p, OBJECTS, len(COLOURS)))
    scores = np.zeros((p, OBJECTS))
    shapes[slots], colours[slots] = shape[order], colour[order]
    scores[slots] = np.sqrt(area[order] / SIZE**2)
    return shapes, colours, scores


def _outlines(which: np.ndarray, y: np.ndarray, x: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Measures of regions that do not change with place, size or turn: [regions, 10].

    How the area lies over the distance from the centre, in radii of a disc of equal area, and how
    strongly it repeats 2 to 6 times around it.
    """
    n = len(area)
    cy, cx = np.bincount(which, y, n) / area, np.bincount(which, x, n) / area
    offset = ((x - cx[which]) + 1j * (y - cy[which])) / np.sqrt(area / np.pi)[which]
    radius = np.abs(offset)
    angle = offset / np.maximum(radius, 1e-6)
    columns = [
        np.bincount(which, (radius >= a) & (radius < b), n) / area
        for a, b in ((0, 0.45), (0.45, 0.9), (0.9, 1.15), (1.15, 1.6), (1.6, 9))
    ]
    for m in range(2, 7):
        wave = radius**2 * angle**m
        columns.append(
            np.hypot(np.bincount(which, wave.real, n), np.bincount(which, wave.imag, n)) / area
        )
    return np.stack(columns, 1)


def nearest(
    x: np.ndarray, prototypes: np.ndarray, scale: np.ndarray, *, temperature: float
) -> np.ndarray:
    """Soft assignment [n, prototypes] of measurements by their scaled squared distance."""
    distance = np.square((x[:, None] - prototypes) / scale).mean(-1) / temperature
    weights = np.exp(distance.min(1, keepdims=True) - distance)
    return weights / weights.sum(1, keepdims=True)


@functools.cache
def _shape_prototypes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    means, spread = [], []
    for shape in SHAPES:
        rows = []
        for radius in np.linspace(8, 15, 24):
            image, canvas = blank((0, 0, 0))
            stamp(canvas, shape, (255, 255, 255), 32, 32, float(radius), rng.uniform(-0.4, 0.4))
            y, x = np.nonzero(np.asarray(image)[..., 0])
            rows.append(_outlines(np.zeros(len(y), int), y, x, np.array([len(y)]))[0])
        means.append(np.mean(rows, 0))
        spread.append(np.std(rows, 0))
    return np.stack(means), np.mean(spread, 0) + 0.03
