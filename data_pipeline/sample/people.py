"""Who lives in the sample world and what is said of them: specifications, before any pixel.

Several entities share each name. In half of the name groups every scene and charge is unique, so a
picture alone can decide; in the other half scenes and charges are shared crosswise with types and
topics, so that text narrows to some, the picture to some, and only both to one.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from data_pipeline.sample import lexicon as words
from data_pipeline.schema import SPLITS

KINDS = ("text", "scene", "emblem", "described", "both")
# Share of each kind among the mentions, in the order of KINDS.
SHARES = (0.28, 0.14, 0.20, 0.18, 0.20)
UNSEEN = 0.15  # share of the entities kept out of training and validation
UNSEEN_TEST = 0.25  # share of the test mentions that are about them
NO_PICTURE = 0.04  # share of the entities without a picture
NO_MENTION_PICTURE = 0.15  # share of the text mentions without one
REUSE = 0.3  # how often a mention takes a picture that another mention of its split already has
# What a mention's picture shows of its entity, for kinds that a picture alone decides.
_LOOKS: dict[str, tuple[str, ...]] = {"scene": ("scene",), "emblem": ("shape", "colour")}


@dataclasses.dataclass(frozen=True, slots=True)
class EntitySpec:
    """An entity and what its picture shows: a patterned field with a charge (shape and colour)."""

    name: str
    type: str
    topic: str
    scene: str
    field: str
    pattern: str
    shape: str
    colour: str
    crossed: bool  # shares its scene and its charge with a namesake
    has_picture: bool
    unseen: bool
    description: str


@dataclasses.dataclass(frozen=True, slots=True)
class MentionSpec:
    """A mention of entity number `gold`; `picture` is what its picture shows, `()` for none.

    Pictures: the split, then ("scene", scene), ("emblem", shape, colour) or ("neutral",), then a
    number; equal tuples are one picture.
    """

    text: str
    start: int
    split: str
    kind: str
    gold: int
    picture: tuple[str | int, ...]


def make_entities(rng: np.random.Generator, names: int) -> list[EntitySpec]:
    """Three to five entities for each of `names` names, in an order that says nothing."""
    chosen = rng.permutation(words.names())[:names]
    entities = [e for i, name in enumerate(chosen) for e in _group(rng, str(name), i % 2 == 1)]
    # Names are kept out of training whole: an entity that only its namesakes' mentions bring up
    # would teach "not this one".
    hidden = {str(name) for name in rng.permutation(chosen)[: round(UNSEEN * names)]}
    entities = [dataclasses.replace(e, unseen=e.name in hidden) for e in entities]
    return [entities[i] for i in rng.permutation(len(entities))]


def _pick(rng: np.random.Generator, values: Sequence[str], n: int) -> list[str]:
    return [str(x) for x in rng.permutation(np.array(values))[:n]]


def _group(rng: np.random.Generator, name: str, crossed: bool) -> list[EntitySpec]:
    size = int(rng.choice([4, 5] if crossed else [3, 4, 5]))
    types, topics = _pick(rng, list(words.TYPES), 3), _pick(rng, list(words.TOPICS), 2)
    scenes, shapes = _pick(rng, list(words.SCENES), 5), _pick(rng, words.SHAPES, 5)
    fields, patterns = (_pick(rng, list(words.COLOURS), 5), _pick(rng, list(words.PATTERNS), 5))
    pair = [0, 1, 1, 0, 2]  # crosses types (0 0 1 1 2) and topics (0 1 0 1 0)
    colours: list[str] = []
    made = []
    for i in range(size):
        others = [c for c in words.COLOURS if c != fields[i]]
        colours.append(str(rng.choice(others)))
        look = pair[i] if crossed else i
        shape, colour = shapes[look], colours[i]
        if crossed and pair.index(look) < i and colours[pair.index(look)] != fields[i]:
            colour = colours[pair.index(look)]
        spec = EntitySpec(
            name=name,
            type=types[(0, 0, 1, 1, 2)[i]],
            topic=topics[(0, 1, 0, 1, 0)[i]],
            scene=scenes[look],
            field=fields[i],
            pattern=patterns[i],
            shape=shape,
            colour=colour,
            crossed=crossed,
            has_picture=bool(rng.random() >= NO_PICTURE),
            unseen=False,
            description="",
        )
        made.append(dataclasses.replace(spec, description=_describe(rng, spec)))
    return made


def _describe(rng: np.random.Generator, spec: EntitySpec) -> str:
    plain, rare = words.SCENES[spec.scene]
    if rng.random() < 0.2:
        scene = str(rng.choice(words.RARE_PLACES)).format(*rare)
    else:
        scene = str(rng.choice(words.PLACES)).format(*_pick(rng, plain, 2))
    related = [
        *_pick(rng, words.TYPES[spec.type].split(), 3),
        *_pick(rng, words.TOPICS[spec.topic].split(), 3),
    ]
    slots = dict(zip(("t1", "t2", "t3", "p1", "p2", "p3"), related, strict=True))
    text = str(rng.choice(words.DESCRIPTIONS)).format(
        type=spec.type,
        scene=scene,
        charge=words.HERALDIC[spec.colour],
        field=words.HERALDIC[spec.field],
        **slots,
    )
    return text[0].upper() + text[1:]


def make_mentions(
    rng: np.random.Generator, entities: list[EntitySpec], sizes: dict[str, int]
) -> list[MentionSpec]:
    """Mentions of every split, no sentence twice, no picture in two splits."""
    told = _Telling(rng, entities)
    can = {
        (kind, unseen): [
            i for i, e in enumerate(entities) if e.unseen == unseen and told.decidable(i, kind)
        ]
        for kind in KINDS
        for unseen in (False, True)
    }
    sentences: set[str] = set()
    mentions = []
    for split in SPLITS:
        pictures: Counter[tuple[str, ...]] = Counter()
        # A small world may have none of some.
        golds = {key: _rounds(rng, values) for key, values in can.items() if values}
        for _ in range(sizes[split]):
            kind = str(rng.choice(KINDS, p=SHARES))
            unseen = split == "test" and rng.random() < UNSEEN_TEST
            if (kind, unseen) not in golds:
                kind, unseen = "text", False
            gold = next(golds[kind, unseen])
            while True:
                text, start, shows = told.compose(gold, kind, split == "test")
                if text not in sentences:
                    break
            sentences.add(text)
            picture: tuple[str | int, ...] = ()
            if shows:
                picture = (split, *shows, _number(rng, pictures, shows))
            mentions.append(MentionSpec(text, start, split, kind, gold, picture))
    return mentions


def _rounds(rng: np.random.Generator, values: list[int]) -> Iterator[int]:
    """Every value equally often, round after shuffled round, so that none is the better guess."""
    while True:
        yield from rng.permutation(values).tolist()


def _number(
    rng: np.random.Generator, pictures: Counter[tuple[str, ...]], shows: tuple[str, ...]
) -> int:
    """Of a picture that shows this: of a new one, or of one that the split already has."""
    made = pictures[shows]
    if made and rng.random() < (0.9 if shows == ("neutral",) else REUSE):
        return int(rng.integers(made))
    pictures[shows] += 1
    return made


class _Telling:
    """What can be said and shown of each entity, so that it is told from its namesakes."""

    def __init__(self, rng: np.random.Generator, entities: list[EntitySpec]):
        self._rng, self._entities = rng, entities
        self._namesakes: dict[str, list[int]] = {}
        for i, entity in enumerate(entities):
            self._namesakes.setdefault(entity.name, []).append(i)

    def _same(self, i: int, *attributes: str) -> set[int]:
        """Namesakes equal to entity i in every one of the attributes."""
        entity = self._entities[i]
        return {
            j
            for j in self._namesakes[entity.name]
            if all(getattr(self._entities[j], a) == getattr(entity, a) for a in attributes)
        }

    def _both_ways(self, i: int) -> list[tuple[str, tuple[str, ...]]]:
        """Pairs (text facet, looks of a picture) that decide for entity i together, not alone."""
        group = self._namesakes[self._entities[i].name]
        with_picture = all(self._entities[j].has_picture for j in group)
        looks = [look for kind, look in _LOOKS.items() if kind == "scene" or with_picture]
        ways = []
        for facet, look in itertools.product(("type", "topic"), looks):
            by_text, by_look = self._same(i, facet), self._same(i, *look)
            if len(by_text) > 1 and len(by_look) > 1 and by_text & by_look == {i}:
                ways.append((facet, look))
        return ways

    def decidable(self, i: int, kind: str) -> bool:
        """Whether a mention of this kind can single entity i out among its namesakes."""
        entity = self._entities[i]
        if kind == "both":
            return bool(self._both_ways(i))
        if kind in _LOOKS and entity.crossed:
            return False
        return entity.has_picture or kind in ("text", "scene")

    def compose(self, gold: int, kind: str, test: bool) -> tuple[str, int, tuple[str, ...]]:
        """A sentence, where the mention starts in it, and what the picture shows."""
        rng, entity = self._rng, self._entities[gold]
        facets, look = ["type", "topic"], _LOOKS.get(kind)
        if kind == "both":
            ways = self._both_ways(gold)
            facet, look = ways[int(rng.integers(len(ways)))]
            facets = [facet]
        shows: tuple[str, ...] = ("neutral",)
        if look is not None:
            told = (getattr(entity, a) for a in look)
            shows = ("scene" if look == ("scene",) else "emblem", *told)
        elif kind == "text" and rng.random() < NO_MENTION_PICTURE:
            shows = ()
        return *_sentence(rng, entity, kind, _pick(rng, facets, 2), test), shows


def _sentence(
    rng: np.random.Generator, entity: EntitySpec, kind: str, facets: list[str], test: bool
) -> tuple[str, int]:
    """An opening, a core about the first facets in this order, and where the name starts."""
    cores = words.CORES["neutral" if kind in _LOOKS else kind]
    core = str(rng.choice(cores[2:] if test else cores[:-2]))
    slots = {"shape": entity.shape, "pattern": words.PATTERNS[entity.pattern]}
    for facet, (x, y) in zip(facets, (("a", "b"), ("c", "d")), strict=False):
        related = words.TYPES[entity.type] if facet == "type" else words.TOPICS[entity.topic]
        slots[x], slots[y] = _pick(rng, related.split(), 2)
    opening = []
    for options in (words.WHEN, words.WHO, words.SAID):
        quarter = len(options) // 4
        opening.append(str(rng.choice(options[quarter:] if test else options[:-quarter])))
    before, after = core.split("{name}")
    before = f"{' '.join(opening)} {before.format(**slots)}"
    return f"{before}{entity.name}{after.format(**slots)}.", len(before)
