"""What readers of several forms need to make mentions and entities of raw rows.

Raw ids, keys and file orders may tell the gold, so mentions get ids made of their own text, and the
field "entities", which is the gold's name, is read by nobody.
"""

import hashlib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TypeVar

from data_pipeline.readers import raw_files
from data_pipeline.schema import Entity, Mention, UserError

# What a raw sentence with its mentions has.
SENTENCE = frozenset({"sentence", "mentions", "answer"})

LONGEST_ID = 500
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

Item = TypeVar("Item", Mention, Entity)


def unique(placed: Iterable[tuple[str, Item]]) -> list[Item]:
    """The items of (place, item). UserError where two have the same id, with both places."""
    places: dict[str, str] = {}
    items: list[Item] = []
    for where, item in placed:
        if item.id in places:
            kind = type(item).__name__.lower()
            raise UserError(
                f"{where}: {kind} id {item.id!r} is given twice, first in {places[item.id]}; "
                "ids must be unique"
            )
        places[item.id] = where
        items.append(item)
    return items


def rows(
    path: Path, sources: dict[str, str], form: type, fields: Set[str] = SENTENCE
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(place, key, row) of each row of a JSON file.

    Args:
        form: dict, of rows by their keys; or list, where the key is the row's number from 1.
        fields: what every row must have.

    Raises:
        MissingFile: there is no such file.
        UserError: another form, not one row, or a row that is no object with all `fields`.
    """
    loaded = raw_files.load_json(path, sources)
    fits = isinstance(loaded, form)
    if not fits or not loaded:
        named, other = ("object", "a list") if form is dict else ("list", "an object")
        reader = "mimic" if form is dict else "richpedia"
        hint = "" if fits else f" ({other} is the form of reader {reader})"
        raise UserError(
            f"{path}: expected a JSON {named} with at least one row{hint}; fetch it again"
        )
    for key, row in loaded.items() if form is dict else enumerate(loaded, 1):
        where = f"{path}: {key!r}" if form is dict else f"{path}: row {key}"
        lacking = fields - row.keys() if isinstance(row, dict) else fields
        if lacking:
            named = ", ".join(f'"{field}"' for field in sorted(lacking))
            raise UserError(f"{where} must be an object with {named}; fetch the file again")
        yield where, key, row


def pairs(
    row: dict[str, Any], where: str, surfaces: str = "mentions"
) -> tuple[str, list[tuple[str, str | None]]]:
    """The sentence of a row, and each surface form with the id of its gold, None for "nil".

    Args:
        row: has "sentence", "answer" and the key `surfaces`; the last two hold a list, or the bare
            string of the only mention.
    """
    text = raw_files.text(row["sentence"], '"sentence"', where)
    forms, golds = (
        value if isinstance(value, list) else [value] for value in (row[surfaces], row["answer"])
    )
    if len(forms) != len(golds):
        raise UserError(f"{where} has {len(forms)} mentions but {len(golds)} answers")
    found: list[tuple[str, str | None]] = []
    for form, gold in zip(forms, golds, strict=True):
        form = raw_files.text(form, f'each of "{surfaces}"', where, empty=False)
        gold = raw_files.text(gold, 'each of "answer"', where, empty=False)
        found.append((form, None if gold.lower() == "nil" else gold))
    return text, found


def candidates(row: dict[str, Any], key: str, ids: str, where: str) -> tuple[str, ...] | None:
    """The candidates that a row gives under `key`; `ids` says in errors what they are."""
    given = row.get(key)
    if given is None:
        return None
    if not isinstance(given, list):
        raise UserError(f'{where}: "{key}" must be a list of {ids}')
    return tuple(raw_files.text(one, f'each of "{key}"', where, empty=False) for one in given)


def locate(text: str, surface: str) -> tuple[int | None, int | None]:
    """Start and end of the first exact occurrence of `surface` in `text`; None, None if none."""
    start = text.find(surface)
    return (None, None) if start < 0 else (start, start + len(surface))


def located(text: str, surface: str, **fields: Any) -> Mention:
    """The mention at the first exact occurrence of `surface` in `text`, with these other fields."""
    start, end = locate(text, surface)
    return Mention(text=text, name=surface, start=start, end=end, **fields)


def sample_id(text: str, picture: str | None) -> str:
    """A name for everything that has this text and this picture."""
    return hashlib.sha256(f"{text}\0{picture or ''}".encode()).hexdigest()[:16]


def entities(
    root: Path, sources: dict[str, str], known: Mapping[str, str] | None = None
) -> list[Entity]:
    """The entities of `qid2ne.json` (QID -> name) in its order, described by `qid2abs.json` (QID ->
    text), "" where it has none; with names that are `known` already neither file has to be there.
    """
    named_in, described_in = root / "qid2ne.json", root / "qid2abs.json"
    names: dict[str, Any] = dict(known or {})
    if known is None or named_in.is_file():
        names |= raw_files.load_json(named_in, sources, "object")
    texts: dict[str, Any] = {}
    if known is None or described_in.is_file():
        texts = raw_files.load_json(described_in, sources, "object")
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


def entity(row: Mapping[str, Any], root: Path, where: str) -> Entity:
    """The entity of a row of a knowledge base, as `data_pipeline.kb.entity_files` describes it;
    pictures are relative to `root`."""
    popularity = row.get("popularity")
    if popularity is not None and not _is_number(popularity):
        raise UserError(f'{where}: "popularity" must be a number')
    named = row.get("images")
    if named is None:
        named = [] if row.get("image") is None else [row["image"]]
    elif row.get("image") is not None:
        raise UserError(f'{where}: give "image" or "images", not both')
    shown = [picture(one, root, where) for one in _listed(named, '"images"', where)]
    aliases = row.get("aliases")
    aliases = _listed([] if aliases is None else aliases, '"aliases"', where)
    return Entity(
        id=identifier(row["id"], where),
        name=raw_files.text(row["name"], '"name"', where),
        description=raw_files.text(_given(row.get("description")), '"description"', where),
        image=shown[0] if shown else None,
        aliases=tuple(raw_files.text(one, 'each of "aliases"', where) for one in aliases),
        type=raw_files.text(_given(row.get("type")), '"type"', where),
        popularity=None if popularity is None else float(popularity),
        more_images=tuple(filter(None, shown[1:])),
    )


def _is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # an integer that no float can be
        return False


def _given(value: Any) -> Any:
    return "" if value is None else value


def _listed(value: Any, what: str, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{where}: {what} must be a list of strings")
    return value


def identifier(value: Any, where: str) -> str:
    """An id: a string of 1 to LONGEST_ID characters, none of them a control character."""
    given = raw_files.text(value, '"id"', where, empty=False)
    if len(given) > LONGEST_ID or CONTROL.search(given):
        raise UserError(
            f'{where}: "id" {given!r:.99} is longer than {LONGEST_ID} characters or holds a line '
            "break or another control character"
        )
    return given


def picture(value: Any, root: Path, where: str) -> str | None:
    """The path of a picture that a row names relative to `root`; None for none."""
    if value is None:
        return None
    return os.path.normpath(root / raw_files.text(value, '"image"', where, empty=False))


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
