"""The knowledge base of a linker: looked at, searched, and added to while it links."""

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.files import write_whole
from data_pipeline.kb.change import Change, open_change
from data_pipeline.kb.knowledge_base import KnowledgeBase, is_url
from data_pipeline.output import say
from data_pipeline.readers.raw_rows import entity as entity_of
from data_pipeline.retrieval.union import by_union
from data_pipeline.schema import PADDING, Entity, Mention, UserError
from data_pipeline.store.unkept import SPLIT
from drin_jax.extract.encoding import Encoders
from drin_jax.extract.preparation import filled_by
from drin_jax.extract.stages import Stages
from drin_jax.extract.stored import config_of
from drin_jax.linking.query import count_of, file_of, several
from drin_jax.linking.result import LinkedEntity
from drin_jax.linking.state import State

QUIET = 500  # entities that are added without a word
PICTURES = "pictures"  # folder of pictures that came as bytes
Given = Entity | Mapping[str, Any]


class EntityBase:
    """What a linker links to. Changes are on disk when a call returns, and count from then on.

    Args:
        state: what the linker links with now.
        moved: has it link with a later state of the knowledge base.
        encoders: the model's.
        borrowed: the knowledge base is not the user's, so that changes are made to a copy that goes
            with the process.
    """

    def __init__(
        self,
        state: Callable[[], State],
        moved: Callable[[KnowledgeBase], None],
        encoders: Encoders,
        borrowed: bool = False,
    ):
        self._state, self._moved, self._encoders = state, moved, encoders
        self._borrowed = borrowed
        self._changing = threading.Lock()
        self._copy: tempfile.TemporaryDirectory[str] | None = None

    @property
    def _kb(self) -> KnowledgeBase:
        return self._state().kb

    @property
    def is_copy(self) -> bool:
        """Whether what is changed goes with this process."""
        return self._copy is not None

    @property
    def version(self) -> str:
        """Which state of which knowledge base this is."""
        return self._state().version

    def __len__(self) -> int:
        return self._kb.entity_count

    def info(self) -> dict[str, Any]:
        """Name, path, entities, generation and version."""
        kb = self._kb
        return {
            "name": kb.name,
            "path": str(kb.path),
            "entities": kb.entity_count,
            "generation": kb.generation,
            "version": self.version,
        }

    def get(self, id: str) -> Entity | None:
        """The entity of this id, None where there is none."""
        kb = self._kb
        if not isinstance(id, str):
            raise UserError(f"an id is a text, not {id!r:.40}")
        row = int(kb.find([id])[0])
        return None if row == PADDING else kb[row]

    def search(self, name: str, text: str = "", k: int = 10) -> list[LinkedEntity]:
        """The entities that a name can mean, best first, by names and words alone; `probability` is
        0, as nobody knows it. `text`: a sentence that the name stands in."""
        kb, finder = self._kb, self._state().finder
        if not isinstance(name, str) or not isinstance(text, str):
            raise UserError("what is searched by is no text")
        mention = Mention("", text or name, name, None, None, SPLIT, "", None)
        found = by_union(kb, finder, [mention], min(count_of("k", k), len(kb)))
        rows = found.rows[0][found.rows[0] != PADDING].astype(np.int64)
        return [
            LinkedEntity(e.id, e.name, e.description, rank, 0.0, float(score), e.image is not None)
            for rank, (e, score) in enumerate(
                zip(kb.entities(rows), found.scores[0], strict=False), 1
            )
        ]

    def add(self, entities: Iterable[Given], update: bool = False) -> None:
        """Add entities, or mappings of their fields; a picture is a path, or the bytes of a file.

        Args:
            update: one that is there already is replaced, instead of refused.

        Raises:
            UserError: an id twice or there already, a row that is none, or a full disk; nothing is
                added then.
        """
        with self._changing:
            path = self._own()
            given = enumerate(several("entities", entities))
            rows = [self._entity(path, one, i) for i, one in given]
            if not rows:
                return
            kb = self._kb
            fill = None
            if kb.tables:
                stages = Stages(config_of(kb), "entity", rows, {}, self._encoders, known=False)
                workdir = path if isinstance(path, Path) else Path.cwd()
                fill = filled_by(stages, workdir, loud=len(rows) > QUIET)
            with open_change(path, fill) as change:
                self._moved(change.add(rows, update=update))

    def update(self, entities: Iterable[Given]) -> None:
        """Add entities, or replace those that are there."""
        self.add(entities, update=True)

    def remove(self, ids: Sequence[str]) -> None:
        """Take entities out. UserError where one is not there; nothing is removed then."""
        wanted = [*several("ids", ids)]
        if not all(isinstance(one, str) for one in wanted):
            raise UserError(f"ids are texts, not {wanted!r:.60}")
        with self._changing, open_change(self._own()) as change:
            self._moved(change.remove(wanted))

    def _own(self) -> str | Path:
        """Where changes are made."""
        kb = self._kb
        if self._borrowed and self._copy is None:
            say(
                f"{kb.path} is not changed: what is changed here goes with this process; give the "
                "linker a knowledge base of your own to keep it"
            )
            self._copy = tempfile.TemporaryDirectory(prefix="drin_jax_kb_")
            with Change(Path(self._copy.name) / "kb") as change:
                self._moved(change.copy(kb))
        place = self._kb.path
        return str(place) if is_url(str(place)) else Path(place)

    def _entity(self, path: str | Path, given: Given, number: int) -> Entity:
        if isinstance(given, Entity):
            return given
        if not isinstance(given, Mapping):
            raise UserError(f"entity {number} is {given!r:.40}, no mapping of its fields")
        row = dict(given)
        if "image" in row and row["image"] is not None:
            file = file_of(row["image"])
            row["image"] = self._kept(path, file) if isinstance(file, bytes) else file
        row = {name: value for name, value in row.items() if value is not None}
        for name in ("id", "name"):
            if name not in row:
                raise UserError(f"entity {number} has no {name!r}")
        return entity_of(row, Path.cwd(), f"entity {number}")

    def _kept(self, path: str | Path, content: bytes) -> str:
        """Where a picture's bytes are kept, beside the knowledge base."""
        if not isinstance(path, Path):
            raise UserError("a knowledge base in a database takes pictures by path")
        file = path.absolute() / PICTURES / hashlib.sha256(content).hexdigest()[:32]
        if not (file.exists() and file.stat().st_size == len(content)):
            file.parent.mkdir(exist_ok=True)
            own = file.with_name(f"{file.name}.{os.getpid()}")  # others may keep it at this moment
            write_whole(own, lambda out: out.write(content))
            os.replace(own, file)
        return str(file)
