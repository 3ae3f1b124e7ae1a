"""A linker without a model: it answers at once, with what a test can tell apart, records how it was
asked, and fails where a text asks for it."""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from data_pipeline.schema import Entity, UserError
from drin_jax.explain.cases import Candidate, Case
from drin_jax.linking.entities import EntityBase
from drin_jax.linking.linker import Linker
from drin_jax.linking.result import LinkedEntity, LinkResult

REFUSED, BROKEN, SLOW, SECRET = "refuse me", "break", "slow", "a secret of the machine"


class FakeEntities(EntityBase):
    """A dictionary."""

    def __init__(self) -> None:
        self.held = {"a/b": Entity("a/b", "Odd id", "")}
        self.held |= {f"Q{i}": Entity(f"Q{i}", f"Name {i}", "told") for i in range(200)}
        self.generation = 1

    @property
    def version(self) -> str:
        return f"{self.generation}-fake"

    def info(self) -> dict[str, Any]:
        return {
            "name": "fake",
            "path": "/fake",
            "entities": len(self.held),
            "generation": self.generation,
            "version": self.version,
        }

    def get(self, id: str) -> Entity | None:
        return self.held.get(id)

    def search(self, name: str, text: str = "", k: int = 10) -> list[LinkedEntity]:
        return linked(k)

    def add(self, entities: Iterable[Any], update: bool = False) -> None:
        for row in entities:
            if row["name"] == REFUSED:
                raise UserError("refused")
            row = {**row, "aliases": tuple(row["aliases"])}
            if isinstance(row["image"], bytes):
                row["image"] = None
            self.held[row["id"]] = Entity(**row)
        self.generation += 1

    def remove(self, ids: Sequence[str]) -> None:
        for id in ids:
            del self.held[id]
        self.generation += 1


class FakeLinker(Linker):
    """Links every mention to Q0, Q1, …; `begun` are the sizes that it was asked for, `batches`
    those that it answered. It waits where `goes_on` is cleared, to annotate where `reads_on` is."""

    def __init__(self) -> None:
        self.model, self.kb = "fake", FakeEntities()
        self.batches: list[int] = []
        self.pictures: list[bytes] = []
        self.begun: list[int] = []
        self.goes_on = threading.Event()
        self.reads_on = threading.Event()
        self.goes_on.set()
        self.reads_on.set()

    def examples(self, n: int = 4) -> list[dict[str, Any]]:
        return [{"title": "Jordan", "text": "Jordan scored.", "span": [0, 6]}]

    def link_many(
        self, queries: Iterable[Any], batch: int = 64, k: int = 5, *, total: int = 0, errors=False
    ) -> Iterator[Any]:
        queries = list(queries)
        self.begun.append(len(queries))
        self.goes_on.wait()
        self.batches.append(len(queries))
        for query in queries:
            if BROKEN in query["text"]:
                raise RuntimeError(SECRET)
            if SLOW in query["text"]:
                time.sleep(0.5)
            if REFUSED in query["text"]:
                yield UserError("refused")
                continue
            if query.get("image"):
                self.pictures.append(query["image"])
            span = query["span"]
            mention = query["mention"] or query["text"][slice(*span)]
            yield result(query["text"], mention, span, k)

    def warm_up(self, batch: int = 64) -> None:
        pass

    def annotate(self, text: str, image: Any = None, k: int = 5) -> tuple[LinkResult, ...]:
        self.reads_on.wait()
        if BROKEN in text:
            raise RuntimeError(SECRET)
        places = [i for i, letter in enumerate(text) if letter.isupper()]
        return tuple(result(text, text[i], (i, i + 1), k) for i in places)


def linked(k: int) -> list[LinkedEntity]:
    return [
        LinkedEntity(f"Q{i}", f"Name {i}", "told", i + 1, 0.5**i, -float(i), False)
        for i in range(min(k, 200))
    ]


def result(text: str, mention: str, span: Any, k: int) -> LinkResult:
    found = tuple(linked(k))
    case = Case("", mention, "test", "fake", "", "", 1, tuple(_seen(one) for one in found))
    return LinkResult(
        text, mention, span, found, False, 0.25, 0.5, "fake", "1-fake", lambda: (case, None)
    )


def _seen(one: LinkedEntity) -> Candidate:
    return Candidate(one.id, one.name, one.rank, one.score, False, False, None, {"names": "equal"})
