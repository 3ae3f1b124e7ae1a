"""From a config to its feature store: what is there is opened, what is missing is made."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data_pipeline import schema
from data_pipeline.schema import Corpus, UserError
from data_pipeline.store import split_arrays
from data_pipeline.store.reader import Store
from data_pipeline.store.writer import StoreWriter
from drin_jax.config import check, flat
from drin_jax.extract import additions, candidates, encoder_settings, features, texts
from drin_jax.extract.corpus import fetch, read_corpus
from drin_jax.extract.edges import edges
from drin_jax.extract.encoding import Encoders
from drin_jax.extract.stages import Stages
from drin_jax.extract.stored import (
    METHOD,
    RELEASE,
    SOURCES,
    WEIGHTS,
    open_store,
    settings,
    store_path,
)


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
    elif config.data.reader == RELEASE:
        store = _import(config, path)
    else:
        # What contradicts itself is told before anything is downloaded or encoded.
        check(config)
        texts.check(config.text)
        corpus = read_corpus(config)
        _check_corpus(config, corpus)
        encoders = Encoders(encoder_settings.encoder_settings(config))
        stages = Stages(config, corpus, encoders.settings, encoders.width)
        made_from = {SOURCES: dict(stages.sources), WEIGHTS: encoders.weights()}
        writer = StoreWriter(path, settings(config) | made_from)
        store = _extract(stages, features.Tables(writer, encoders, shards), workdir)
    asked = {need for need in ("tokens", "regions") if config.encoders[need]}
    # A store without pictures has no regions, and the systems know that.
    asked |= {need for need in needs if need != "regions" or store.sizes["image_width"]}
    additions.check_limit(config, store, asked)
    if lacking := store.lacks([need for need in schema.NEEDS if need in asked]):
        return additions.add(config, store, lacking)
    return store


def _check_corpus(config: ConfigDict, corpus: Corpus) -> None:
    root = config.data.root
    for split in schema.SPLITS:
        if not any(mention.split == split for mention in corpus.mentions):
            raise UserError(f"{root}: the {split} split is empty")
    pictures = [item.image for items in (corpus.entities, corpus.mentions) for item in items]
    if config.encoders.image and not any(pictures):
        raise UserError(
            f"{root}: encoders.image is set, but not one picture of the data set is there; "
            "put them in their place, or unset encoders.image, clip and objects"
        )


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


def _extract(stages: Stages, tables: features.Tables, workdir: Path) -> Store:
    config, corpus, writer = stages.config, stages.corpus, tables.writer
    mentions = corpus.mentions
    rows = {entity.id: i for i, entity in enumerate(corpus.entities)}
    report: dict[str, Any] = {"counts": dict(corpus.counts)}
    writer.write_strings("entity_id", [e.id for e in corpus.entities])
    writer.write_strings("entity_name", [e.name for e in corpus.entities])
    writer.write_strings("mention_id", [m.id for m in mentions])
    writer.write_strings("mention_surface", [m.name for m in mentions])
    late = flat(config)[METHOD] == "vectors"
    if not late:  # minutes at most, and its mistakes are better told early
        found = candidates.retrieve(config, workdir, corpus, writer)
    report |= features.write(stages, tables, workdir)
    if late:
        found = candidates.retrieve(config, workdir, corpus, writer)
    retrieved, scores, counts = found
    report["counts"] |= counts | report.pop("picture_counts", {})
    groups = split_arrays.group_names(mentions)
    known = {m.gold for m in mentions if m.split == "train"}
    for split in schema.SPLITS:
        chosen = np.array([i for i, m in enumerate(mentions) if m.split == split])
        own = [mentions[i] for i in chosen]
        arrays = split_arrays.golds(own, rows, retrieved[chosen]) | {
            "mention": chosen.astype(np.int32),
            "candidates": retrieved[chosen],
            "retrieval_score": scores[chosen],
            "groups": split_arrays.group_bits(own, groups, known),
        }
        golds = arrays["gold_entity"][:, None]
        arrays["edges"] = edges(writer.array, chosen, retrieved[chosen])
        arrays["gold_edges"] = edges(writer.array, chosen, golds)[:, :, 0]
        for name, array in arrays.items():
            writer.write(f"{split}_{name}", array)
    writer.finish(name=corpus.name, groups=groups, report=report)
    return Store.open(writer.path)


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
