"""What a model makes of new mentions over a knowledge base as it is at one moment."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipeline.kb.knowledge_base import KnowledgeBase
from data_pipeline.kb.text_index import text_index
from data_pipeline.relations.evidence import VECTORS, Relations, Retrieved, standardised
from data_pipeline.retrieval.union import Among
from data_pipeline.schema import NIL, NOT_RETRIEVED, PADDING, Mention, UserError
from data_pipeline.store.unkept import SPLIT, UnkeptStore
from drin_jax.extract import pairs
from drin_jax.extract.features import Features
from drin_jax.extract.stages import Stages
from drin_jax.linking import spans
from drin_jax.linking.candidates import FirstStage
from drin_jax.linking.model import LinkModel, unkept
from drin_jax.linking.query import several


class State:
    """A model over a knowledge base; nothing of it changes.

    Args:
        stages: of mentions, by the model's encoders.
        relations: the model's, over the knowledge base that it was trained on; None: it has none.

    Attributes:
        finder: finds names and words of the knowledge base.

    Raises:
        UserError: candidates of the model are not found by a knowledge base alone.
    """

    def __init__(
        self, model: LinkModel, stages: Stages, relations: Relations | None, kb: KnowledgeBase
    ):
        self.kb, self.finder = kb, text_index(kb)
        self._model, self._stages = model, stages
        self._first = FirstStage(model.config, kb, self.finder)
        self._relations = relations
        if relations is not None:
            self._relations = relations.over(kb, kb.array(VECTORS[1]), self.finder)

    @functools.cached_property
    def version(self) -> str:
        """Which state of which knowledge base this is."""
        return f"{self.kb.generation}-{self.kb.fingerprint()[:12]}"

    @functools.cached_property
    def last_words(self) -> frozenset[str]:
        """Of names and aliases, folded."""
        return spans.last_words(self.kb)

    def rows(self, ids: Sequence[str] | None) -> np.ndarray | None:
        """Rows of the entities of these ids; None of None. UserError where one is not there."""
        if ids is None:
            return None
        ids = [*several("candidates", ids)]
        if not ids or not all(isinstance(one, str) for one in ids):
            raise UserError(f"candidates are {ids!r:.40}; give a list of ids")
        rows = self.kb.find(ids)
        if (rows == PADDING).any():
            unknown = ids[int(np.argmax(rows == PADDING))]
            raise UserError(f"the knowledge base has no candidate {unknown!r:.60}")
        return np.unique(rows)

    def encoded(self, mentions: Sequence[Mention], files: Mapping[str, bytes]) -> UnkeptStore:
        """A store of these mentions' features.

        Args:
            files: what is in the files of pictures that are in none.
        """
        model, spec = self._model, self._model.setup.spec
        store = unkept(self.kb, model.r, len(mentions), model.name)
        features = Features(self._stages.of(mentions, files), store, loud=False)
        features.write()
        if "tokens" in spec.needs:
            features.write_tokens()
        if "regions" in spec.needs:
            features.write_regions(store)
        return store

    def fill(self, store: UnkeptStore, mentions: Sequence[Mention], among: Among) -> None:
        """Add to their features whatever else the model reads of these mentions.

        Args:
            among: rows that a mention's candidates are.
        """
        n, model = len(mentions), self._model
        found = self._first(mentions, model.r, store.array, among)
        own = np.arange(n)
        edges = pairs.edges(store.array, own, found.rows)
        store.write_strings("mention_id", [mention.id for mention in mentions])
        store.write_strings("mention_surface", [mention.name for mention in mentions])
        arrays = {
            "mention": own.astype(np.int32),
            "candidates": found.rows,
            "retrieval_score": found.scores,
            "edges": edges,
            "gold": np.full(n, NOT_RETRIEVED, np.int32),
            "gold_entity": np.full(n, NIL, np.int32),
        }
        if self._relations is not None:
            assert model.scale is not None
            has = store.array("mention_has_image")[:, None]
            theirs = self.kb.array("entity_has_image")[np.maximum(found.rows, 0)]
            pictures = np.stack(np.broadcast_arrays(has, theirs), 2)
            retrieved = Retrieved(found.rows, found.scores, edges, **found.by_stage)
            side = self._relations.mentions(mentions, store.array(VECTORS[0]))
            values = self._relations(side, retrieved, pictures)
            arrays["evidence"] = standardised(values, model.scale)
            store.write("evidence_scale", model.scale)
        for name, array in arrays.items():
            store.write(f"{SPLIT}_{name}", array)
