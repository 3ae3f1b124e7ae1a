"""From a config to its feature store: what is there is opened, what is missing is made."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data_pipeline import readers, schema
from data_pipeline.arrays.growing import tidy
from data_pipeline.kb.change import Fill
from data_pipeline.kb.knowledge_base import KnowledgeBase, open_kb
from data_pipeline.kb.segment_writer import SegmentWriter
from data_pipeline.relations import evidence
from data_pipeline.schema import Corpus, Entity, UserError
from data_pipeline.store import split_arrays
from data_pipeline.store.extension import StoreExtension
from data_pipeline.store.reader import FLAGS, Store
from data_pipeline.store.writer import KB, StoreWriter
from drin_jax.config import check, flat
from drin_jax.extract import pairs
from drin_jax.extract.corpus import fetch, read_corpus
from drin_jax.extract.encoding import Encoders
from drin_jax.extract.features import Features
from drin_jax.extract.items import SIDES, check_templates
from drin_jax.extract.stages import Stage, Stages
from drin_jax.extract.stored import (
    METHOD,
    RELEASE,
    SOURCES,
    WEIGHTS,
    check_encoders,
    kb_settings,
    open_store,
    settings,
    store_path,
)

NEED_KB = ("vectors", "union")  # first stages that search the knowledge base
_ENCODER = {"tokens": "text", "regions": "image"}


def prepare(
    config: ConfigDict, workdir: Path, shards: Path | None = None, needs: Collection[str] = ()
) -> Store:
    """The feature store of this config, made if it is missing.

    Args:
        shards: folder of shards that were encoded elsewhere (`drin_jax.extract.beam`).
        needs: of `schema.NEEDS`, what the store has to hold beside encoders.tokens and regions.

    Raises:
        UserError: one line on anything a user can mend.
    """
    path = store_path(config, workdir)
    if path.exists():
        store = open_store(config, path)
        own = store.kb.segments if store.kb.path == path / KB else ()
        for made in (path, *(path / KB / segment.folder for segment in own)):
            tidy(made)
    elif config.data.reader == RELEASE:
        store = _import(config, path)
    else:
        store = _extract(plan(config), path, workdir, shards)
    asked = {need for need in ("tokens", "regions") if config.encoders[need]}
    # A store without pictures has no regions, and the systems know that.
    asked |= {need for need in needs if need != "regions" or store.sizes["image_width"]}
    limit = config.encoders.max_tokens
    made = store.report.get("tokens", {}).get("limit", limit)
    if "tokens" in asked and made != limit:
        raise UserError(
            f"{store.path}: its mentions have at most {made} tokens, and encoders.max_tokens is "
            f"{limit}; use the same, or another --workdir or data.store"
        )
    if lacking := store.lacks([need for need in schema.NEEDS if need in asked]):
        return _add(config, store, lacking)
    return store


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What is to be made of a config's raw files.

    Attributes:
        corpus: as it is read, its entities those of `kb` where the config names one.
        mentions, entities: what encoders have to see; entities where there is no `kb` yet.
    """

    config: ConfigDict
    corpus: Corpus
    kb: KnowledgeBase | None
    mentions: Stages
    entities: Stages | None

    def stages(self) -> list[Stage]:
        """Everything that an encoder has to see."""
        sides = (self.entities, self.mentions)
        return [stage for side in sides if side is not None for stage in side.all()]


def plan(config: ConfigDict) -> Preparation:
    """What encoders have to see for this config, whose corpus is read. What contradicts itself is
    told before anything is downloaded or encoded. UserError."""
    check(config)
    check_templates(config.text)
    kb = open_kb(config.data.kb) if config.data.kb else None
    corpus = read_corpus(config, kb)  # first: a data set may bring its own encoders
    encoders = Encoders(config)
    if kb is not None:
        check_encoders(config, kb, encoders)
    sides: dict[str, Sequence[Any]] = {"mention": corpus.mentions, "entity": corpus.entities}
    mentions, entities = (
        Stages(config, side, items, corpus.sources, encoders) for side, items in sides.items()
    )
    return Preparation(config, corpus, kb, mentions, None if kb else entities)


def _import(config: ConfigDict, path: Path) -> Store:
    """The store of the authors' preprocessed release: reduced and deduplicated, nothing encoded."""
    from data_pipeline.release import convert, inventory

    fetch(config)
    root = Path(config.data.root)
    if not root.is_dir():
        raise UserError(f"data.root = {root} is not a folder. {config.data.hint}".rstrip())
    writer = StoreWriter(path, settings(config) | {SOURCES: {RELEASE: inventory.fingerprint(root)}})
    convert.write(root, writer, name=config.data.name)
    return Store.open(path)


def _extract(plan: Preparation, path: Path, workdir: Path, shards: Path | None) -> Store:
    """The store of a corpus: its knowledge base, unless that is there, then its mentions."""
    config, corpus, stages = plan.config, plan.corpus, plan.mentions
    root, encoders = config.data.root, stages.encoders
    for why in readers.refusals(corpus):
        raise UserError(f"{root}: {why}")
    own = [] if plan.kb else corpus.entities
    pictured = any(item.image for items in (own, corpus.mentions) for item in items)
    if config.encoders.image and not (pictured or plan.kb):
        raise UserError(
            f"{root}: encoders.image is set, but not one picture of the data set is there; "
            "put them in their place, or unset encoders.image, clip and objects"
        )
    weights = encoders.weights("text", "clip", "image", "detector")
    made_from = settings(config) | {SOURCES: dict(stages.sources), WEIGHTS: weights}
    writer = StoreWriter(path, made_from, plan.kb)
    late = flat(config)[METHOD] in NEED_KB
    if not late:  # minutes at most, and its mistakes are better told early
        found = pairs.retrieve(config, workdir, corpus, writer)
    if plan.entities is not None:
        fill = filled_by(plan.entities, workdir, shards)
        named = {"name": corpus.name, "root": root, "made_from": kb_settings(config, encoders)}
        writer.build_kb(corpus.entities, fill, **named)
    report = {"counts": dict(corpus.counts)} | Features(stages, writer, shards).write(workdir)
    _check_pictures(config, writer, report)
    if late:
        found = pairs.retrieve(config, workdir, corpus, writer)
    retrieved, scores, counts, more = found
    of_entities = writer.kb.report if plan.kb is None else {}
    parts = [some.get("picture_counts", {}) for some in (of_entities, report)]
    report.pop("picture_counts", None)
    told = {name: sum(part.get(name, 0) for part in parts) for part in parts for name in part}
    report["counts"] |= {**counts, **told}
    mentions = corpus.mentions
    living = np.flatnonzero(writer.kb.alive)
    rows = {writer.kb.ids[i]: i for i in living.tolist()}
    writer.write_strings("mention_id", [m.id for m in mentions])
    writer.write_strings("mention_surface", [m.name for m in mentions])
    groups, bits = split_arrays.groups(mentions)
    for split in schema.SPLITS:
        chosen = np.array([i for i, m in enumerate(mentions) if m.split == split])
        arrays = split_arrays.golds([mentions[i] for i in chosen], rows, retrieved[chosen]) | {
            "mention": chosen.astype(np.int32),
            "candidates": retrieved[chosen],
            "retrieval_score": scores[chosen],
            "groups": bits[chosen],
            **{name: array[chosen] for name, array in more.items()},
        }
        golds = arrays["gold_entity"][:, None]
        arrays["edges"] = pairs.edges(writer.array, chosen, retrieved[chosen])
        arrays["gold_edges"] = pairs.edges(writer.array, chosen, golds)[:, :, 0]
        for name, array in arrays.items():
            writer.write(f"{split}_{name}", array)
    writer.finish(name=corpus.name, groups=groups, report=report)
    return Store.open(writer.path)


def filled_by(stages: Stages, workdir: Path, shards: Path | None = None, loud: bool = True) -> Fill:
    """What writes the features of entities into a segment of a knowledge base."""

    def fill(segment: SegmentWriter, _: Sequence[Entity]) -> dict[str, Any]:
        return Features(stages, segment, shards, loud).write(workdir)

    return fill


def _check_pictures(config: ConfigDict, writer: StoreWriter, report: dict[str, Any]) -> None:
    """UserError where there are pictures, and not one of them can be read."""
    seen = any(np.asarray(writer.array(f"{side}_has_image")).any() for side in SIDES)
    masked = {**writer.kb.report.get("masked_pictures", {}), **report.get("masked_pictures", {})}
    if masked and not seen:
        path, why = next(iter(masked.items()))
        raise UserError(
            f"{config.data.root}: not one of its pictures can be read; the first is {path} ({why})"
        )


def _add(config: ConfigDict, store: Store, needs: Sequence[str]) -> Store:
    """The store with the arrays of `needs` ("tokens", "regions", "evidence") added; resumable.

    Raises:
        UserError: one line where raw files or encoders are gone or changed.
    """
    release = config.data.reader == RELEASE
    try:
        if release:
            from data_pipeline.release import convert, inventory

            if "evidence" in needs:
                raise UserError("a release has no texts, which relations beyond the paper's read")
            made_from: dict[str, Any] = {RELEASE: inventory.fingerprint(Path(config.data.root))}
        else:
            stages = plan(config).mentions
            encoded = [need for need in needs if need in _ENCODER]
            weights = {_ENCODER[need]: _fingerprint(stages, store, need) for need in encoded}
            limit = config.encoders.max_tokens
            made_from = {"needs": list(needs), "weights": weights, "tokens": limit}
    except UserError as error:
        flags = " ".join(FLAGS[need] for need in needs)
        raise UserError(
            f"{store.path}: holds no {' and no '.join(needs)} of the mentions; "
            f"python -m drin_jax.extract with {flags} adds them from the raw files, but: {error}"
        ) from None
    if release:
        extension = StoreExtension(store, made_from)
        convert.write_sequences(Path(config.data.root), store, extension, needs)
        return extension.add({})
    if store.strings("mention_id") != [mention.id for mention in stages.items]:
        raise UserError(
            f"{store.path}: its mentions are not those of the raw files any more; nothing can be "
            "added to it; make it anew with another --workdir or data.store"
        )
    extension = StoreExtension(store, made_from)
    features = Features(stages, extension)
    report: dict[str, Any] = {}
    if "tokens" in needs:
        report |= features.write_tokens()
    if "regions" in needs:
        report |= features.write_regions(store)
    if "evidence" in needs:
        for name, array in evidence.of_store(store, stages.items):
            extension.write(name, array)
        report["evidence"] = {name: list(values) for name, values in schema.EVIDENCE.items()}
    return extension.add(report)


def _fingerprint(stages: Stages, store: Store, need: str) -> str:
    name = _ENCODER[need]
    found = stages.encoders.weights(name).get(name)
    if found is None:
        raise UserError(f"encoders.{name} is not set")
    if store.made_from.get(WEIGHTS, {}).get(name, found) != found:
        raise UserError(f"encoders.{name} is another checkpoint than the one it was made with")
    return found


def describe(store: Store) -> str:
    """One line on what a store holds."""
    sizes = store.sizes
    splits = ", ".join(f"{name} {n}" for name, n in store.splits.items())
    pictures = f"pictures {sizes['image_width']}" if sizes["image_width"] else "no pictures"
    clip = f", CLIP {sizes['clip_width']}" if sizes["clip_width"] else ""
    objects = f", objects {sizes['object_width']}" if sizes["object_width"] else ""
    return (
        f"{store.name}: {sizes['entities']} entities, {sizes['mentions']} mentions ({splits}), "
        f"r {sizes['r']}, text {sizes['text_width']} wide, {pictures}{clip}{objects}"
    )
