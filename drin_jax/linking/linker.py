"""Links a mention of any text, with a picture, to an entity of a knowledge base.

`linking.answering` does the work; here is what a user asks for.
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data_pipeline.kb.knowledge_base import KnowledgeBase
from data_pipeline.output import Progress
from data_pipeline.schema import UserError
from drin_jax.extract.encoding import Encoders
from drin_jax.linking import places, saved, spans
from drin_jax.linking.answering import Answerer, blank
from drin_jax.linking.entities import EntityBase
from drin_jax.linking.model import LinkModel, encoders_of
from drin_jax.linking.query import (
    Picture,
    Query,
    count_of,
    mention_of,
    number_of,
    path_of,
    several,
    widened,
)
from drin_jax.linking.result import LinkResult

BATCH = 64
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
            threshold = number_of("nil_threshold", nil_threshold)
            calibration = dataclasses.replace(model.calibration, threshold=threshold)
            model = dataclasses.replace(model, calibration=calibration)
        self._model, self._ner = model, ner
        self.encoders = encoders or encoders_of(model)
        self.model = model.version
        with ThreadPoolExecutor(1, "loading") as pool:  # what is wrong is told when a text comes
            pool.submit(getattr, self.encoders, "text")
            self._answerer = Answerer(model, self.encoders, urls)
            self._state = self._answerer.state(kb)
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
        kb = None if kb is None else path_of("kb", kb)
        model, base, borrowed, encoders = places.opened(path_of("the model's place", place), kb)
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
            with_kb: with a copy of the knowledge base that it links to now, and of that which it
                was trained on where it is another (pictures stay where they are); else with
                references.

        Raises:
            UserError: the folder is there already, or cannot be written; what is referred to goes
                with this process.
        """
        if not with_kb and self.kb.is_copy:
            raise UserError(
                "the knowledge base was changed in a copy that goes with this process; save it "
                "too, with_kb=True"
            )
        base = self._state.kb
        kept = self.encoders, self._answerer.relations
        saved.write(self._model, base, *kept, Path(path_of("folder", folder)), with_kb=with_kb)

    def push_to_hub(self, name: str, *, private: bool = True) -> str:
        """Saves the model to the Hugging Face hub as OWNER/NAME; its address there. UserError."""
        return places.push(self.save_pretrained, name, private)

    def _moved(self, kb: KnowledgeBase) -> None:
        self._state = self._answerer.state(kb)

    def _answers(self, queries: Sequence[Any], k: int) -> list[LinkResult | UserError]:
        return self._answerer(self._state, queries, count_of("k", k))

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
        found = self._answers([Query(text, span, mention, image, candidates)], k)[0]
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
        """What each mention means, in order. Twice `batch` of them are held in memory at once: of
        one batch answers are told while the next is encoded.

        Args:
            queries: or mappings of their fields.
            total: how many there will be, for a progress bar; 0: none is shown.
            errors: what cannot be linked becomes a UserError in its place instead of being raised.

        Raises:
            UserError: with the number of the query, from 0.
        """
        queries, batch, done = several("queries", queries), count_of("batch", batch), 0
        with Progress("linking", total, unit="mentions", loud=total > 0) as bar:
            for answers in _overlapped(lambda some: self._answers(some, k), queries, batch):
                for number, found in enumerate(answers, done):
                    if isinstance(found, UserError) and not errors:
                        raise UserError(f"query {number}: {found}")
                    yield found
                done += len(answers)
                bar.advance(len(answers))

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
        state, least = self._state, number_of("least", least)
        places = {*spans.find(text, state.finder.knows, state.last_words)}
        if self._ner is not None:
            places |= {*spans.named(self._ner, text)}
        places = {widened(place, text) for place in places}  # a recogniser may divide a character
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
        if reranker := self._model.reranker:
            reranker.encoder.warm_up(batch * reranker.best)
        for size in [one for one in WARMED if one < batch] + [batch]:
            words = ["warm up"] * size
            queries = [
                Query(word, mention=word, image=blank(encoders, i)) for i, word in enumerate(words)
            ]
            first, *_ = self._answers(queries, 1)
        if isinstance(first, LinkResult):
            first.to_dict(explain=True)


def _overlapped(
    work: Callable[[list[Any]], list[Any]], items: Iterable[Any], size: int
) -> Iterator[list[Any]]:
    """What work makes of so many items at a time, in order, two times at once."""
    left, waiting = iter(items), deque[Future[list[Any]]]()
    failed: Exception | None = None
    with ThreadPoolExecutor(2, "linking") as pool:
        while True:
            try:
                some = [*itertools.islice(left, size)]
            except Exception as error:  # told when what came before it is
                failed, some = error, []
            if some:
                waiting.append(pool.submit(work, some))
            if len(waiting) == 2 or (waiting and not some):
                yield waiting.popleft().result()
            elif not some:
                break
    if failed:
        raise failed
