"""What readers of several forms need to make a mention of a raw row.

Raw ids, keys and file orders may tell the gold, so mentions get ids made of their own text, and the
field "entities", which is the gold's name, is read by nobody.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

from data_pipeline.readers import raw_files
from data_pipeline.schema import Mention, UserError


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
    return _digest(text, picture or "")


class NeutralIds:
    """Ids from text and surface form alone, numbered where two mentions have both in common."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def next(self, text: str, surface: str) -> str:
        key = _digest(text, surface)
        number = self._seen[key] = self._seen.get(key, 0) + 1
        return key if number == 1 else f"{key}-{number}"


def rows(loaded: Any, path: Any, fields: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """("FILE: row N", row) of each row, from 1, of a list of objects that have all `fields`.

    Raises:
        UserError: not a list, an empty one, or a row that is not such an object.
    """
    if not isinstance(loaded, list) or not loaded:
        raise UserError(f"{path}: expected a JSON list with at least one row; fetch it again")
    for number, row in enumerate(loaded, 1):
        where = f"{path}: row {number}"
        lacking = fields - row.keys() if isinstance(row, dict) else fields
        if lacking:
            named = ", ".join(f'"{field}"' for field in sorted(lacking))
            raise UserError(f"{where} must be an object with {named}; fetch the file again")
        yield where, row


def pairs(
    row: Any, where: str, surfaces: str = "mentions"
) -> tuple[str, list[tuple[str, str | None]]]:
    """The sentence of a row, and each surface form with the id of its gold, None for "nil".

    Args:
        row: has "sentence", "answer" and the key `surfaces`; the last two hold a list, or the bare
            string of the only mention.
    """
    if not isinstance(row, dict) or not {"sentence", surfaces, "answer"} <= row.keys():
        raise UserError(f'{where} must be an object with "sentence", "{surfaces}" and "answer"')
    text = raw_files.text(row["sentence"], '"sentence"', where)
    forms, golds = _listed(row[surfaces]), _listed(row["answer"])
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


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
