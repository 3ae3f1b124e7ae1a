"""The authors' preprocessed release on disk: which files there are, and whether they are whole.

Two forms, told apart by their files. Symbols: N mentions of a split, S candidate slots (the last
holds the gold), L tokens, P regions, q objects of a mention picture, k of an entity picture, E
entities, A tokens of an entity, and the widths t (text), v (image), o (object).
"""

import collections
import dataclasses
import hashlib
import itertools
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.arrays.array_file import Header, read_header
from data_pipeline.files import read_json
from data_pipeline.schema import SPLITS, UserError

_ENDS = 1 << 12  # bytes at each end of a file that its fingerprint covers
WIKIDIVERSE, WIKIMEL = "wikidiverse", "wikimel"
QIDS = "qid2idx.json"
FLOAT, INTEGER, NUMBER, STRING = "f", "iu", "biuf", "U"  # NumPy kinds

# name -> (shape in symbols, kinds), once a split as NAME_SPLIT.npy
_MENTION = {
    "mention-text-feature": ("N L t", FLOAT),
    "mention-text-mask": ("N L", NUMBER),
    "start-pos": ("N", INTEGER),
    "end-pos": ("N", INTEGER),
    "mention-image-feature": ("N P v", FLOAT),
    "mention-object-feature": ("N q 1 o", FLOAT),
    "mention-object-score": ("N q", FLOAT),
    "answer": ("N", INTEGER),
    "similarity-miet": ("N S", FLOAT),
    "similarity-eimt": ("N S", FLOAT),
    "mention-text-raw": ("N", STRING),
    "mention-image-path": ("N", STRING),
}
_SLOTS = {
    WIKIDIVERSE: {
        "entity-attr-feature": ("N*S t", FLOAT),
        "entity-image-feature": ("N*S 1 v", FLOAT),
        "entity-object-feature": ("N*S k 1 o", FLOAT),
        "entity-object-score": ("N*S k", FLOAT),
        "entity-attr-raw": ("N*S", STRING),
        "entity-image-path": ("N*S", STRING),
    },
    WIKIMEL: {"entity-name-raw": ("N*S", STRING)},
}
# once
_SHARED = {
    "entity-attr-feature": ("E A t", FLOAT),
    "entity-attr-mask": ("E A", NUMBER),
    "entity-image-feature_all": ("E 1 v", FLOAT),
    "entity-object-feature_all": ("E k 1 o", FLOAT),
    "entity-object-score_all": ("E k", FLOAT),
}
MEND = "copy it again"  # what helps against damage


def _templates(dataset: str) -> dict[str, tuple[tuple[str, ...], str]]:
    """File stem -> (symbols, kinds) of every array of this form."""
    found = dict(_SHARED) if dataset == WIKIMEL else {}
    for split in SPLITS:
        for name, (shape, kinds) in (_MENTION | _SLOTS[dataset]).items():
            found[f"{name}_{split}"] = (shape.replace("N", f"N_{split}"), kinds)
    return {name: (tuple(shape.split()), kinds) for name, (shape, kinds) in found.items()}


TEMPLATES = {dataset: _templates(dataset) for dataset in _SLOTS}


@dataclasses.dataclass(frozen=True)
class Release:
    """A release whose files are all there and agree with each other; `inspect` makes one.

    Attributes:
        dataset: WIKIDIVERSE or WIKIMEL.
        sizes: value of each symbol; N as `N_train`, ….
        qids: id -> row of the entity arrays (WIKIMEL).
    """

    folder: Path
    dataset: str
    headers: Mapping[str, Header]
    sizes: Mapping[str, int]
    qids: Mapping[str, int]

    @property
    def begins(self) -> dict[str, int]:
        """Row of the mention table where each split begins: they follow each other."""
        counts = [self.sizes[f"N_{split}"] for split in SPLITS]
        return dict(zip(SPLITS, itertools.accumulate(counts, initial=0), strict=False))

    def path(self, name: str) -> Path:
        """The file of an array."""
        return self.folder / f"{name}.npy"

    def nbytes(self, *names: str) -> int:
        """Bytes of these arrays together."""
        return sum(self.headers[name].row_bytes * self.headers[name].shape[0] for name in names)

    def rows(self, name: str, begin: int = 0, end: int | None = None) -> np.ndarray:
        """A copy of these rows; floats as float32. UserError if the file has shrunk meanwhile."""
        header = self.headers[name]
        end = header.shape[0] if end is None else end
        shape = (end - begin, *header.shape[1:])
        offset = header.offset + begin * header.row_bytes
        flat = np.fromfile(self.path(name), header.dtype, math.prod(shape), offset=offset)
        if len(flat) != math.prod(shape):
            raise UserError(f"{self.path(name)}: ends before row {end}; {MEND}")
        kind = np.float32 if header.dtype.kind == "f" else header.dtype.newbyteorder("=")
        return flat.reshape(shape).astype(kind, copy=False)

    def mapped(self, name: str) -> np.memmap:
        """The array, memory-mapped: for the few rows of it that are wanted."""
        header = self.headers[name]
        return np.memmap(self.path(name), header.dtype, "r", header.offset, header.shape)


def find(root: str | Path) -> tuple[Path, str]:
    """The folder of a release at `root`, or one level below it, and which form it has.

    Raises:
        UserError: no release there, or both forms.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"release: {root} is not a folder; give the one that holds the arrays")
    found = [(root, form) for form in TEMPLATES if _own_files(root, form)]
    if not found:
        found = [(root / form, form) for form in TEMPLATES if _own_files(root / form, form)]
    if not found:
        raise UserError(
            f"release: {root} holds no array of the authors' release (entity-attr-feature*.npy); "
            "give its wikidiverse or wikimel folder"
        )
    if len(found) > 1:
        raise UserError(f"release: {root} holds both wikidiverse and wikimel; give one of the two")
    return found[0]


def _own_files(folder: Path, form: str) -> bool:
    """Whether there is a file that only this form has."""
    others = {name for other in TEMPLATES if other != form for name in TEMPLATES[other]}
    own = [f"{name}.npy" for name in TEMPLATES[form] if name not in others]
    return any((folder / name).exists() for name in own)


def fingerprint(root: str | Path) -> str:
    """SHA-256 over names, lengths and both ends of the files of a release: tells two apart fast."""
    folder, dataset = find(root)
    digest = hashlib.sha256(dataset.encode())
    names = [f"{name}.npy" for name in TEMPLATES[dataset]]
    for name in [*names, QIDS] if dataset == WIKIMEL else names:
        path = folder / name
        if path.exists():
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                head = file.read(_ENDS)
                file.seek(max(0, size - _ENDS))
                digest.update(f"{name} {size}\n".encode() + head + file.read(_ENDS))
    return digest.hexdigest()


def inspect(root: str | Path) -> tuple[Release, list[str]]:
    """What is there, and everything that is wrong with it, one line each. Reads headers only.

    Raises:
        UserError: as in `find`.
    """
    folder, dataset = find(root)
    templates = TEMPLATES[dataset]
    headers: dict[str, Header] = {}
    problems: list[str] = []
    missing = [f"{name}.npy" for name in templates if not (folder / f"{name}.npy").exists()]
    for name in templates:
        try:
            if f"{name}.npy" not in missing:
                headers[name] = read_header(folder / f"{name}.npy", MEND)
        except UserError as error:
            problems.append(str(error))
    qids: dict[str, int] = {}
    what = f"{len(templates)} arrays"
    if dataset == WIKIMEL:
        what = f"{len(templates) + 1} files"
        try:
            qids = read_json(folder / QIDS, MEND)
            if not all(type(row) is int for row in qids.values()):
                told = "must map QIDs to rows of the entity arrays"
                raise UserError(f"{folder / QIDS}: {told}; {MEND}")
        except FileNotFoundError:
            missing.append(QIDS)
        except UserError as error:
            problems.append(str(error))
    if missing:
        told = f"release: {len(missing)} of the {what} are missing: {', '.join(missing)}; "
        problems.insert(0, f"{told}add them to {folder}")
    votes: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for name, header in headers.items():
        for symbol, size in zip(templates[name][0], header.shape, strict=False):
            votes[symbol][size] += len(header.shape) == len(templates[name][0])
    # The size that most arrays tell, so that the odd one out is named.
    sizes = {symbol: told.most_common(1)[0][0] for symbol, told in votes.items() if +told}
    for name, header in headers.items():
        problems += _misfit(folder / f"{name}.npy", header, *templates[name], sizes)
    return Release(folder, dataset, headers, sizes, qids), problems


def _misfit(
    path: Path, header: Header, symbols: tuple[str, ...], kinds: str, sizes: Mapping[str, int]
) -> list[str]:
    wanted: list[Any] = []
    for symbol in symbols:
        n, times, s = symbol.partition("*")
        if symbol.isdigit():
            wanted.append(int(symbol))
        elif times and n in sizes and s in sizes:
            wanted.append(sizes[n] * sizes[s])
        else:
            wanted.append(sizes.get(symbol, symbol))
    names = ", ".join("N*S" if "*" in s else s.split("_")[0] for s in symbols)
    if list(header.shape) != wanted:
        shape = f"[{', '.join(map(str, wanted))}]"
        return [f"{path}: is {list(header.shape)}, but must be {shape} ({names}); {MEND}"]
    if header.dtype.hasobject:
        return [
            f"{path}: holds Python objects, which are not read; save it as plain strings "
            "(np.save of array.astype(str))"
        ]
    if not all(header.shape):
        return [f"{path}: is empty ({list(header.shape)}); {MEND}"]
    if header.dtype.kind not in kinds:
        known = {FLOAT: "floats", INTEGER: "integers", NUMBER: "numbers", STRING: "strings"}
        return [f"{path}: holds {header.dtype.name}, but must hold {known[kinds]}; {MEND}"]
    return []
