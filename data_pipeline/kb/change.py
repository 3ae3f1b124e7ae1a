"""A knowledge base, changed: rows added, replaced or taken out, and segments folded into one.

A change is a segment that grows beside the others and counts from the moment kb.json names it,
which is replaced last. A kill before that leaves the knowledge base as it was, and the same change
asked for again goes on where the killed one was; asked for once more, it changes nothing.
"""

import contextlib
import dataclasses
import functools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.arrays import array_file
from data_pipeline.arrays.growing import LOCK, MADE_FROM, tidy
from data_pipeline.files import hold, plain, sync_folder, write_json, write_whole
from data_pipeline.kb import caches, rows
from data_pipeline.kb.knowledge_base import (
    DEAD,
    FORM,
    KB_JSON,
    ROWS,
    KnowledgeBase,
    Segment,
    driver,
    is_url,
    open_kb,
)
from data_pipeline.kb.segment_writer import SegmentWriter, rows_file
from data_pipeline.kb.text_index import text_index
from data_pipeline.schema import PADDING, Entity, UserError

COPIED = 1 << 14  # rows copied at once
SHOWN = 5  # ids that an error names
NONE = np.zeros(0, np.int64)  # no row is taken out


# Writes the features of these entities; what it counted.
Fill = Callable[[SegmentWriter, Sequence[Entity]], Mapping[str, Any]]


class Change:
    """One change of the knowledge base in folder `path`, the only one while it is open.

    Args:
        fill: writes the features of new rows; None where there are none.

    Raises:
        UserError: another process changes it, or the folder cannot be written.
    """

    path: Path | str

    def __init__(self, path: str | Path, fill: Fill | None = None):
        self.path = self._folder = Path(path)  # where segments grow
        self._fill = fill
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = hold(self._folder / LOCK)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})") from error

    def __enter__(self) -> "Change":
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    @property
    def begun(self) -> bool:
        """Whether there is a knowledge base already."""
        return (self._folder / KB_JSON).exists()

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
            if same and len(segments) == 1 and kb.put_last(asked):
                return self._indexed(kb)
            raise UserError(
                f"{self.path}: holds a knowledge base already; add to it with drin-jax kb add, or "
                "delete it"
            )
        if not len(entities):
            raise UserError(f"{self.path}: a knowledge base needs at least one entity")
        self._check(entities)
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
        self._check(entities)
        ids = [entity.id for entity in entities]
        there = kb.find(ids)
        added = rows.table(entities, meta["root"])
        if self._made_last(kb, added, entities) and (there != PADDING).all():
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
        if not segments[-1].rows and {*ids} == {*kb.taken("id", _taken_last(kb))}:
            return self._indexed(kb)
        if (there == PADDING).any():
            unknown = [one for one, row in zip(ids, there, strict=True) if row == PADDING]
            raise UserError(f"{self.path}: has no {_named(unknown)}; nothing was removed")
        if len(there) == kb.entity_count:
            raise UserError(f"{self.path}: nothing would be left; delete it instead")
        return self._commit(meta, segments, rows.table([], ""), there)

    def compact(self) -> KnowledgeBase:
        """One segment of the rows that are alive. Stores and models that were made of the
        knowledge base before have to be made anew."""
        kb, meta, segments = self._opened()
        alive = np.flatnonzero(kb.alive)
        if len(segments) == 1 and len(alive) == len(kb):
            return self._indexed(kb)
        kb.verify()  # what is damaged would be whole from here on

        def carry(segment: SegmentWriter, _: Sequence[Entity]) -> Mapping[str, Any]:
            for name in kb.tables:
                array, kept = kb.array(name), kb.kept_dtype(name)
                table = segment.shards(name, (len(alive), *array.shape[1:]), kept, COPIED)
                for shard in table.missing():
                    some = alive[shard * COPIED : (shard + 1) * COPIED]
                    table.write(shard, np.asarray(array[some]).astype(kept, copy=False))
                table.finish()
            return meta["report"]

        self._fill = carry
        return self._commit(meta, segments, kb.living(), NONE, alone=True)

    def copy(self, kb: KnowledgeBase) -> KnowledgeBase:
        """The same as `kb`, wherever that is: its generation, its segments, rows that were taken
        out too. What is copied is held against its checksums.

        Raises:
            UserError: there is another one already, or `kb` is damaged.
        """
        if self.begun:
            own = open_kb(self.path)
            if own.reference() == kb.reference():
                return self._indexed(own)
            raise UserError(
                f"{self.path}: holds a knowledge base already; delete it or give another place"
            )
        self._receive(kb)
        return self._indexed(open_kb(self.path))

    def _receive(self, kb: KnowledgeBase) -> None:
        segments = []
        total = sum(spec.bytes for segment in kb.segments for spec in segment.arrays.values())
        with array_file.watch(f"copying {kb.path}", total) as bar:
            for number, segment in enumerate(kb.segments):
                folder = self._folder / segment.folder
                folder.mkdir(exist_ok=True)
                write_json(folder / MADE_FROM, {})  # a kill leaves what a next change may discard
                put = functools.partial(rows.put, rows=kb.segment_rows(number))
                write_whole(folder / ROWS, put)
                for name in segment.arrays:
                    put = functools.partial(_put_array, kb, number, name, bar.advance)
                    write_whole(folder / f"{name}.npy", put)
                sync_folder(folder)
                spec = rows_file(folder, segment.rows)
                segments.append(dataclasses.replace(segment, rows_file=spec).plain())
        write_json(self._folder / KB_JSON, {**kb.meta, "segments": segments})
        sync_folder(self._folder)

    def _made_last(self, kb: KnowledgeBase, asked: pa.Table, entities: Sequence[Entity]) -> bool:
        """Whether the last change put in these rows, and no picture of theirs changed since, were
        it only in who may read it: rows that are made again are as right."""
        if not kb.put_last(asked):
            return False
        pictures = {p for one in entities for p in (one.image, *one.more_images) if p}
        since = _changed(self._folder / kb.segments[-1].folder / ROWS)
        return not kb.tables or all(_changed(picture) <= since for picture in pictures)

    def _check(self, entities: Sequence[Entity]) -> None:
        """UserError where these cannot be rows."""
        _check_ids([entity.id for entity in entities])

    def _opened(self) -> tuple[KnowledgeBase, dict[str, Any], list[Segment]]:
        kb = open_kb(self.path)
        return kb, kb.meta, kb.segments

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
        folder = self._folder / f"{number:06d}"
        with contextlib.closing(SegmentWriter(folder, added, settings)) as writer:
            report = self._fill(writer, entities) if self._fill and added.num_rows else {}
            segment = writer.finish(dead)
            if segments and added.num_rows:
                _check_tables(folder, segment, segments)
            if not segments:
                meta = {**meta, "report": plain(dict(report))}
            self._publish(meta, [segment] if alone else [*segments, segment], folder)
        return self._indexed(open_kb(self.path))

    def _publish(self, meta: Mapping[str, Any], kept: Sequence[Segment], folder: Path) -> None:
        """Lets the last of the segments that are kept, which lies whole in `folder`, be seen."""
        if len(kept) == 1:
            caches.drop(self._folder)
        write_json(self._folder / KB_JSON, {**meta, "segments": [s.plain() for s in kept]})

    def _indexed(self, kb: KnowledgeBase) -> KnowledgeBase:
        """Found at once, and nothing beside it that this change or a killed one left."""
        self._clear(kb)
        text_index(kb)
        return kb

    def _clear(self, kb: KnowledgeBase) -> None:
        sync_folder(self._folder)  # before anything that an older kb.json names is deleted
        for segment in kb.segments:
            tidy(self._folder / segment.folder)
        folded = {f"{number:06d}" for number in range(1, kb.segments[0].number)}
        for name in folded.intersection(os.listdir(self._folder)):
            shutil.rmtree(self._folder / name, ignore_errors=True)


def open_change(place: str | Path, fill: Fill | None = None) -> Change:
    """One change of the knowledge base in a folder, or at a URL. Raises as `Change` does."""
    if is_url(place):
        changed: Change = driver(place, change=True).PostgresChange(str(place), fill)
        return changed
    return Change(place, fill)


def _put_array(
    kb: KnowledgeBase, number: int, name: str, advance: Callable[[int], None], file: Any
) -> None:
    """Writes an array of a segment as a `.npy` file. Damaged where its checksum is another."""
    file.write(array_file.npy_header(*kb.segments[number].arrays[name].form))
    for piece in kb.segment_array(number, name):
        file.write(piece.tobytes())
        advance(piece.nbytes)


def _taken_last(kb: KnowledgeBase) -> np.ndarray:
    """The rows that the last change took out."""
    return np.concatenate([NONE, *kb.segment_array(len(kb.segments) - 1, DEAD)])


def _changed(file: str | Path) -> float:
    """When a file, or what lies in its place, changed last; never where there is none."""
    try:
        return os.stat(file).st_ctime
    except (OSError, ValueError):
        return 0.0


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
