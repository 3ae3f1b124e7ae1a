"""The feature store, read: one folder of memory-mapped arrays, whole and as expected or refused.

    STORE/store.json      schema version, name, sizes, arrays, groups, splits, made_from, report,
                          and which knowledge base it refers to, at which generation
    STORE/NAME.npy        one file an array of mentions, names and shapes as in `schema`
    STORE/kb/             its own knowledge base, where it refers to no other

`store.writer` writes it.
"""

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline import files, schema
from data_pipeline.arrays import array_file
from data_pipeline.kb.knowledge_base import KnowledgeBase, is_url, open_kb
from data_pipeline.schema import (
    SCHEMA_VERSION,
    SPLITS,
    STORE_JSON,
    STRING_TABLES,
    GraphSpec,
    UserError,
)
from data_pipeline.store import layout

SHOWN_DIFFERENCES = 4

# Tables of which graphs are made: of each vertex, of each mention, with the gold's own slot.
_VERTEX = ("text", "image", "has_text", "has_image")
_SPLIT = ("mention", "candidates", "edges", "gold")
_GOLD_SLOT = ("gold_entity", "gold_edges")
_NAMES = {"entity": "entity_name", "mention": "mention_surface"}  # that systems read characters of
FLAGS = {
    "tokens": "--config.encoders.tokens=True",
    "regions": "--config.encoders.regions=True",
    "evidence": "--config.model.name=relational",
}


class Store:
    """An open store. `Store.open` makes one.

    Attributes:
        name: of the data set.
        sizes: `entities`, `mentions`, `r`, `text_width`, `image_width`, `object_width` and
            `clip_width` (the last three 0 where there are none).
        splits: split -> number of its mentions.
        groups: names of the bits of the `groups` arrays.
        made_from: the settings that it was made with.
        report: what was counted while it was made.
        kb: the knowledge base, as it was when the store was made.
    """

    def __init__(
        self,
        path: Path,
        meta: Mapping[str, Any],
        specs: Mapping[str, array_file.Spec],
        kb: KnowledgeBase,
    ):
        self.path, self.kb = path, kb
        self.specs = dict(specs)
        self.name: str = meta["name"]
        self.groups: list[str] = meta["groups"]
        self.made_from: dict[str, Any] = meta["made_from"]
        self.report: dict[str, Any] = meta["report"]
        self.sizes, self.splits = layout.resolve(self.forms, str(path / STORE_JSON))
        self._arrays: dict[str, np.memmap] = {}
        self._strings: dict[str, list[str]] = {}

    @classmethod
    def open(
        cls, path: str | Path, made_from: Mapping[str, Any] | None = None, kb: str = ""
    ) -> "Store":
        """The store in folder `path`. Reads store.json and each file's length and header.

        Args:
            made_from: the settings that the caller counts on; None takes any.
            kb: where its knowledge base lies, in place of where it did (`data.kb`).

        Raises:
            UserError: there is no store; it was made with other settings (which); a file is
                missing, cut, foreign, or not as store.json says. Damage inside a file is
                `verify`'s to find.
        """
        path = Path(path)
        meta = _read_meta(path)
        if made_from is not None:
            _compare(meta["made_from"], files.plain(dict(made_from)), path)
        specs = {}
        for name, entry in meta["arrays"].items():
            try:
                shape = tuple(int(n) for n in entry["shape"])
                specs[name] = array_file.Spec(shape, entry["dtype"], entry["bytes"], entry["crc32"])
            except (KeyError, TypeError, ValueError, OverflowError):
                raise UserError(
                    f"{path / STORE_JSON}: its entry {name!r} is odd; delete {path} to make it anew"
                ) from None
        store = cls(path, meta, specs, _open_kb(path, meta["kb"], kb))
        for name, spec in store.specs.items():
            array_file.check(path / f"{name}.npy", spec)
        return store

    @property
    def forms(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each array, those of the knowledge base too."""
        return self.kb.tables | {name: spec.form for name, spec in self.specs.items()}

    def fingerprint(self) -> str:
        """SHA-256 over the checksums of what is in it and in its knowledge base, but for what was
        added to it later."""
        added = {name for names in schema.NEEDED_ARRAYS.values() for name in names}
        content: dict[str, Any] = {
            name: [*spec.shape, spec.dtype, spec.bytes, spec.crc32]
            for name, spec in self.specs.items()
            if name not in added
        }
        content["kb"] = self.kb.fingerprint()
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def array(self, name: str) -> Any:
        """The array of this name, read-only; shapes as in `schema`."""
        if name in schema.ENTITY_ARRAYS:
            return self.kb.array(name)
        name = name if name in self.specs else schema.SAME_AS.get(name, name)
        if name not in self.specs:
            raise UserError(f"{self.path}: has no array {name!r}")
        if name not in self._arrays:
            self._arrays[name] = array_file.open_array(self.path / f"{name}.npy")
        return self._arrays[name]

    def lacks(self, needs: Collection[str]) -> list[str]:
        """Which of these needs (`schema.NEEDS`) the store cannot feed."""
        return [
            need for need in needs if not schema.NEEDED_ARRAYS[need].keys() <= self.specs.keys()
        ]

    def strings(self, name: str) -> list[str]:
        """One of `schema.STRING_TABLES`, "entity_id" or "entity_name"; decoded once."""
        if name in ("entity_id", "entity_name"):
            return self.kb.ids if name == "entity_id" else self.kb.names
        if name not in STRING_TABLES:
            raise UserError(f"{self.path}: has no table of strings {name!r}")
        if name not in self._strings:
            content = self.array(f"{name}_bytes").tobytes()
            found: list[str] = []
            for begin, end in itertools.pairwise(self.array(f"{name}_offsets").tolist()):
                try:
                    found.append(content[begin:end].decode())
                except UnicodeDecodeError:
                    where = self.path / f"{name}_bytes.npy"
                    raise UserError(f"{where}: string {len(found)} is damaged") from None
            self._strings[name] = found
        return self._strings[name]

    def characters(self, table: str) -> np.ndarray:
        """A table of names as [n, c] int32: UTF-8 bytes plus 1, 0 where there is none. c is the
        length of the longest name on either side, or CHARACTERS where that is less."""
        encoded = {name: [one.encode() for one in self.strings(name)] for name in _NAMES.values()}
        most = max((len(name) for names in encoded.values() for name in names), default=0)
        width, names = min(max(most, 1), schema.CHARACTERS), encoded[table]
        joined = b"".join(name[:width].ljust(width, b"\0") for name in names)
        found = np.frombuffer(joined, np.uint8).reshape(-1, width)
        lengths = np.array([len(name) for name in names], np.int64)
        return np.where(np.arange(width) < lengths[:, None], found.astype(np.int32) + 1, 0)

    def fitted(self, spec: GraphSpec) -> GraphSpec:
        """The spec of graphs over this store, with `r` what it holds where `r` is 0.

        Raises:
            UserError: the store holds fewer candidates than r, or lacks what is needed, with the
                command that adds it.
        """
        held = self.sizes["r"]
        if not 0 <= spec.r <= held:
            raise UserError(
                f"graph.r is {spec.r}, but {self.path} holds {held} candidates of a mention"
            )
        for need in spec.needs:
            schema.check_known("what a system needs", need, schema.NEEDS)
        if lacking := self.lacks(spec.needs):
            flags = " ".join(FLAGS[need] for need in lacking)
            raise UserError(
                f"{self.path}: holds no {' and no '.join(lacking)} of the mentions, which this "
                "system needs; python -m drin_jax.extract with the same --config and --workdir and "
                f"{flags} adds them"
            )
        return dataclasses.replace(spec, r=spec.r or held)

    def shared_tables(self, needs: Collection[str]) -> dict[str, Any]:
        """What graphs read of entities and mentions, for all splits; all but the characters still
        on disk."""
        names = [f"{side}_{name}" for side in _NAMES for name in _VERTEX]
        for need in needs:
            names += schema.NEEDED_ARRAYS[need] if need != "evidence" else ()
        tables = {name: self.array(name) for name in names}
        if "characters" in needs:
            of_sides = {f"{side}_characters": self.characters(to) for side, to in _NAMES.items()}
            tables |= of_sides
        return tables

    def split_tables(self, split: str, spec: GraphSpec) -> dict[str, Any]:
        """What graphs read of a split alone, still on disk."""
        names = _SPLIT + _GOLD_SLOT * spec.gold_slot
        names += tuple(need for need in spec.needs if need == "evidence")
        return {name: self.array(f"{split}_{name}") for name in names}

    def longest_text(self, needs: Collection[str]) -> int:
        """Tokens of the longest mention text; 0 where tokens are not needed."""
        if "tokens" not in needs:
            return 0
        return int(np.diff(np.asarray(self.array("mention_token_offsets"))).max(initial=1))

    def check_split(self, split: str) -> int:
        """Number of mentions of `split`; UserError if there is none."""
        schema.check_known("split", split, SPLITS)
        if not self.splits[split]:
            raise UserError(f"{self.path}: the {split} split is empty")
        return self.splits[split]

    def verify(self) -> None:
        """Reads every byte and holds it against its checksum.

        Raises:
            UserError: names every damaged file.
        """
        self.kb.verify()
        damaged = []
        total = sum(spec.bytes for spec in self.specs.values())
        with array_file.watch(f"verifying {self.path}", total) as bar:
            for name, spec in self.specs.items():
                path = self.path / f"{name}.npy"
                header = array_file.check(path, spec)
                if array_file.checksum(path, header, bar.advance)[0] != spec.crc32:
                    damaged.append(path.name)
        if damaged:
            raise UserError(
                f"{self.path}: damaged since it was written: {', '.join(damaged)}; delete "
                f"{self.path} and run again to make it anew"
            )


def _read_meta(path: Path) -> dict[str, Any]:
    file = path / STORE_JSON
    if not os.path.isdir(path):  # Path.is_dir raises where the name is too long
        raise UserError(f"{path}: there is no feature store")
    missing = f"is missing, so {path} is no whole feature store"
    meta: dict[str, Any] = files.read_json(file, f"delete {path} to make it anew", missing)
    if (version := meta.get("schema")) != SCHEMA_VERSION:
        raise UserError(
            f"{file}: schema version {version}, but this program reads {SCHEMA_VERSION}; "
            f"delete {path} to make it anew, or give another data.store"
        )
    kinds = {"name": str, "arrays": dict, "groups": list, "made_from": dict, "report": dict}
    kinds["kb"] = dict
    for key, kind in kinds.items():
        if not isinstance(meta.get(key), kind):
            raise UserError(f"{file}: {key!r} is missing or odd; delete {path} to make it anew")
    return meta


def _open_kb(path: Path, reference: Mapping[str, Any], kb: str) -> KnowledgeBase:
    place = reference.get("path")
    kinds = {"path": str, "generation": int, "fingerprint": str}
    if not all(isinstance(reference.get(key), kind) for key, kind in kinds.items()):
        raise UserError(f"{path / STORE_JSON}: 'kb' is odd; delete {path} to make it anew")
    if kb:
        try:
            return open_kb(kb, at=reference)
        except UserError as error:
            raise UserError(
                f"{path}: refers to another knowledge base than data.kb = {kb} ({error}); delete "
                "it to make it anew, or give another data.store"
            ) from None
    try:
        return open_kb(str(place) if is_url(str(place)) else path / str(place), at=reference)
    except UserError as error:
        raise UserError(f"{path}: its knowledge base cannot be read: {error}") from None


def _compare(stored: Any, wanted: Any, path: Path) -> None:
    if stored == wanted:
        return
    there, here = _flat(stored), _flat(wanted)
    changed = [name for name in sorted(there | here) if there.get(name) != here.get(name)]
    shown = "; ".join(
        f"{name} was {there.get(name, 'not set')}, is {here.get(name, 'not set')}"
        for name in changed[:SHOWN_DIFFERENCES]
    )
    more = len(changed) - SHOWN_DIFFERENCES
    raise UserError(
        f"{path}: made with other settings ({shown}{f'; and {more} more' if more > 0 else ''}); "
        "delete it to make it anew, or give another data.store"
    )


def _flat(tree: Any, prefix: str = "") -> dict[str, str]:
    """Leaves by their dotted names, as JSON."""
    if not isinstance(tree, dict) or not tree:
        return {prefix.removesuffix(".") or "made_from": json.dumps(tree, ensure_ascii=False)}
    return {
        key: leaf
        for name, value in tree.items()
        for key, leaf in _flat(value, f"{prefix}{name}.").items()
    }
