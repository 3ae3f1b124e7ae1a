"""A knowledge base, changed: rows added, replaced or taken out, and segments folded into one.

A change is a segment that grows beside the others and counts from the moment kb.json names it,
which is replaced last. A kill before that leaves the knowledge base as it was, and the same change
asked for again goes on where the killed one was; asked for once more, it changes nothing.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.arrays import array_file
from data_pipeline.arrays.growing import LOCK, GrowingFolder, tidy, write_array
from data_pipeline.files import hold, plain, sync_folder, write_json, write_whole
from data_pipeline.kb import rows
from data_pipeline.kb.knowledge_base import (
    DEAD,
    FORM,
    KB_JSON,
    ROWS,
    KnowledgeBase,
    Segment,
    open_kb,
    read_meta,
    segments_of,
)
from data_pipeline.kb.text_index import drop, text_index
from data_pipeline.schema import ENTITY_ARRAYS, PADDING, Entity, UserError

COPIED = 1 << 14  # rows copied at once
SHOWN = 5  # ids that an error names
NONE = np.zeros(0, np.int64)  # no row is taken out


class SegmentWriter(GrowingFolder):
    """Makes one segment. Its features, if it is to have any, are written by whoever fills it.

    Args:
        added: the rows that it adds.
    """

    FORM = FORM

    def __init__(self, folder: Path, added: pa.Table, made_from: Mapping[str, Any]):
        self._rows, self.digest = added, rows.digest(added)
        # Where pictures lie counts here: a leftover may hold the features of others.
        shown = hashlib.sha256(json.dumps(added["images"].to_pylist()).encode()).hexdigest()
        super().__init__(folder, {"rows": self.digest, "images": shown, **made_from})

    def _refuse_existing(self) -> None:
        """One that was whole when its writer was killed, and that kb.json does not name, goes on
        growing."""
        if self.path.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            os.rename(self.path, self.folder)

    def _check(self, name: str, shape: Sequence[int], dtype: str) -> None:
        symbols, right = ENTITY_ARRAYS.get(name, ("", ""))
        fits = dtype == right or (right == "float32" and dtype == "float16")
        if not fits or len(shape) != len(symbols.split()) or shape[0] != self._rows.num_rows:
            raise UserError(
                f"{self.folder}: {name} is {dtype} {list(shape)}, but must be "
                f"{right or 'no table of a knowledge base'} [{symbols}] of {self._rows.num_rows}"
            )

    def finish(self, dead: np.ndarray) -> Segment:
        """The segment, whole and in its place; kb.json does not know it yet.

        Raises:
            UserError: a table holds a value that is not finite, or the disk is full.
        """
        write_whole(self.folder / ROWS, lambda file: rows.put(file, self._rows))
        names = [DEAD, *(name for name in ENTITY_ARRAYS if self.has(name))]
        dead_file = self._file(DEAD)
        write_array(dead_file, np.sort(dead.astype(np.int64)))
        found = {name: array_file.read_header(self._file(name)) for name in names}
        arrays = {name: array_file.Spec(**spec) for name, spec in self._summed(found).items()}
        path = self.folder / ROWS
        size, crc = path.stat().st_size, array_file.crc32(path, lambda n: None)
        count, number = self._rows.num_rows, int(self.path.name)
        spec = array_file.Spec((count,), "arrow", size, crc)
        self._appear([ROWS, *(f"{name}.npy" for name in names)])
        return Segment(number, count, len(dead), self.digest, spec, arrays)


# Writes the features of these entities; what it counted.
Fill = Callable[[SegmentWriter, Sequence[Entity]], Mapping[str, Any]]


class Change:
    """One change of the knowledge base in folder `path`, the only one while it is open.

    Args:
        fill: writes the features of new rows; None where there are none.

    Raises:
        UserError: another process changes it, or the folder cannot be written.
    """

    def __init__(self, path: str | Path, fill: Fill | None = None):
        self.path, self._fill = Path(path), fill
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = hold(self.path / LOCK)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})") from error

    def __enter__(self) -> "Change":
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    @property
    def begun(self) -> bool:
        """Whether there is a knowledge base already."""
        return (self.path / KB_JSON).exists()

    def build(
        self,
        entities: Sequence[Entity],
        *,
        name: str,
        root: str = "",
        made_from: Mapping[str, Any] | None = None,
    ) -> KnowledgeBase:
        """Generation 1, of these entities.

        Args:
            root: folder that pictures are kept relative to.
            made_from: the settings that the features are made with.

        Raises:
            UserError: there is another one already, or two entities have one id.
        """
        root = os.path.abspath(root) if root else ""
        made_from = plain(dict(made_from or {}))
        if self.begun:
            kb, meta, segments = self._opened()
            same = (meta["name"], meta["made_from"]) == (name, made_from)
            asked = rows.table(entities, meta["root"])
            if same and len(segments) == 1 and kb.latest[0].equals(asked):
                return self._indexed(kb)
            raise UserError(
                f"{self.path}: holds a knowledge base already; add to it with drin-jax kb add, or "
                "delete it"
            )
        if not len(entities):
            raise UserError(f"{self.path}: a knowledge base needs at least one entity")
        _check_ids([entity.id for entity in entities])
        meta = {"form": FORM, "name": name, "root": root, "made_from": made_from, "report": {}}
        return self._commit(meta, [], rows.table(entities, root), NONE, entities)

    def add(self, entities: Sequence[Entity], *, update: bool = False) -> KnowledgeBase:
        """The knowledge base with these entities.

        Args:
            update: an entity that is there already is replaced, instead of refused.

        Raises:
            UserError: an id twice, an id that is there already, or features that do not fit.
        """
        kb, meta, segments = self._opened()
        ids = [entity.id for entity in entities]
        _check_ids(ids)
        there = kb.find(ids)
        added = rows.table(entities, meta["root"])
        if kb.latest[0].equals(added) and (there != PADDING).all():
            return self._indexed(kb)
        if (there != PADDING).any() and not update:
            known = [one for one, row in zip(ids, there, strict=True) if row != PADDING]
            raise UserError(
                f"{self.path}: has {_named(known)} already; nothing was added (--update replaces)"
            )
        if kb.tables and self._fill is None:
            raise UserError(
                f"{self.path}: its entities have features; adding to it takes its encoders"
            )
        return self._commit(meta, segments, added, there[there != PADDING], entities)

    def remove(self, ids: Sequence[str]) -> KnowledgeBase:
        """The knowledge base without these entities. UserError where one is not there."""
        kb, meta, segments = self._opened()
        _check_ids(ids)
        there = kb.find(ids)
        put, taken = kb.latest
        if not put.num_rows and {*ids} == {one.id for one in kb.entities(taken)}:
            return self._indexed(kb)
        if (there == PADDING).any():
            unknown = [one for one, row in zip(ids, there, strict=True) if row == PADDING]
            raise UserError(f"{self.path}: has no {_named(unknown)}; nothing was removed")
        if len(there) == kb.entity_count:
            raise UserError(f"{self.path}: nothing would be left; delete the folder instead")
        return self._commit(meta, segments, rows.table([], ""), there)

    def compact(self) -> KnowledgeBase:
        """One segment of the rows that are alive. Stores and models that were made of the
        knowledge base before have to be made anew."""
        kb, meta, segments = self._opened()
        alive = np.flatnonzero(kb.alive)
        if len(segments) == 1 and len(alive) == len(kb):
            return self._indexed(kb)
        kb.verify()  # what is damaged would be whole from here on

        def copy(segment: SegmentWriter, _: Sequence[Entity]) -> Mapping[str, Any]:
            for name in kb.tables:
                array, kept = kb.array(name), kb.kept_dtype(name)
                table = segment.shards(name, (len(alive), *array.shape[1:]), kept, COPIED)
                for shard in table.missing():
                    some = alive[shard * COPIED : (shard + 1) * COPIED]
                    table.write(shard, np.asarray(array[some]).astype(kept, copy=False))
                table.finish()
            return meta["report"]

        self._fill = copy
        return self._commit(meta, segments, kb.living(), NONE, alone=True)

    def _opened(self) -> tuple[KnowledgeBase, dict[str, Any], list[Segment]]:
        meta = read_meta(self.path)
        return open_kb(self.path), meta, segments_of(self.path, meta)

    def _commit(
        self,
        meta: Mapping[str, Any],
        segments: Sequence[Segment],
        added: pa.Table,
        dead: np.ndarray,
        entities: Sequence[Entity] = (),
        alone: bool = False,
    ) -> KnowledgeBase:
        number = segments[-1].number + 1 if segments else 1
        settings = {"dead": dead.tolist(), "made_from": meta["made_from"]}
        folder = self.path / f"{number:06d}"
        with contextlib.closing(SegmentWriter(folder, added, settings)) as writer:
            report = self._fill(writer, entities) if self._fill and added.num_rows else {}
            segment = writer.finish(dead)
            if segments and added.num_rows:
                _check_tables(folder, segment, segments)
            kept = [segment] if alone else [*segments, segment]
            if not segments:
                meta = {**meta, "report": plain(dict(report))}
            if alone:
                drop(self.path)
            write_json(self.path / KB_JSON, {**meta, "segments": [s.plain() for s in kept]})
        return self._indexed(open_kb(self.path))

    def _indexed(self, kb: KnowledgeBase) -> KnowledgeBase:
        """Found at once, and nothing beside it that this change or a killed one left."""
        sync_folder(self.path)  # before anything that an older kb.json names is deleted
        for segment in kb.segments:
            tidy(self.path / segment.folder)
        folded = {f"{number:06d}" for number in range(1, kb.segments[0].number)}
        for name in folded.intersection(os.listdir(self.path)):
            shutil.rmtree(self.path / name, ignore_errors=True)
        text_index(kb)
        return kb


def _check_tables(path: Path, segment: Segment, others: Sequence[Segment]) -> None:
    """UserError unless a segment has the features that the others have."""

    def told(some: Sequence[Segment]) -> str:
        tables = {n: [*a.shape[1:]] for s in some for n, a in s.arrays.items() if n != DEAD}
        return ", ".join(f"{name} {tables[name]}" for name in sorted(tables)) or "no features"

    if told([segment]) != told(others):
        raise UserError(f"{path}: has {told([segment])}, but the knowledge base has {told(others)}")


def _check_ids(ids: Sequence[str]) -> None:
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = dict.fromkeys(one for one in ids if one in seen or seen.add(one))  # type: ignore[func-returns-value]
        raise UserError(f"{_named([*twice])} is given twice; ids must be unique")


def _named(ids: Sequence[str]) -> str:
    shown = ", ".join(f"{one!r:.60}" for one in ids[:SHOWN])
    return shown + f" and {len(ids) - SHOWN} more" * (len(ids) > SHOWN)
