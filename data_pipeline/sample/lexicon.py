"""The words of the sample world: what its sentences, descriptions and pictures are about.

Three vocabularies matter. Types and topics are told by text only. Plain words for scenes, shapes
and patterns are the ones that the sample's CLIP was trained on (tests/golden/make_sample).
Heraldic colours and the rare scene words are not: only DRIN's own training on text with pictures
can read them.
"""

import json
from pathlib import Path
from typing import Any


def _frozen(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _frozen(value) for key, value in tree.items()}
    return tuple(map(_frozen, tree)) if isinstance(tree, list) else tree


_WORDS = _frozen(json.loads(Path(__file__).with_name("lexicon.json").read_text("utf-8")))
Words = tuple[str, ...]

# Name = onset + ending: one made-up word, so that several entities can carry it.
ONSETS: Words = _WORDS["onsets"]
ENDINGS: Words = _WORDS["endings"]
# Colours of fields and charges: RGB, and the heraldic word a description uses for them.
COLOURS: dict[str, tuple[int, int, int]] = _WORDS["colours"]
HERALDIC: dict[str, str] = _WORDS["heraldic"]
SHAPES: Words = _WORDS["shapes"]
PATTERNS: dict[str, str] = _WORDS["patterns"]  # pattern -> the adjective for it
# Scene -> (words that the CLIP was trained on, rare words that it never saw).
SCENES: dict[str, tuple[Words, Words]] = _WORDS["scenes"]
GROUNDS: dict[str, tuple[int, int, int]] = _WORDS["grounds"]  # scene -> its sky or ground
TYPES: dict[str, str] = _WORDS["types"]  # type of entity -> words that go with it
TOPICS: dict[str, str] = _WORDS["topics"]
# Openings of sentences; they decide nothing. Test takes them from the ends of these lists, training
# from the starts.
WHEN: Words = _WORDS["when"]
WHO: Words = _WORDS["who"]
SAID: Words = _WORDS["said"]
# Kind of mention -> sentence cores. {name} is the mention; {a}, {b} words of one facet, {c}, {d} of
# another; {shape} and {pattern} say what the entity's own picture looks like. Training never sees
# the last two of each, test never the first two.
CORES: dict[str, Words] = _WORDS["cores"]
DESCRIPTIONS: Words = _WORDS["descriptions"]
PLACES: Words = _WORDS["places"]
RARE_PLACES: Words = _WORDS["rare_places"]
# Words without content: the encoder gives them all one direction and lets none of it through.
FUNCTION_WORDS: Words = _WORDS["function_words"]


def names() -> list[str]:
    """Every name there can be."""
    return [onset + ending for onset in ONSETS for ending in ENDINGS]
