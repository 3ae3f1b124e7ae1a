"""Opening raw files: each failure is one line that names the file; every file read is hashed."""

import codecs
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.output import Progress, say
from data_pipeline.schema import UserError

# What the files of a split are called in public data.
SPLIT_NAMES = {"train": ("train",), "valid": ("valid", "dev", "val"), "test": ("test",)}
LONG_FILE = 300_000_000  # bytes; from here on reading line by line takes more than a few seconds


class MissingFile(UserError):
    """A file or folder of the data set that is not there; `readers.read` adds where to get it."""


def load_json(path: Path, sources: dict[str, str], form: str = "") -> Any:
    """The content of a JSON file; its SHA-256 is added to `sources` under the file's name.

    Args:
        form: "object" or "list", which must not be empty; by default anything.

    Raises:
        MissingFile: there is no such file.
        UserError: another form, not UTF-8, not JSON, or a key twice in one object (JSON would keep
            the last).
    """
    if not path.is_file():
        raise MissingFile(f"{path} is missing")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    sources[path.name] = hashlib.sha256(raw).hexdigest()
    loaded = _parsed(raw.removeprefix(codecs.BOM_UTF8), str(path), "; fetch it again")
    if form and not (loaded and isinstance(loaded, {"object": dict, "list": list}[form])):
        raise UserError(f"{path}: expected a JSON {form} with at least one entry; fetch it again")
    return loaded


def json_lines(
    path: Path, sources: dict[str, str], keys: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ("FILE:LINE", object) of each line that is not blank, one line in memory at a time.

    The file's SHA-256 is added to `sources` after the last line. A long file shows its progress.

    Raises:
        MissingFile: there is no such file.
        UserError: a line is not UTF-8, no JSON object, or one without all `keys`; or the file holds
            no object at all.
    """
    empty = True
    for where, raw in _lines(path, sources):
        if not raw.strip():
            continue
        row = _parsed(raw, where)
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected one JSON object a line, got {_kind(row)}")
        for key in keys:
            if key not in row:
                raise UserError(f'{where}: key "{key}" is missing')
        empty = False
        yield where, row
    if empty:
        raise UserError(f"{path} is empty; it must hold one JSON object a line")


def columns(path: Path, sources: dict[str, str]) -> dict[str, list[str]]:
    """A table key -> values, split by white space; rows of the same key are joined.

    Raises:
        MissingFile: there is no such file.
        UserError: not UTF-8, or a row of one column.
    """
    table: dict[str, list[str]] = {}
    for where, raw in _lines(path, sources):
        cells = _decoded(raw, where).split()
        if len(cells) == 1:
            raise UserError(f"{where}: a key without values; fetch the file again")
        if cells:
            table.setdefault(cells[0], []).extend(cells[1:])
    return table


def separated(path: Path, sources: dict[str, str], separator: str) -> Iterator[tuple[str, str]]:
    """Yields the two halves of each line at the first `separator`, one line in memory at a time.

    A line that is not UTF-8 or has no separator yields ("", ""). The file's SHA-256 is added to
    `sources` after the last line. Shows its progress on stderr where the file is long.
    """
    for _, raw in _lines(path, sources):
        head, _, tail = raw.decode(errors="replace").rstrip("\r\n").partition(separator)
        yield ("", "") if not tail or "\ufffd" in head else (head, tail)


def text(value: Any, what: str, where: str, *, empty: bool = True) -> str:
    """`value`, which must be a string that UTF-8 can hold; `what` and `where` are for the error."""
    if not isinstance(value, str):
        raise UserError(f"{where}: {what} must be a string, got {_kind(value)}")
    if not empty and not value:
        raise UserError(f"{where}: {what} must not be empty")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UserError(f"{where}: {what} holds half a surrogate pair; mend the text") from None
    return value


def find(root: Path, name: str) -> Path | None:
    """The file called `name` in `root`, or else in one of its folders; None if there is none."""
    found = (root / name, *sorted(root.glob(f"*/{name}")))
    return next((path for path in found if path.is_file()), None)


def placed(root: Path, sources: dict[str, str]) -> dict[str, str]:
    """`sources` of files that `find` found, by their paths in `root` instead of their names."""
    paths = {name: find(root, name) or root / name for name in sources}
    return {paths[name].relative_to(root).as_posix(): sha for name, sha in sources.items()}


def split_files(root: Path) -> dict[str, Path]:
    """Split -> its file, called by the split's name alone or after a "_" or "-": RICH_dev.json.

    Raises:
        MissingFile: there is none.
        UserError: two files for one split.
    """
    stems = {path: path.stem.lower() for path in sorted(root.glob("*.json"))}
    found: dict[str, Path] = {}
    for split, names in SPLIT_NAMES.items():
        ends = tuple(f"{mark}{name}" for name in names for mark in "_-")
        paths = [path for path, stem in stems.items() if stem in names or stem.endswith(ends)]
        if len(paths) > 1:
            both = " and ".join(path.name for path in paths[:2])
            raise UserError(f"{root}: {both} both look like the {split} split; keep one of them")
        if paths:
            found[split] = paths[0]
    if not found:
        raise MissingFile(f"{root} holds no train.json, *_train.json, *_dev.json or *_test.json")
    return found


def folder(root: Path, *names: str) -> Path:
    """The first of these folders that `root` has; the first of all if it has none."""
    return next((root / name for name in names if (root / name).is_dir()), root / names[0])


def present(paths: Iterable[str]) -> set[str]:
    """Those of `paths` that are files. Lists each folder once: file by file is slow over NFS.

    What is there but cannot be looked at, a folder or a link that leads nowhere, is told.
    """
    by_folder: dict[str, set[str]] = {}
    for path in paths:
        by_folder.setdefault(os.path.dirname(path), set()).add(path)
    found: set[str] = set()
    odd: dict[str, str] = {}
    for folder, wanted in by_folder.items():
        try:
            with os.scandir(folder or ".") as entries:
                for entry in entries:
                    path = os.path.join(folder, entry.name)
                    if path not in wanted:
                        continue
                    try:
                        if entry.is_file():
                            found.add(path)
                    except OSError as error:
                        odd[path] = str(error.strerror)
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
            continue
        except OSError as error:
            odd[folder] = str(error.strerror)
    if odd:
        named = "; ".join(f"{path} ({why})" for path, why in list(odd.items())[:3])
        say(f"warning: {len(odd)} files or folders cannot be read and count as missing: {named}")
    return found


def _lines(path: Path, sources: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """("FILE:LINE", line) one at a time; the file's SHA-256 is added to `sources` at the end."""
    if not path.is_file():
        raise MissingFile(f"{path} is missing")
    size, digest = path.stat().st_size, hashlib.sha256()
    bar = Progress(f"reading {path.name}", size, unit="B", loud=size > LONG_FILE)
    with path.open("rb") as lines, bar:
        for number, raw in enumerate(lines, 1):
            digest.update(raw)
            bar.advance(len(raw))
            yield f"{path}:{number}", raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
    sources[path.name] = digest.hexdigest()


def _decoded(raw: bytes, where: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 at byte {error.start}; save it as UTF-8") from None


def _parsed(raw: bytes, where: str, mend: str = "") -> Any:
    try:
        return json.loads(_decoded(raw, where), object_pairs_hook=_unique_keys)
    except RecursionError:
        raise UserError(f"{where}: not valid JSON: nested too deeply{mend}") from None
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON: {error}{mend}") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice!r} occurs twice in one object")
    return unique


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")
