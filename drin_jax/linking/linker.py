"""Links a mention of any text, with a picture, to an entity of a knowledge base.

A new mention takes the way of a data set's: the same encoders, first stage, edges, relations and
graph, over arrays that nobody keeps (`store.unkept`). Its scores are calibrated to probabilities.
"""

import dataclasses
import functools
import hashlib
import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from data_pipeline.graphs import GraphTables
from data_pipeline.kb.knowledge_base import KnowledgeBase
from data_pipeline.output import Progress
from data_pipeline.pictures.images import READ, STATUSES, Limits, open_picture
from data_pipeline.schema import PADDING, Entity, Mention, UserError
from data_pipeline.store.unkept import SPLIT, UnkeptStore
from drin_jax.explain.cases import Case, ranked
from drin_jax.explain.sources import Sources
from drin_jax.extract.encoding import Encoders
from drin_jax.extract.stages import Stages
from drin_jax.linking import places, saved, spans
from drin_jax.linking.entities import EntityBase
from drin_jax.linking.model import LinkModel, encoders_of
from drin_jax.linking.query import Picture, Query, file_of, mention_of
from drin_jax.linking.result import LinkedEntity, LinkResult
from drin_jax.linking.state import State
from drin_jax.types import GraphBatch

BATCH = 64
SIZES = (1, 8, BATCH)  # mentions scored at once: what is fewer is filled up
WARMED = (1, 2, 4, 8, 16)  # numbers of pictures, and more, that are compiled apart
EXAMPLE = 240  # characters of a text that is shown as one
K = 5


class Linker:
    """Links mentions with a trained model; threads may share it.

    Args:
        model: that links.
        kb: the knowledge base that mentions are linked to, its features made by the model's own
            encoders.
        borrowed: the knowledge base is not the user's: changes are made to a copy that goes with
            the process.
        ner: finds mentions in raw text, beside what is found without.
        urls: pictures may be addresses, which are fetched.
        encoders: the model's, where they are at hand.
        nil_threshold: probability that nobody is meant from which on that is the answer; None: that
            which was chosen on the model's valid split.

    Attributes:
        kb: what is in the knowledge base, to be searched and changed.
        model: which model this is.

    Raises:
        UserError: the knowledge base is of other encoders, or lacks what the model reads.
    """

    def __init__(
        self,
        model: LinkModel,
        kb: KnowledgeBase,
        borrowed: bool = False,
        ner: spans.Recogniser | None = None,
        urls: bool = False,
        encoders: Encoders | None = None,
        nil_threshold: float | None = None,
    ):
        if nil_threshold is not None:
            calibration = dataclasses.replace(model.calibration, threshold=nil_threshold)
            model = dataclasses.replace(model, calibration=calibration)
        self._model, self._ner, self._urls = model, ner, urls
        self.encoders = encoders or encoders_of(model)
        config = self.encoders.config
        self._stages = Stages(config, "mention", [], {}, self.encoders, known=False)
        self._relations = model.relations()
        self._lock = threading.RLock()
        graphdef, pictures = model.setup.graphdef, model.setup.pictures

        def score(params: Any, arrays: Mapping[str, jax.Array]) -> jax.Array:
            graphs = GraphBatch.from_host(arrays)
            if not pictures:
                graphs = graphs.blind(jnp.zeros_like(graphs.mention_has_image))
            return nnx.merge(graphdef, params)(graphs)[0]

        self._score = jax.jit(score)
        self.model = model.version
        self._state = State(model, self._stages, self._relations, kb)
        self.kb = EntityBase(lambda: self._state, self._moved, self.encoders, borrowed)

    @classmethod
    def from_pretrained(
        cls,
        place: str | Path,
        *,
        kb: str | Path | None = None,
        ner: str | spans.Recogniser | None = None,
        urls: bool = False,
        nil_threshold: float | None = None,
    ) -> "Linker":
        """A linker with the model in `place`.

        Args:
            place: the workdir of a finished run; a folder that `save_pretrained` or
                `drin_jax.export` wrote; OWNER/NAME or OWNER/NAME@REVISION on the Hugging Face hub;
                or "sample", the embedded sample's, trained in a minute when it is first asked for.
            kb: a knowledge base to link to, in place of the model's own: its folder or URL, or a
                file of entities (JSON lines, CSV or Parquet), which are encoded once.
            ner: a recogniser of named entities for `annotate`: "spacy:PIPELINE" or
                "gliner:OWNER/NAME" (extra `ner`), or a function of a text to the first and last+1
                characters of its mentions.
            urls: pictures may be addresses, http:// or https://, which are fetched.
            nil_threshold: probability that nobody is meant from which on that is the answer; None:
                that which was chosen on the model's valid split.

        Raises:
            UserError: one line on what is not there, damaged, or does not fit.
        """
        found = spans.recogniser(ner) if isinstance(ner, str) else ner
        model, base, borrowed, encoders = places.opened(place, kb)
        return cls(model, base, borrowed, found, urls, encoders, nil_threshold)

    def examples(self, n: int = 4) -> list[dict[str, Any]]:
        """Some short mentions that the model remembers of training, of different names, to try it
        with: "title", "text" and "span" of each; none where it remembers nothing."""
        kept = self._model.remembered.mentions if self._model.remembered else ()
        found: dict[str, dict[str, Any]] = {}
        for one in kept:
            if one.start is not None and len(one.text) < EXAMPLE and len(found) < n:
                span = [one.start, one.end]
                found.setdefault(one.name, {"title": one.name, "text": one.text, "span": span})
        return [*found.values()]

    def save_pretrained(self, folder: str | Path, *, with_kb: bool = True) -> None:
        """Writes the model as one folder, which `from_pretrained` reads.

        Args:
            with_kb: with a copy of the knowledge base that it was trained on, as it was then (its
                pictures stay where they are); else with a reference to it.

        Raises:
            UserError: the folder is there already, or cannot be written.
        """
        saved.write(self._model, self.encoders, Path(folder), with_kb=with_kb)

    def push_to_hub(self, name: str, *, private: bool = True) -> str:
        """Saves the model to the Hugging Face hub as OWNER/NAME; its address there. UserError."""
        return places.push(self.save_pretrained, name, private)

    def _moved(self, kb: KnowledgeBase) -> None:
        state = State(self._model, self._stages, self._relations, kb)
        with self._lock:
            self._state = state

    def link(
        self,
        text: str,
        span: Sequence[int] | None = None,
        mention: str | None = None,
        image: Picture = None,
        k: int = K,
        candidates: Sequence[str] | None = None,
    ) -> LinkResult:
        """What a mention means; arguments as `Query` has them.

        Args:
            k: candidates to be told, at most.

        Raises:
            UserError: one line on what cannot be linked.
        """
        found = self._link([Query(text, span, mention, image, candidates)], k)[0]
        if isinstance(found, UserError):
            raise found
        return found

    def link_many(
        self,
        queries: Iterable[Query | Mapping[str, Any]],
        batch: int = BATCH,
        k: int = K,
        *,
        total: int = 0,
        errors: bool = False,
    ) -> Iterator[Any]:
        """What each mention means, in order; `batch` of them are held in memory at once.

        Args:
            queries: or mappings of their fields.
            total: how many there will be, for a progress bar; 0: none is shown.
            errors: what cannot be linked becomes a UserError in its place instead of being raised.

        Raises:
            UserError: with the number of the query, from 0.
        """
        if batch < 1:
            raise UserError(f"batch is {batch}; it must be at least 1")
        left, done = iter(queries), 0
        with Progress("linking", total, unit="mentions", loud=total > 0) as bar:
            while some := [*itertools.islice(left, batch)]:
                for number, found in enumerate(self._link(some, k), done):
                    if isinstance(found, UserError) and not errors:
                        raise UserError(f"query {number}: {found}")
                    yield found
                done += len(some)
                bar.advance(len(some))

    def annotate(
        self, text: str, image: Picture = None, k: int = K, least: float = 0.5
    ) -> tuple[LinkResult, ...]:
        """The mentions of a text that mean an entity, in order; none overlap.

        Where mentions may stand is told by the knowledge base's names, by capital letters, and by
        `ner` (`linking.spans`); of those that overlap the likeliest stays.

        Args:
            least: probability of what a mention means, below which it is none.

        Raises:
            UserError: as `link`.
        """
        mention_of(Query(text, mention=text), 0, None)  # or there is nothing to look through
        state = self._state
        places = {*spans.find(text, state.finder.knows, state.last_words)}
        if self._ner is not None:
            places |= {(int(a), int(b)) for a, b in self._ner(text) if text[a:b].strip()}
        queries = [Query(text, place, image=image) for place in sorted(places)]
        answers = self.link_many(queries, k=k)
        found = [one for one in answers if one.entity and one.entity.probability >= least]
        worth = [one.entity.probability for one in found]
        return tuple(found[i] for i in spans.apart([one.span for one in found], worth))

    def warm_up(self, batch: int = BATCH) -> None:
        """Compiles what links up to `batch` mentions at once, so that no request waits for it."""
        encoders = self.encoders
        own = [name for table, name in encoders.poolings.items() if table.startswith("mention")]
        encoders.text.warm_up(own, batch)
        if encoders.names["clip"]:
            encoders.clip.warm_up(batch)
        for size in [one for one in WARMED if one < batch] + [batch]:
            words = ["warm up"] * size
            queries = [
                Query(word, mention=word, image=_blank(encoders, i)) for i, word in enumerate(words)
            ]
            found = self._link(queries, 1)
        if isinstance(found[0], LinkResult):
            found[0].to_dict(explain=True)

    def _link(self, queries: Sequence[Any], k: int) -> list[LinkResult | UserError]:
        if not isinstance(k, int) or k < 1:
            raise UserError(f"k is {k!r}; it must be at least 1")
        out: list[LinkResult | UserError | None] = [None] * len(queries)
        with self._lock:
            state = self._state
            mentions: list[Mention] = []
            places: list[int] = []
            files: dict[str, bytes] = {}
            among: list[np.ndarray | None] = []
            for i, given in enumerate(queries):
                try:
                    query = Query.of(given)
                    name = None
                    if query.image is not None and self.encoders.names["image"]:
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
                for i, found in zip(
                    places, self._answers(state, mentions, files, among, k), strict=True
                ):
                    out[i] = found
        return [one for one in out if one is not None]

    def _answers(
        self,
        state: State,
        mentions: Sequence[Mention],
        files: Mapping[str, Any],
        among: Sequence[np.ndarray | None],
        k: int,
    ) -> Iterator[LinkResult | UserError]:
        store = state.filled(mentions, files, among)
        scores = self._scores(store)
        candidates = store.array(f"{SPLIT}_candidates")
        there = candidates != PADDING
        calibration = self._model.calibration
        probabilities = calibration.probabilities(scores, there)
        decided, _ = calibration.decide(probabilities)
        seen = store.array("mention_has_image")
        for row, mention in enumerate(mentions):
            if mention.image is not None and not seen[row]:
                yield _unreadable(files.get(mention.image, mention.image), self._limits)
                continue
            order = np.argsort(-np.where(there[row], scores[row], -np.inf), kind="stable")
            best = order[: min(k, int(there[row].sum()))]
            rows = candidates[row, best].astype(np.int64)
            pictured = state.kb.array("entity_has_image")[rows]
            entities = state.kb.entities(rows)
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
                model=self.model,
                kb=state.version,
                _case=functools.partial(self._explained, store, row, shown, entities),
            )

    @property
    def _limits(self) -> Limits:
        image = self._model.config.image
        return Limits(image.max_pixels, image.max_bytes, image.min_side)

    def _explained(
        self, store: UnkeptStore, row: int, mention: Mention, entities: Sequence[Entity]
    ) -> tuple[Case, Sources]:
        with self._lock:
            case = ranked(self._model.trained(store), SPLIT, [row])[0]
        case = dataclasses.replace(case, id=mention.name, split="linked:", gold="not known")
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


def _blank(encoders: Encoders, number: int) -> np.ndarray | None:
    """A picture of this number, where the model looks at pictures."""
    if not encoders.names["image"]:
        return None
    return np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)
