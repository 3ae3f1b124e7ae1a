"""What is odd about a data set, as numbers with examples: nothing here reads or writes a file but
the pictures' headers.

An error makes the data unusable, a warning is something to know before one believes a score.
"""

import dataclasses
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from PIL import Image

from data_pipeline import readers
from data_pipeline.readers import raw_files
from data_pipeline.schema import SPLITS, Corpus, Entity, Mention

EXAMPLES = 3  # of each finding
CROWD = 20  # samples of different text that share a picture: more is a stand-in, not a photograph


@dataclasses.dataclass(frozen=True)
class Finding:
    """`level` is "error" or "warning"; `count` things are meant (None: it is no number of things),
    `examples` names a few."""

    level: str
    name: str
    count: int | None = None
    examples: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Result:
    """Counts of each split by a readable name, counts of the whole, and the findings."""

    splits: dict[str, dict[str, int]]
    counts: dict[str, int]
    findings: list[Finding]


def examine(corpus: Corpus, used: Corpus, images: int = 200) -> Result:
    """Everything that is counted and checked.

    Args:
        corpus: as published, pictures as named (`readers.load`).
        used: the same as it is trained on (`readers.used`).
        images: so many of the pictures that are there, evenly chosen, have their headers read.
    """
    mentions, entities = corpus.mentions, corpus.entities
    pictures = {m.image for m in mentions if m.image is not None}
    pictures |= {e.image for e in entities if e.image is not None}
    there = raw_files.present(pictures)
    known = {entity.id for entity in entities}
    parts = {split: [m for m in mentions if m.split == split] for split in SPLITS}
    splits = {split: _of_split(own, known, there) for split, own in parts.items() if own}
    counts = {
        "entities": len(entities),
        "entities without a description": sum(not e.description.strip() for e in entities),
        "entities with a picture named": sum(e.image is not None for e in entities),
        "entities with a picture there": sum(e.image in there for e in entities),
        "entities that are a gold": len({m.gold for m in mentions} & known),
    }
    counts |= {name.replace("_", " "): count for name, count in corpus.counts.items()}
    findings = [*_errors(mentions, known)]
    findings += [Finding("error", why) for why in readers.refusals(used) if mentions]
    findings += _about_mentions(mentions, known, pictures - there)
    findings += _about_entities(entities, pictures - there)
    findings += _overlaps(mentions)
    findings += _about_pictures(corpus, there, images)
    return Result(splits, counts, [finding for finding in findings if finding.count != 0])


def _of_split(mentions: Sequence[Mention], known: set[str], there: set[str]) -> dict[str, int]:
    return {
        "mentions": len(mentions),
        "samples": len({m.sample for m in mentions}),
        "NIL": sum(m.gold is None for m in mentions),
        "gold outside the knowledge base": sum(_outside(m, known) for m in mentions),
        "not found in the text": sum(m.start is None for m in mentions),
        "several places in the text": sum(m.text.count(m.name) > 1 for m in mentions),
        "with a picture named": sum(m.image is not None for m in mentions),
        "with a picture there": sum(m.image in there for m in mentions),
        "with candidates": sum(bool(m.candidates) for m in mentions),
        "gold among its candidates": sum(_offered(m) for m in mentions),
    }


def _errors(mentions: Sequence[Mention], known: set[str]) -> Iterable[Finding]:
    linked = [m for m in mentions if m.gold is not None]
    listed = [m for m in linked if m.candidates]
    if not mentions:
        yield Finding("error", "no mention at all")
    wrong = len(linked) if not any(m.gold in known for m in linked) else 0
    yield Finding("error", "no gold is in the knowledge base", wrong, _ids(linked))
    wrong = len(listed) if not any(_offered(m) for m in listed) else 0
    yield Finding("error", "no gold is among the given candidates", wrong, _ids(listed))


def _about_mentions(
    mentions: Sequence[Mention], known: set[str], gone: set[str]
) -> Iterable[Finding]:
    for split in SPLITS:
        if not any(m.split == split for m in mentions):
            yield Finding("warning", f"no {split} split is published")
    tests: dict[str, Callable[[Mention], bool]] = {
        "gold outside the knowledge base": lambda m: _outside(m, known),
        "gold not among the given candidates": lambda m: (
            m.gold is not None and bool(m.candidates) and not _offered(m)
        ),
        "candidates outside the knowledge base": lambda m: not known.issuperset(m.candidates or ()),
        "the same candidate twice": lambda m: bool(_repeated(m.candidates or (), str)),
        "mention not found in its text": lambda m: m.start is None,
        "offsets that show something else": lambda m: (
            m.start is not None and m.text[m.start : m.end].casefold() != m.name.casefold()
        ),
        "empty text": lambda m: not m.text.strip(),
        "mention picture named but not there": lambda m: m.image in gone,
    }
    yield from _those(mentions, tests)
    same = _repeated(mentions, lambda m: (m.split, m.text, m.image, m.name, m.start, m.end))
    yield Finding("warning", "the same mention twice in one split", len(same), _ids(same))


def _about_entities(entities: Sequence[Entity], gone: set[str]) -> Iterable[Finding]:
    tests: dict[str, Callable[[Entity], bool]] = {
        "entity without a name": lambda e: not e.name.strip(),
        "entity without a description": lambda e: not e.description.strip(),
        "entity picture named but not there": lambda e: e.image in gone,
    }
    yield from _those(entities, tests)
    same = _repeated(entities, lambda e: (e.name, e.description))
    yield Finding("warning", "entities of the same name and description", len(same), _ids(same))


def _those(items: Sequence[Any], tests: dict[str, Callable[[Any], bool]]) -> Iterable[Finding]:
    for name, test in tests.items():
        found = [item for item in items if test(item)]
        yield Finding("warning", name, len(found), _ids(found))


def _overlaps(mentions: Sequence[Mention]) -> Iterable[Finding]:
    """Mentions of valid and test that share a sample, a text or a picture with an earlier split."""
    kinds: dict[str, Callable[[Mention], str | None]] = {
        "sample": lambda m: m.sample,
        "text": lambda m: m.text.strip() or None,
        "picture": lambda m: m.image,
    }
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        for kind, trace in kinds.items():
            seen = {trace(m) for m in mentions if m.split == first} - {None}
            found = [m for m in mentions if m.split == second and trace(m) in seen]
            name = f"{second} mention that shares its {kind} with {first}"
            yield Finding("warning", name, len(found), _ids(found))


def _about_pictures(corpus: Corpus, there: set[str], images: int) -> Iterable[Finding]:
    for kind, items in (("mention", corpus.mentions), ("entity", corpus.entities)):
        named = {item.image for item in items} - {None}
        nowhere = len(named) if there.isdisjoint(named) else 0
        yield Finding("warning", f"not one {kind} picture is there", nowhere)
    pairs = {(m.image, m.text) for m in corpus.mentions if m.image is not None}
    texts = Counter(image for image, _ in pairs)
    crowds = [str(image) for image, n in texts.most_common() if n > CROWD]
    name = f"picture of more than {CROWD} different texts"
    yield Finding("warning", name, len(crowds), tuple(crowds[:EXAMPLES]))
    chosen = sorted(there)[:: max(1, -(-len(there) // images))] if images else []
    bad = [path for path in chosen if not _readable(path)]
    name = f"unreadable picture (of {len(chosen)} tried)"
    yield Finding("warning", name, len(bad), tuple(bad[:EXAMPLES]))


def _readable(path: str) -> bool:
    """Whether the file's header is that of a picture; its pixels are not decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on large pictures
            with Image.open(path) as picture:
                return min(picture.size) > 0
    except Exception:  # decoders raise whatever the damage makes them meet first
        return False


def _outside(mention: Mention, known: set[str]) -> bool:
    return mention.gold is not None and mention.gold not in known


def _offered(mention: Mention) -> bool:
    return mention.gold is not None and mention.gold in (mention.candidates or ())


def _repeated(items: Sequence[Any], key: Callable[[Any], Hashable]) -> list[Any]:
    """Those whose key an earlier one has."""
    seen: set[Hashable] = set()
    return [item for item in items if key(item) in seen or seen.add(key(item))]  # type: ignore[func-returns-value]


def _ids(items: Sequence[Mention] | Sequence[Entity]) -> tuple[str, ...]:
    return tuple(item.id for item in items[:EXAMPLES])
