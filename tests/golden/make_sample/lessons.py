"""What the sample's CLIP and ResNet are trained on: pictures of the world's renderer, told apart.

Captions name scenes, shapes and patterns in the plain words of the world's texts, anywhere among
words that say nothing of the picture. Heraldic colours and rare scene words are never in them: that
descriptions mean pixels by those is left for DRIN to learn.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from data_pipeline.output import Progress
from data_pipeline.pictures import images
from data_pipeline.sample import drawing, tiny_bert
from data_pipeline.sample import lexicon as words
from tests.golden.make_sample import byte_pairs

CONCEPTS = (*words.SCENES, *words.SHAPES, *words.PATTERNS)
COLOURS = tuple(words.COLOURS)
# Facet of a picture -> its values. "kind" of a picture without a scene: what else it is.
FACETS: dict[str, tuple[str, ...]] = {
    "kind": (*words.SCENES, "banner", "emblem", "neutral"),
    "field": COLOURS,
    "pattern": tuple(words.PATTERNS),
    "shape": words.SHAPES,
    "colour": COLOURS,
}
UNTOLD = -1  # a facet that a picture does not have

_KINDS = ("scene", "banner", "emblem", "neutral")
_SHARES = (0.3, 0.45, 0.15, 0.1)
_SILENT = 0.15  # share of the captions that name nothing
_LONGEST = 38  # words of a caption
_MADE_UP = 0.15  # share of words without meaning that are in no dictionary


@dataclasses.dataclass(frozen=True)
class Lessons:
    """P pictures, the region of the main shape of some, and what there is to know of them.

    Attributes:
        pixels: [P, 64, 64, 3] uint8.
        facets: name of FACETS -> [P] place of the value, or UNTOLD.
        concepts: [P, c] bool, which of CONCEPTS it shows.
        crops: [K, 64, 64, 3] uint8, scaled as the regions of any picture are.
        crop_of: [K] the picture of each.
    """

    pixels: np.ndarray
    facets: dict[str, np.ndarray]
    concepts: np.ndarray
    crops: np.ndarray
    crop_of: np.ndarray


def draw(rng: np.random.Generator, n: int) -> Iterator[tuple[dict[str, str], drawing.Drawing]]:
    """n pictures with the values of their facets."""
    for kind in rng.choice(_KINDS, n, p=_SHARES):
        told = {name: str(rng.choice(FACETS[name])) for name in ("pattern", "shape", "field")}
        told["colour"] = str(rng.choice([c for c in COLOURS if c != told["field"]]))
        told["kind"] = str(kind)
        shows: tuple[str, ...]
        if kind == "scene":
            told = {"kind": str(rng.choice(list(words.SCENES)))}
            shows = ("scene", told["kind"])
        elif kind == "banner":
            shows = (
                "banner",
                *(told[k] for k in ("field", "pattern", "shape", "colour")),
            )
        elif kind == "emblem":
            told = {k: told[k] for k in ("kind", "shape", "colour")}
            shows = ("emblem", told["shape"], told["colour"])
        else:
            told, shows = {"kind": "neutral"}, ("neutral",)
        yield told, drawing.draw(shows, rng)


def collect(drawn: Sequence[tuple[dict[str, str], drawing.Drawing]]) -> Lessons:
    """Pictures with their facets as arrays."""
    recipe = images.plain(drawing.SIZE)
    facets = {name: np.full(len(drawn), UNTOLD) for name in FACETS}
    concepts = np.zeros((len(drawn), len(CONCEPTS)), bool)
    crops, crop_of = [], []
    for i, (told, picture) in enumerate(drawn):
        for name, value in told.items():
            facets[name][i] = FACETS[name].index(value)
            if name in ("kind", "shape", "pattern") and value in CONCEPTS:
                concepts[i, CONCEPTS.index(value)] = True
        if picture.found:  # the main shape is the largest
            box = np.array([picture.found[0].box], np.float32)
            crops.append(images.crops(Image.fromarray(picture.pixels), box, recipe)[0])
            crop_of.append(i)
    pixels = np.stack([picture.pixels for _, picture in drawn])
    return Lessons(pixels, facets, concepts, np.stack(crops), np.array(crop_of))


class Captions:
    """Writes captions: the words for some of a picture's concepts among words that say nothing."""

    def __init__(self) -> None:
        self._words: dict[str, tuple[str, ...]] = {
            scene: plain for scene, (plain, _) in words.SCENES.items()
        }
        self._words |= {shape: (shape,) for shape in words.SHAPES}
        self._words |= {pattern: (word,) for pattern, word in words.PATTERNS.items()}
        telling = {word for some in self._words.values() for word in some} | set(words.COLOURS)
        fillers = tiny_bert.known_words() - telling - byte_pairs.spelled_out()
        self.fillers = np.array([*sorted(fillers), *".,:."])

    def write(self, concepts: np.ndarray, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
        """A caption for each of pictures [n, c] bool, and the concepts [n, c] that it names."""
        texts, named = [], np.zeros_like(concepts)
        for row, shown in zip(named, concepts, strict=True):
            there = np.flatnonzero(shown)
            if len(there) and rng.random() >= _SILENT:
                keep = there if rng.random() < 0.6 else rng.choice(there, 1)
                row[keep] = True
            texts.append(self._text(np.flatnonzero(row), rng))
        return texts, named

    def _text(self, told: np.ndarray, rng: np.random.Generator) -> str:
        telling: list[str] = []
        for concept in told:
            some = rng.permutation(self._words[CONCEPTS[concept]])
            telling += some[: 1 if rng.random() < 0.4 else None].tolist()
        out = rng.choice(self.fillers, rng.integers(2, _LONGEST - len(telling))).tolist()
        made_up = np.flatnonzero(rng.random(len(out)) < _MADE_UP)[:3]
        for i in made_up:
            out[i] = "".join(rng.choice(list("aaeeiioulrstnmcdgpv"), rng.integers(4, 8)))
        for word in telling:
            out.insert(int(rng.integers(len(out) + 1)), word)
        return " ".join(out)


def make(seed: int, n: int) -> Lessons:
    """n pictures drawn from `seed`, with everything there is to know of them."""
    rng = np.random.default_rng([seed, 3])
    drawn = []
    with Progress("drawing pictures to learn from", n, unit="pictures") as bar:
        for picture in draw(rng, n):
            drawn.append(picture)
            bar.advance()
    return collect(drawn)
