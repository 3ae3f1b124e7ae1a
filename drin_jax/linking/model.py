"""What a linker knows: a trained system with all that it reads beside a mention, and its place in
a knowledge base."""

import contextlib
import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data_pipeline.kb.knowledge_base import KnowledgeBase
from data_pipeline.relations import evidence
from data_pipeline.relations.evidence import Relations, Remembered
from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from data_pipeline.store.unkept import UnkeptStore
from drin_jax import models
from drin_jax.evaluation.calibration import Calibration
from drin_jax.evaluation.reordering import FOLDER, WITH, Reordering
from drin_jax.evaluation.scoring import Setup, Trained
from drin_jax.extract.corpus import mentions_of
from drin_jax.extract.encoding import Encoders
from drin_jax.reranking.reranker import Reranker, open_reranker
from drin_jax.workdir import REPORT, open_run

# Of a report: what a model card tells of a split.
TOLD = ("counts", "retrieval", "subsets", "decisions")


@dataclasses.dataclass(frozen=True)
class LinkModel:
    """A trained system.

    Attributes:
        name: of the data set that it was trained on.
        config, setup, params, system: as `Trained` has them.
        calibration: how its scores become probabilities.
        scale: [2,k] by which evidence is standardised; None: it reads none.
        remembered: what its relations keep of training; None where `scale` is.
        kb: the knowledge base that it was trained on, as it was then.
        base: where that lies which mentions are linked to: the same, or another.
        scores: split -> what the report says of it.
        reranker: reads the best candidates of undecided mentions again; None: it has none.
    """

    name: str
    config: ConfigDict
    setup: Setup
    params: Any
    system: str
    calibration: Calibration
    scale: np.ndarray | None
    remembered: Remembered | None
    kb: KnowledgeBase
    base: str
    scores: Mapping[str, Any]
    reranker: Reranker | None = None

    @property
    def r(self) -> int:
        """Candidates of a mention."""
        return self.setup.spec.r

    @cached_property
    def version(self) -> str:
        """Twelve digits that differ where an answer may."""
        digest = hashlib.sha256(repr((self.calibration, self.system)).encode())
        for name, leaf in models.named(self.params).items():
            digest.update(name.encode() + np.asarray(leaf).tobytes())
        if self.reranker:
            digest.update(f"{self.reranker.weight} {self.reranker.encoder.fingerprint}".encode())
        return digest.hexdigest()[:12]

    def trained(self, store: Store, reordering: Reordering | None = None) -> Trained:
        """The system over other mentions, of which its reranker said this."""
        return Trained(self.config, store, self.setup, self.params, self.system, reordering)

    def relations(self) -> Relations | None:
        """What computes its evidence, over `kb`."""
        if self.remembered is None:
            return None
        return Relations(self.kb, self.kb.array(evidence.VECTORS[1]), self.remembered)


def encoders_of(model: LinkModel) -> Encoders:
    """The encoders of a model, for a few mentions or entities at a time."""
    config = model.config.copy_and_resolve_references()
    config.image.workers = 1  # a process for a picture takes longer than the picture
    return Encoders(config)


def sizes_of(kb: KnowledgeBase, r: int) -> dict[str, int]:
    """`Store.sizes` of mentions over a knowledge base, whose encoders are theirs."""
    tables = kb.tables
    widths = {
        "text_width": "entity_text",
        "image_width": "entity_image",
        "object_width": "entity_objects",
        "clip_width": "entity_clip_text",
    }
    found = {size: tables[name][0][1] for size, name in widths.items() if name in tables}
    return {**dict.fromkeys(widths, 0), **found, "r": r}


def calibration_of(report: Mapping[str, Any], where: str | Path) -> Calibration:
    """That of a report. UserError where it has none."""
    try:
        return Calibration(**report["calibration"])
    except (KeyError, TypeError):
        raise UserError(
            f"{where}: was never calibrated, so it has no probabilities; train again"
        ) from None


def from_run(workdir: Path) -> LinkModel:
    """The model of a finished run.

    Raises:
        UserError: it is not finished, or the raw files that it reads training mentions from are
            gone or changed.
    """
    with _hushed():
        run = open_run(workdir)
    told = run.report.get("best_step", run.step), run.system.endswith(WITH)
    if told != (run.step, run.reordering is not None):
        raise UserError(
            f"{workdir}: its training goes on, or was ended while it did, so that {REPORT} and its "
            "calibration are of an earlier state; start its command again"
        )
    store, remembered, scale = run.store, None, None
    calibration = calibration_of(run.report, workdir)
    if "evidence" in run.setup.spec.needs:
        try:
            mentions = mentions_of(run.config, store)
        except UserError as error:
            raise UserError(
                f"{workdir}: its system remembers training mentions, which are read from the raw "
                f"files, but: {error}"
            ) from None
        remembered = Remembered.of(store, mentions, evidence.components(mentions))
        scale = np.asarray(store.array("evidence_scale"))
    reranker = None
    if run.reordering and run.reordering.weight:
        reranker = open_reranker(workdir / FOLDER, run.config)
    splits = run.report.get("splits", {})
    return LinkModel(
        name=store.name,
        config=run.config,
        setup=run.setup,
        params=run.params,
        system=run.system,
        calibration=calibration,
        scale=scale,
        remembered=remembered,
        kb=store.kb,
        base=str(store.kb.path),
        reranker=reranker,
        scores={
            split: {k: v for k, v in own.items() if k in TOLD} for split, own in splits.items()
        },
    )


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Orbax warns of every checkpoint that it reads; what is wrong with one is an exception."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def unkept(kb: KnowledgeBase, r: int, mentions: int, name: str) -> UnkeptStore:
    """A store of so many new mentions over a knowledge base."""
    return UnkeptStore(kb, sizes_of(kb, r), mentions, name)
