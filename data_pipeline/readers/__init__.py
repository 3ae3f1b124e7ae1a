"""Readers of raw data sets: one file a public format, one function over them all."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from data_pipeline import splits
from data_pipeline.readers import jsonl, kgmel, mimic, raw_files, richpedia, wikidiverse, wikimel
from data_pipeline.schema import MOST_KINDS, SPLITS, Corpus, Entity, Mention, UserError

Item = TypeVar("Item", Mention, Entity)

# A reader returns the corpus as published: nothing dropped, "train" where no split was published,
# pictures as named, whether the files are there or not (so that no split depends on downloads).
READERS: dict[str, Callable[[Path, str], Corpus]] = {
    "jsonl": jsonl.read,
    "wikimel": wikimel.read,
    "sample": jsonl.read,  # the generated world is written in our own form
    "wikidiverse": wikidiverse.read,
    "richpedia": richpedia.read,
    "mimic": mimic.read,
    "kgmel": kgmel.read,
    "candidates": wikidiverse.read_described,
}


def read(
    reader: str,
    root: str | Path,
    *,
    name: str,
    split: str,
    valid_fraction: float,
    source: str = "",
    outside: bool = False,
    kb: Sequence[Entity] | None = None,
    withheld: float = 0.0,
) -> Corpus:
    """Reads the data set under `root`, splits it, and forgets pictures whose file is not there:
    `used` of what `load` returns.

    Args:
        reader: a key of READERS.
        root: folder of the raw files.
        name: what reports call the corpus.
        split, valid_fraction: see `splits.assign`.
        source: a sentence that says what to download from where; told where a file is missing.
        outside: whether pictures may lie outside `root`.
        kb: the entities that mentions are linked to, instead of the data set's own.
        withheld: see `without`.

    Raises:
        UserError: unknown reader or split mode, missing or broken files.
    """
    corpus = load(reader, root, name=name, source=source, outside=outside, kb=kb)
    if withheld:
        corpus = without(corpus, withheld)
    return used(corpus, split=split, valid_fraction=valid_fraction)


def without(corpus: Corpus, share: float) -> Corpus:
    """The corpus with about this share of its golds taken out of the knowledge base, by a hash of
    their ids; what means them is then outside it, in every split.

    Raises:
        UserError: the knowledge base is not the data set's own.
    """
    if not isinstance(corpus.entities, list):
        raise UserError(
            "data.withheld takes golds out of the data set's own entities; out of the knowledge "
            "base of data.kb, `drin-jax kb remove` takes them"
        )
    golds = {mention.gold for mention in corpus.mentions}
    out = {e.id for e in corpus.entities if e.id in golds and splits.uniform(e.id) < share}
    mentions = [
        dataclasses.replace(
            mention, candidates=tuple(c for c in mention.candidates if c not in out)
        )
        if mention.candidates
        else mention
        for mention in corpus.mentions
    ]
    kept = [entity for entity in corpus.entities if entity.id not in out]
    counts = {**corpus.counts, "entities_withheld": len(out)}
    return dataclasses.replace(corpus, entities=kept, mentions=mentions, counts=counts)


def used(corpus: Corpus, *, split: str, valid_fraction: float) -> Corpus:
    """The corpus as it is trained on: split, and without pictures whose file is not there.

    Its counts are of the whole data set, before any mention was dropped, but for "train", "valid"
    and "test" (mentions that are left) and "clean_test" (clean ones of test).
    """
    mentions, split_counts = splits.assign(
        corpus.mentions, mode=split, valid_fraction=valid_fraction
    )
    known = {entity.id for entity in corpus.entities}
    lost = [mention for mention in corpus.mentions if mention.start is None]
    golds = [mention.gold for mention in corpus.mentions]
    counts = {
        **corpus.counts,
        "entities": len(corpus.entities),
        "mentions": len(corpus.mentions),
        "samples": len({mention.sample for mention in corpus.mentions}),
        "entities_without_description": sum(not e.description.strip() for e in corpus.entities),
        "span_not_found": len(lost),
        "span_not_found_test": sum(mention.split == "test" for mention in lost),
        "nil": golds.count(None),
        "gold_outside_kb": sum(gold is not None and gold not in known for gold in golds),
        **split_counts,
    }
    for part in SPLITS:
        counts[part] = sum(mention.split == part for mention in mentions)
    counts["clean_test"] = sum(m.split == "test" and m.clean for m in mentions)
    # Of a knowledge base that is there already, the pictures have been seen.
    own = corpus.entities if isinstance(corpus.entities, list) else []
    declared = {
        kind: [item.image for item in items if item.image is not None]
        for kind, items in (("mention", corpus.mentions), ("entity", own))
    }
    there = raw_files.present({*declared["mention"], *declared["entity"]})
    for kind, images in declared.items():
        counts[f"missing_{kind}_images"] = sum(image not in there for image in images)
    return dataclasses.replace(
        corpus,
        mentions=_present_only(mentions, there),
        entities=_present_only(own, there) or corpus.entities,
        counts=counts,
    )


def refusals(corpus: Corpus) -> Iterator[str]:
    """Why nothing can be trained on a corpus as `used` returns it, in words."""
    known = {entity.id for entity in corpus.entities}
    dropped = sum(n for name, n in corpus.counts.items() if name.startswith("dropped_shared"))
    for split in SPLITS:
        own = [mention for mention in corpus.mentions if mention.split == split]
        if not own:
            why = ""
            if split != "test" and dropped:
                why = (
                    f": {dropped} mentions share their sample, text or picture with a later split, "
                    'and data.split = "disjoint" drops those'
                )
            yield f"the {split} split is empty{why}"
        elif split != "test" and not any(mention.gold in known for mention in own):
            nil = all(mention.gold is None for mention in own)
            why = "all are NIL" if nil else "not one gold is in the knowledge base"
            yield f"nothing can be learnt from the {split} split: {why}"
    kinds = {mention.kind for mention in corpus.mentions if mention.kind}
    if len(kinds) > MOST_KINDS:
        yield f'{len(kinds)} different values of "kind"; at most {MOST_KINDS} can be reported by'


def load(
    reader: str,
    root: str | Path,
    *,
    name: str,
    source: str = "",
    outside: bool = False,
    kb: Sequence[Entity] | None = None,
) -> Corpus:
    """The corpus as published: nothing dropped, its own splits, pictures there or not.

    Raises:
        UserError: unknown reader, missing or broken files, entities without a single name,
            candidates of which not one is in the knowledge base, or a picture that is not below
            `root` where none may lie `outside`.
    """
    try:
        if not str(root):
            raise raw_files.MissingFile("data.root is not set")
        if not os.path.isdir(root):  # Path.is_dir raises where the name is too long
            raise raw_files.MissingFile(f"data.root = {root} is not a folder")
        if reader not in READERS:
            raise UserError(
                f"data.reader = {reader!r} is unknown; known: {', '.join(READERS)} "
                "(other formats can be brought in as JSONL: docs/data.md)"
            )
        corpus = READERS[reader](Path(root), name)
        if kb is None and not corpus.entities:
            raise raw_files.MissingFile(f"{Path(root) / jsonl.ENTITIES} is missing")
    except raw_files.MissingFile as error:
        raise UserError(f"{error}. {source}".rstrip() if source else str(error)) from None
    if kb is not None:
        corpus = dataclasses.replace(corpus, entities=kb)
    if not corpus.name:
        corpus = dataclasses.replace(corpus, name=Path(os.path.abspath(root)).name)
    if not any(entity.name.strip() for entity in corpus.entities):
        raise UserError(
            f"{root}: not one entity has a name; the table of names is not the right one"
        )
    ids = {entity.id for entity in corpus.entities}
    offered = [one for mention in corpus.mentions for one in mention.candidates or ()]
    if offered and ids.isdisjoint(offered):
        raise UserError(
            f"{root}: not one candidate, such as {offered[0]!r}, is in the knowledge base of "
            f"{len(ids)} entities; entities and candidates are not of one data set"
        )
    inside = os.path.join(os.path.abspath(root), "")
    own = corpus.entities if kb is None else []
    items: list[Entity | Mention] = [] if outside else [*own, *corpus.mentions]
    for item in items:  # a data set from elsewhere may not have any file of this machine read
        if item.image is not None and not os.path.abspath(item.image).startswith(inside):
            kind = type(item).__name__.lower()
            raise UserError(
                f"{root}: the picture of {kind} {item.id!r}, {item.image}, lies outside that "
                "folder; move it there, or allow it with data.outside (validate: --outside)"
            )
    return corpus


def _present_only(items: Sequence[Item], there: set[str]) -> list[Item]:
    return [
        item if item.image is None or item.image in there else dataclasses.replace(item, image=None)
        for item in items
    ]
