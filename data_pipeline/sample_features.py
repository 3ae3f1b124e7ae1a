"""What the sample's stand-in encoders measure in pixels and words.

`measure` is to the sample what ResNet, a detector and CLIP's image tower are to real data: a fixed
function of pixels. `concepts` stands for CLIP's text tower. Both end in one hand-made concept space
(scenes, shapes, patterns, colours), so their cosine means something, imperfectly: pixels are read
through noise, and words outside the vocabulary are not read at all.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence

import numpy as np

from data_pipeline import sample_objects
from data_pipeline import sample_pictures as pictures
from data_pipeline.sample_colours import CLASSES, HUES, hue_classes
from data_pipeline.sample_objects import nearest
from data_pipeline.sample_words import COLOURS, PATTERNS, SCENES, SHAPES

POOLED_WIDTH = 32
OBJECT_WIDTH = len(SHAPES) + len(COLOURS)
CONCEPTS = (*SCENES, *SHAPES, *PATTERNS, *COLOURS, "a text", "a picture")
_GRID = 4
_COLOUR_WEIGHT = 0.15  # of colours in the concept space: every banner has some
_ALWAYS = 0.2  # of "a text" and "a picture": without a known concept both still have a direction
_EXEMPLARS = 24  # pictures a prototype is averaged over


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """Features of P pictures: `pooled` [P, 32], `objects` [P, 3, 14], `object_score` [P, 3] and
    `clip` [P, 30], all float32."""

    pooled: np.ndarray
    objects: np.ndarray
    object_score: np.ndarray
    clip: np.ndarray


def measure(pixels: np.ndarray) -> Measured:
    """Everything read from pictures [P, 64, 64, 3] uint8, each by itself."""
    parts = [_measure(pixels[i : i + 256]) for i in range(0, len(pixels), 256)]
    return Measured(
        *(np.concatenate([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(Measured))
    )


def concepts(texts: Sequence[str]) -> np.ndarray:
    """The concept vectors [T, c] of texts: which known words occur."""
    known = _known_words()
    out = np.zeros((len(texts), len(CONCEPTS)), np.float32)
    out[:, -2] = _ALWAYS
    for row, text in zip(out, texts, strict=True):
        for word in re.findall(r"[a-z]+", text.lower()):
            if word in known:
                row[known[word]] = 1.0
    return out


@functools.cache
def _known_words() -> dict[str, int]:
    words = {word: CONCEPTS.index(scene) for scene, (plain, _) in SCENES.items() for word in plain}
    words |= {word: CONCEPTS.index(pattern) for pattern, word in PATTERNS.items()}
    return words | {word: CONCEPTS.index(word) for word in (*SHAPES, *COLOURS)}


def _measure(pixels: np.ndarray) -> Measured:
    hue = hue_classes(pixels)
    cells = _cells(pixels, hue)
    shape, colour, score = sample_objects.find(pixels, hue)
    scene = nearest(cells, *_scene_prototypes(), temperature=0.12)
    # The last two prototypes are no scenes but banners and clutter; clutter is the most various.
    scene[:, -1] *= 10
    scene /= scene.sum(1, keepdims=True)
    scene_share, banner = scene[:, : len(SCENES)], scene[:, len(SCENES)]
    pattern = nearest(_waves(pixels), *_pattern_prototypes(), temperature=0.08) * banner[:, None]
    share = score / (score.sum(1, keepdims=True) + 0.05)
    clip = np.concatenate(
        [
            scene_share,
            np.einsum("pk,pks->ps", share, shape),
            pattern,
            _COLOUR_WEIGHT * np.sqrt(np.stack([(hue == k).mean((1, 2)) for k in range(HUES)], 1)),
            np.full((len(pixels), 2), (0, _ALWAYS)),
        ],
        1,
    )
    return Measured(
        pooled=_pooled(cells).astype(np.float32),
        objects=np.concatenate([shape, colour], 2).astype(np.float32),
        object_score=score.astype(np.float32),
        clip=clip.astype(np.float32),
    )


def _cells(pixels: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """Colour histograms (square roots) and contrast of the cells of a 4 x 4 grid: [P, 16 * 10]."""
    p, side, n = len(pixels), pictures.SIZE // _GRID, CLASSES
    cell = np.arange(pictures.SIZE) // side
    index = (np.arange(p)[:, None, None] * _GRID + cell[:, None]) * _GRID + cell
    counts = np.bincount((index * n + hue).ravel(), minlength=p * _GRID**2 * n)
    shares = counts.reshape(p, _GRID**2, n).astype(np.float32) / side**2
    grey = pixels[..., 1].reshape(p, _GRID, side, _GRID, side)
    contrast = 2 * grey.std((2, 4), dtype=np.float32).reshape(p, -1, 1) / 255
    return np.concatenate([np.sqrt(shares), contrast], -1).reshape(p, -1)


def _pooled(cells: np.ndarray) -> np.ndarray:
    """[P, 32]: colours and contrast of the rim, the middle, the top and the bottom, mixed."""
    grid = (cells - _scene_prototypes()[0].mean(0)).reshape(len(cells), _GRID, _GRID, -1)
    middle = grid[:, 1:-1, 1:-1].mean((1, 2))
    top, bottom = grid[:, 0].mean(1), grid[:, -1].mean(1)
    rim = (top + bottom + grid[:, 1:-1, 0].mean(1) + grid[:, 1:-1, -1].mean(1)) / 4
    parts = np.concatenate([rim, middle, (top - bottom) / 2], 1)
    rng = np.random.default_rng(0)
    return parts @ rng.normal(0, 8 * POOLED_WIDTH**-0.5, (parts.shape[1], POOLED_WIDTH))


def _waves(pixels: np.ndarray) -> np.ndarray:
    """Strength [P, 5] of brightness waves: of period 8 across, down and both; of 11, two slants."""
    value = np.log(pixels.max(-1) + np.float32(8))
    value -= value.mean((1, 2), keepdims=True)
    power = np.abs(np.fft.fft2(value.astype(np.float32))) ** 2
    k = pictures.SIZE // 8
    near = (-1, 0, 1)

    def band(y: int, x: int) -> np.ndarray:
        return sum((power[:, y + i, x + j] for i in near for j in near), np.zeros(len(pixels)))

    s = round(pictures.SIZE / 11)
    columns = [
        band(0, k),
        band(k, 0),
        band(k, k) + band(-k, k),
        band(-s, s) + band(s, -s),
        band(s, s),
    ]
    total = power[:, : 3 * k].sum((1, 2))[:, None]
    return np.sqrt(np.stack(columns, 1) / total)


def _examples(kinds: Sequence[tuple[str, ...]], seed: int) -> np.ndarray:
    """Pictures [kinds, examples, 64, 64, 3] to average prototypes over."""
    rng = np.random.default_rng(seed)
    return np.stack([np.stack([pictures.draw(k, rng) for _ in range(_EXEMPLARS)]) for k in kinds])


@functools.cache
def _scene_prototypes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    kinds = [("scene", s) for s in SCENES]
    examples = [*_examples(kinds, 2)]
    looks = [
        (
            "banner",
            *map(
                str, (f, rng.choice(list(PATTERNS)), rng.choice(SHAPES), rng.choice(list(COLOURS)))
            ),
        )
        for f in COLOURS
    ]
    examples.append(_examples(looks, 3).reshape(-1, *examples[0].shape[1:]))
    examples.append(_examples([("neutral",)], 4)[0])
    features = [_cells(e, hue_classes(e)) for e in examples]
    means = np.stack([f.mean(0) for f in features])
    return means, np.full(means.shape[1], 0.25)


@functools.cache
def _pattern_prototypes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    means = []
    for pattern in PATTERNS:
        looks = []
        for f in COLOURS:
            colour = str(rng.choice([c for c in COLOURS if c != f]))
            looks.append(("banner", f, pattern, str(rng.choice(SHAPES)), colour))
        means.append(
            _waves(_examples(looks, 6).reshape(-1, pictures.SIZE, pictures.SIZE, 3)).mean(0)
        )
    return np.stack(means), np.full(len(means[0]), 0.3)
