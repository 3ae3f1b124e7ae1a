"""What reads candidates again: which, and what it says of them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from data_pipeline.kb.knowledge_base import KnowledgeBase
from data_pipeline.schema import Mention, UserError
from drin_jax.encoders.cross_encoder import CrossEncoder, Pair
from drin_jax.evaluation.calibration import Calibration
from drin_jax.evaluation.reordering import ABOUT, AGAIN, read_about
from drin_jax.extract.items import entity_text, mention_text


@dataclasses.dataclass(frozen=True)
class Reranker:
    """A trained cross-encoder, and where it is asked.

    Attributes:
        encoder: the network.
        templates: `text` of the config: what it is given of mentions and entities.
        calibration: of the scores that it is asked beside.
        best: it reads so many candidates of a mention,
        undecided: where the best of them has no higher probability.
        weight: what its scores count.
    """

    encoder: CrossEncoder
    templates: ConfigDict
    calibration: Calibration
    best: int
    undecided: float
    weight: float

    def said(
        self,
        kb: KnowledgeBase,
        mentions: Sequence[Mention],
        candidates: np.ndarray,
        scores: np.ndarray,
    ) -> np.ndarray:
        """Its scores [n,r] float32 of mentions' candidates, NaN where it is not asked.

        Args:
            candidates: [n,r] rows of the knowledge base, below 0 for none.
            scores: [n,r] of the system before.
        """
        out = np.full(scores.shape, np.nan, np.float32)
        asked = chosen(scores, candidates >= 0, self.calibration, self.best, self.undecided)
        if asked.any():
            pairs = pairs_of(self.templates, kb, mentions, candidates, asked)
            out[asked] = self.encoder.scores(pairs)
        return out


def chosen(
    scores: np.ndarray, there: np.ndarray, calibration: Calibration, best: int, undecided: float
) -> np.ndarray:
    """Which candidates [n,r] are read again: the best few of a mention whose likeliest is not
    likelier than `undecided`, where there are two."""
    order = np.argsort(-np.where(there, scores, -np.inf), axis=1, kind="stable")[:, :best]
    sure = calibration.probabilities(scores, there)[:, :-1].max(1, initial=0)
    few = np.zeros(scores.shape, bool)
    np.put_along_axis(few, order, True, 1)
    few &= there
    return few & ((sure <= undecided) & (few.sum(1) > 1))[:, None]


def pairs_of(
    templates: ConfigDict,
    kb: KnowledgeBase,
    mentions: Sequence[Mention],
    candidates: np.ndarray,
    asked: np.ndarray,
) -> list[Pair]:
    """The texts of the candidates [n,r] that are asked for, in their order."""
    rows = np.unique(candidates[asked])
    entities = kb.entities(rows.astype(np.int64))
    texts = dict(
        zip(rows.tolist(), (entity_text(templates.entity, one) for one in entities), strict=True)
    )
    at, slot = np.nonzero(asked)
    own = {i: mention_text(templates.mention, mentions[i]) for i in np.unique(at).tolist()}
    return [
        (*own[i], texts[int(candidates[i, j])])
        for i, j in zip(at.tolist(), slot.tolist(), strict=True)
    ]


def open_reranker(folder: Path, config: ConfigDict) -> Reranker:
    """The reranker in a folder, for a run of this config. UserError where it is damaged."""
    about = read_about(folder)
    encoders, fields = config.encoders, config.reranker
    try:
        calibration = Calibration(**about["calibration"])
    except (KeyError, TypeError):
        raise UserError(f"{folder / ABOUT}: its 'calibration' is odd; {AGAIN}") from None
    return Reranker(
        CrossEncoder(
            folder,
            dtype=encoders.dtype,
            max_length=fields.max_length,
            batch_tokens=encoders.batch_tokens,
        ),
        config.text,
        calibration,
        fields.best,
        fields.undecided,
        about["weight"],
    )
