"""The answers of a model to a few mentions.

A new mention takes the way of a data set's: the same encoders, first stage, edges, relations and
graph, over arrays that nobody keeps (`linking.state`). Its scores are calibrated to probabilities.
"""

import dataclasses
import functools
import hashlib
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from data_pipeline.kb.knowledge_base import KnowledgeBase
from data_pipeline.loader import GraphTables
from data_pipeline.pictures.images import READ, STATUSES, Limits, open_picture
from data_pipeline.schema import PADDING, Entity, Mention, UserError
from data_pipeline.store.unkept import SPLIT, UnkeptStore
from drin_jax.evaluation.reordering import Reordering
from drin_jax.evaluation.scoring import Trained
from drin_jax.explain.cases import Case, ranked
from drin_jax.explain.sources import Sources
from drin_jax.extract.encoding import Encoders
from drin_jax.extract.stages import Stages
from drin_jax.linking.model import LinkModel
from drin_jax.linking.query import Query, file_of, mention_of
from drin_jax.linking.result import LinkedEntity, LinkResult
from drin_jax.linking.state import State
from drin_jax.models.graph import blind
from drin_jax.types import GraphBatch

SIZES = (1, 8, 64)  # mentions scored at once: what is fewer is filled up


class Answerer:
    """Answers with a model. Of several threads one encodes, on all cores, while another does what
    is left of its mentions, on one; the others wait.

    Args:
        encoders: the model's.
        urls: pictures may be addresses, which are fetched.

    Attributes:
        relations: the model's own, over the knowledge base that it was trained on.
    """

    def __init__(self, model: LinkModel, encoders: Encoders, urls: bool):
        self._model, self._encoders, self._urls = model, encoders, urls
        self._stages = Stages(encoders.config, "mention", [], {}, encoders, known=False)
        self.relations = model.relations()
        self._encoding, self._lock = threading.Lock(), threading.RLock()
        graphdef, pictures = model.setup.graphdef, model.setup.pictures

        def score(params: Any, arrays: Mapping[str, jax.Array]) -> jax.Array:
            graphs = GraphBatch.from_host(arrays)
            if not pictures:
                graphs = blind(graphs, jnp.zeros_like(graphs.mention_has_image))
            return nnx.merge(graphdef, params)(graphs)[0]

        self._score = jax.jit(score)

    def state(self, kb: KnowledgeBase) -> State:
        """The model over a knowledge base as it is. UserError where they do not fit."""
        return State(self._model, self._stages, self.relations, kb)

    def __call__(
        self, state: State, queries: Sequence[Any], k: int
    ) -> list[LinkResult | UserError]:
        """The answers to queries, in order, of k candidates at most; what cannot be linked has its
        error there.

        Args:
            queries: `Query`s, or mappings of their fields.
        """
        out: list[LinkResult | UserError | None] = [None] * len(queries)
        mentions: list[Mention] = []
        places: list[int] = []
        files: dict[str, bytes] = {}
        among: list[np.ndarray | None] = []
        for i, given in enumerate(queries):
            try:
                query = Query.of(given)
                name = None
                if query.image is not None and self._encoders.names["image"]:
                    file = file_of(query.image, self._urls)
                    name = file if isinstance(file, str) else _named(file)
                    if isinstance(file, bytes):
                        files[name] = file
                mention = mention_of(query, len(mentions), name)
                among.append(state.rows(query.candidates))
                mentions.append(mention)
                places.append(i)
            except UserError as error:
                out[i] = error
        if mentions:
            with self._encoding:
                store = state.encoded(mentions, files)
            with self._lock:
                state.fill(store, mentions, among)
                answers = [*self._answers(state, store, mentions, files, k)]
            for i, found in zip(places, answers, strict=True):
                out[i] = found
        return [one for one in out if one is not None]

    def _answers(
        self,
        state: State,
        store: UnkeptStore,
        mentions: Sequence[Mention],
        files: Mapping[str, Any],
        k: int,
    ) -> Iterator[LinkResult | UserError]:
        scores, reordering = self._scores(store), None
        candidates = store.array(f"{SPLIT}_candidates")
        there = candidates != PADDING
        if reranker := self._model.reranker:
            said = reranker.said(state.kb, mentions, candidates, scores)
            reordering = Reordering(reranker.weight, {SPLIT: said})
            scores = reordering.scores(SPLIT, scores)
        calibration = self._model.calibration
        probabilities = calibration.probabilities(scores, there)
        decided, _ = calibration.decide(probabilities)
        seen = store.array("mention_has_image")
        order = np.argsort(-np.where(there, scores, -np.inf), axis=1, kind="stable")
        slots = [own[: min(k, some)] for own, some in zip(order, there.sum(1), strict=True)]
        rows = [candidates[row, own].astype(np.int64) for row, own in enumerate(slots)]
        held = iter(state.kb.entities(np.concatenate(rows)))  # at once, as each asking takes long
        for row, (mention, best) in enumerate(zip(mentions, slots, strict=True)):
            entities = [*itertools.islice(held, len(best))]
            if mention.image is not None and not seen[row]:
                yield _unreadable(files.get(mention.image, mention.image), self._limits)
                continue
            pictured = state.kb.array("entity_has_image")[rows[row]]
            image: Any = files.get(str(mention.image), mention.image)
            shown = dataclasses.replace(mention, image=image)
            yield LinkResult(
                text=mention.text,
                mention=mention.name,
                span=None if mention.start is None else (mention.start, mention.end or 0),
                candidates=tuple(
                    LinkedEntity(
                        id=entity.id,
                        name=entity.name,
                        description=entity.description,
                        rank=rank,
                        probability=float(probabilities[row, slot]),
                        score=float(scores[row, slot]),
                        has_image=bool(has),
                    )
                    for rank, (entity, slot, has) in enumerate(
                        zip(entities, best.tolist(), pictured, strict=True), 1
                    )
                ),
                is_nil=bool(decided[row] < 0 or not there[row].any()),
                nil_probability=float(probabilities[row, -1]),
                nil_threshold=calibration.threshold,
                model=self._model.version,
                kb=state.version,
                _case=functools.partial(
                    self._explained, self._model.trained(store, reordering), row, shown, entities
                ),
            )

    @property
    def _limits(self) -> Limits:
        image = self._model.config.image
        return Limits(image.max_pixels, image.max_bytes, image.min_side)

    def _explained(
        self, trained: Trained, row: int, mention: Mention, entities: Sequence[Entity]
    ) -> tuple[Case, Sources]:
        with self._lock:
            case = ranked(trained, SPLIT, [row])[0]
        case = dataclasses.replace(case, id=mention.name, split="linked:", gold="", protocol="")
        return case, Sources({case.id: mention}, {entity.id: entity for entity in entities})

    def _scores(self, store: UnkeptStore) -> np.ndarray:
        """[n,r] of all mentions of a store."""
        tables = GraphTables(store, SPLIT, self._model.setup.spec)
        n, parts = store.splits[SPLIT], []
        for begin in range(0, n, SIZES[-1]):
            count = min(n - begin, SIZES[-1])
            rows = np.full(next(size for size in SIZES if size >= count), -1, np.int64)
            rows[:count] = np.arange(begin, begin + count)
            parts.append(np.asarray(self._score(self._model.params, tables.batch(rows)))[:count])
        return np.concatenate(parts)


def _unreadable(file: str | bytes, limits: Limits) -> UserError:
    _, status = open_picture(file, limits)
    shown = "the picture" if isinstance(file, bytes) else f"the picture {Path(file).name}"
    if status < READ:
        return UserError(f"{shown} is of no file that the model has features of")
    return UserError(f"{shown} cannot be linked with: {STATUSES[status].removeprefix('masked: ')}")


def _named(content: bytes) -> str:
    """What a picture that is in no file is called: one that comes again is looked at once."""
    return f"picture {hashlib.sha256(content).hexdigest()}"


def blank(encoders: Encoders, number: int) -> np.ndarray | None:
    """A picture of this number, where the model looks at pictures."""
    if not encoders.names["image"]:
        return None
    return np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)
