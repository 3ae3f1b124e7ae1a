"""The knowledge base from a table of names, and which of an entity's pictures it shows."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.readers import raw_files
from data_pipeline.schema import Entity

NAMES = "qid2ne.json"
ATTRIBUTES = "qid2abs.json"


def named(names: Path, attributes: Path, sources: dict[str, str]) -> list[Entity]:
    """The entities of `qid2ne.json` (QID -> name) in its order, described by `qid2abs.json`."""
    table = raw_files.load_json_object(names, sources)
    return described(table, raw_files.load_json_object(attributes, sources), names, attributes)


def described(
    names: Mapping[str, Any], texts: Mapping[str, Any], named_in: Path, described_in: Path
) -> list[Entity]:
    """The entities of a table id -> name, with their texts, or "" where there is none; the paths
    are for errors."""
    return [
        Entity(
            id=raw_files.text(qid, "the QID", f"{named_in}: {qid!r}", empty=False),
            name=raw_files.text(name, "the name", f"{named_in}: {qid!r}"),
            description=raw_files.text(
                texts.get(qid, ""), "the attribute text", f"{described_in}: {qid!r}"
            ),
        )
        for qid, name in names.items()
    ]


def by_number(entities: Iterable[Entity]) -> list[Entity]:
    """Sorted by id, shorter first: Q9 before Q10. An order that no file and no gold decides."""
    return sorted(entities, key=lambda entity: (len(entity.id), entity.id))


def first_there(pictures: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Entity id -> the first of its pictures whose file is there, or the first named."""
    there = raw_files.present(path for paths in pictures.values() for path in paths)
    return {
        identifier: next((path for path in paths if path in there), paths[0])
        for identifier, paths in pictures.items()
        if paths
    }
