"""Raw files -> feature store: every frozen feature once, before training.

Reads the corpus, retrieves candidates, runs the text encoder over everything unique, joins
precomputed picture features, and computes the graphs' initial edges. A run that is killed goes on
where it stopped; nothing half-written is ever read.
"""

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_collections import ConfigDict

from data_pipeline import retrieval, schema, split_arrays
from data_pipeline.readers import read
from data_pipeline.schema import Corpus, Mention
from data_pipeline.store import Store
from data_pipeline.store_writer import StoreWriter
from drin_jax.progress import Progress
from drin_jax.types import UserError

if TYPE_CHECKING:
    from data_pipeline.precomputed import Precomputed

ROWS_PER_SHARD = 2048
EDGE_ROWS = 1024
SOURCES = "data files"


def store_path(config: ConfigDict, workdir: Path) -> Path:
    """Where the features of this config are kept."""
    return Path(config.data.store) if config.data.store else workdir / "store"


def settings(config: ConfigDict) -> dict[str, Any]:
    """The config fields that decide what is in a store."""
    data, encoders = config.data, config.encoders
    return {
        "data.name": data.name,
        "data.reader": data.reader,
        "data.split": data.split,
        "data.valid_fraction": data.valid_fraction,
        **{f"retrieval.{name}": value for name, value in config.retrieval.items()},
        **{f"text.{name}": value for name, value in config.text.items()},
        **{
            f"encoders.{name}": value
            for name, value in encoders.items()
            if name not in ("batch_tokens",)
        },
    }


def prepare(config: ConfigDict, workdir: Path) -> Store:
    """The feature store of this config, made if it is missing.

    Raises:
        UserError, DataError: one line on anything a user can mend.
    """
    path = store_path(config, workdir)
    if path.exists():
        return _open(config, path)
    corpus = read_corpus(config)
    for split in schema.SPLITS:
        if not any(mention.split == split for mention in corpus.mentions):
            raise UserError(f"{config.data.root}: the {split} split is empty")
    writer = StoreWriter(path, settings(config) | {SOURCES: dict(corpus.sources)})
    return _extract(config, workdir, corpus, writer, path)


def read_corpus(config: ConfigDict) -> Corpus:
    data = config.data
    if data.reader == "sample":
        from data_pipeline import sample

        sample.generate(Path(data.root))
    return read(
        data.reader,
        Path(data.root),
        name=data.name,
        split=data.split,
        valid_fraction=data.valid_fraction,
        source=data.source,
    )


def _open(config: ConfigDict, path: Path) -> Store:
    """The store that is there, if it was made from these settings and these raw files. Raw files
    that are gone are no change: a store may travel without them."""
    made_from = Store.open(path).made_from
    now = {}
    for name, digest in made_from.get(SOURCES, {}).items():
        file = Path(config.data.root) / name
        now[name] = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else digest
    store = Store.open(path, made_from=settings(config) | {SOURCES: now})
    if config.data.verify:
        store.verify()
    return store


def _extract(
    config: ConfigDict, workdir: Path, corpus: Corpus, writer: StoreWriter, path: Path
) -> Store:
    entities, mentions = corpus.entities, corpus.mentions
    rows = {entity.id: i for i, entity in enumerate(entities)}
    report: dict[str, Any] = {"counts": dict(corpus.counts)}
    writer.write_strings("entity_id", [e.id for e in entities])
    writer.write_strings("entity_name", [e.name for e in entities])
    writer.write_strings("mention_id", [m.id for m in mentions])
    writer.write_strings("mention_surface", [m.name for m in mentions])
    candidates, scores, found = _retrieve(config, workdir, corpus)
    report["counts"] |= found
    report["text_encoder"] = _encode_text(config, corpus, writer)
    pictures = _pictures(config, corpus, writer)
    if pictures is not None:
        report["pictures"] = config.encoders.pictures
    else:
        n = sum(mention.image is not None for mention in mentions)
        report["counts"]["mention pictures without features (masked)"] = n
    groups = split_arrays.group_names(mentions)
    known = {m.gold for m in mentions if m.split == "train"}
    for split in schema.SPLITS:
        chosen = np.array([i for i, m in enumerate(mentions) if m.split == split])
        own = [mentions[i] for i in chosen]
        arrays = split_arrays.golds(own, rows, candidates[chosen]) | {
            "mention": chosen.astype(np.int32),
            "candidates": candidates[chosen],
            "retrieval_score": scores[chosen],
            "groups": split_arrays.group_bits(own, groups, known),
        }
        golds = arrays["gold_entity"][:, None]
        arrays["edges"] = _edges(corpus, writer, pictures, chosen, candidates[chosen])
        arrays["gold_edges"] = _edges(corpus, writer, pictures, chosen, golds)[:, :, 0]
        for name, array in arrays.items():
            writer.write(f"{split}_{name}", array)
    writer.finish(name=corpus.name, groups=groups, report=report)
    return Store.open(path)


def _retrieve(
    config: ConfigDict, workdir: Path, corpus: Corpus
) -> tuple[np.ndarray, np.ndarray, Mapping[str, int]]:
    method, r = config.retrieval.method, config.retrieval.r
    if r < 1:
        raise UserError(f"retrieval.r is {r}; at least 1 candidate is needed")
    if method == "names":
        candidates, scores = retrieval.by_name(
            [entity.name for entity in corpus.entities],
            [mention.name for mention in corpus.mentions],
            r,
            scorer=config.retrieval.scorer,
            cache_dir=workdir / "cache",
        )
        return candidates, scores, {}
    if method == "given":
        return retrieval.given(corpus, r)
    raise UserError(f"retrieval.method is {method!r}; known are names, given")


def mention_text(template: str, mention: Mention) -> tuple[str, tuple[int, int] | None]:
    """The text given to the encoder for a mention, and where its span lies in it (characters)."""
    head, placed, tail = template.partition("{sentence}")
    if not placed:
        raise UserError(f"text.mention is {template!r}; it needs a {{sentence}}")
    try:
        before = head.format(mention=mention.name)
        text = before + mention.text + tail.format(mention=mention.name)
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"text.mention is {template!r}; fields are {{sentence}}, {{mention}} ({error})"
        ) from None
    if mention.start is None or mention.end is None:
        return text, None
    return text, (len(before) + mention.start, len(before) + mention.end)


def entity_text(template: str, name: str, description: str) -> str:
    """The text given to the encoder for an entity."""
    try:
        return template.format(name=name, description=description).strip()
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"text.entity is {template!r}; fields are {{name}}, {{description}} ({error})"
        ) from None


def _encode_text(config: ConfigDict, corpus: Corpus, writer: StoreWriter) -> dict[str, Any]:
    """Write the text tables of both sides; returns what encoded them."""
    from drin_jax.encoders.text import TextEncoder  # transformers takes seconds to import

    encoders = config.encoders
    folder = encoders.text
    local = Path(config.data.root) / folder
    encoder = TextEncoder(
        str(local) if local.is_dir() else folder,
        dtype=encoders.dtype,
        max_length=encoders.max_length,
        batch_tokens=encoders.batch_tokens,
    )
    entities = [
        (entity_text(config.text.entity, e.name, e.description), None) for e in corpus.entities
    ]
    mentions = [mention_text(config.text.mention, m) for m in corpus.mentions]
    blank = [not (e.name.strip() or e.description.strip()) for e in corpus.entities]
    writer.write("entity_has_text", ~np.array(blank, bool))
    writer.write("mention_has_text", np.array([bool(m.text.strip()) for m in corpus.mentions]))
    for side, items in (("entity", entities), ("mention", mentions)):
        poolings = {
            f"{side}_text": encoders[f"{side}_vertex"],
            f"{side}_text_edge": encoders[f"{side}_edge"],
        }
        if len(set(poolings.values())) == 1:
            del poolings[f"{side}_text_edge"]
        _encode_side(encoder, writer, side, items, poolings)
    return {"name": folder, "fingerprint": encoder.fingerprint, "width": encoder.width}


def _encode_side(
    encoder: Any,
    writer: StoreWriter,
    side: str,
    items: Sequence[tuple[str, tuple[int, int] | None]],
    poolings: dict[str, str],
) -> None:
    tables = {
        name: writer.shards(name, (len(items), encoder.width), "float32", ROWS_PER_SHARD)
        for name in poolings
    }
    todo = sorted({index for table in tables.values() for index in table.missing()})
    shards = [items[i * ROWS_PER_SHARD : (i + 1) * ROWS_PER_SHARD] for i in todo]
    done = len(items) - sum(map(len, shards))
    with Progress(f"encoding {side} texts", len(items), done, "texts") as progress:
        for index, part in zip(todo, shards, strict=True):
            encoded = encoder.encode(
                [text for text, _ in part],
                [span for _, span in part],
                tuple(dict.fromkeys(poolings.values())),
            )
            for name, pooling in poolings.items():
                tables[name].write(index, encoded[pooling])
            progress.advance(len(part))
    for table in tables.values():
        table.finish()


def _pictures(config: ConfigDict, corpus: Corpus, writer: StoreWriter) -> "Precomputed | None":
    """Write the image tables of both sides; without picture features everything is masked."""
    name = config.encoders.pictures
    pictures = None
    if name:
        from data_pipeline.precomputed import load as load_precomputed

        local = Path(config.data.root) / name
        pictures = load_precomputed(local if local.exists() else Path(name))
    sides: Iterable[tuple[str, Sequence[Any]]] = (
        ("entity", corpus.entities),
        ("mention", corpus.mentions),
    )
    for side, items in sides:
        if pictures is None:
            writer.write(f"{side}_image", np.zeros((len(items), 0), np.float32))
            writer.write(f"{side}_has_image", np.zeros(len(items), bool))
            continue
        found = pictures.image_rows([item.image for item in items])
        table = np.where((found >= 0)[:, None], pictures.pooled[np.maximum(found, 0)], 0)
        writer.write(f"{side}_image", table.astype(np.float32))
        writer.write(f"{side}_has_image", found >= 0)
    return pictures


def _edges(
    corpus: Corpus,
    writer: StoreWriter,
    pictures: "Precomputed | None",
    mentions: np.ndarray,
    candidates: np.ndarray,
) -> np.ndarray:
    """Initial edges [n, 4, r]; 0 where an end is missing. `candidates` below 0 are no entity."""
    out = np.zeros((len(mentions), 4, candidates.shape[1]), np.float32)
    left, right = writer.array("mention_text_edge"), writer.array("entity_text_edge")
    for begin in range(0, len(mentions), EDGE_ROWS):
        rows = slice(begin, begin + EDGE_ROWS)
        own, others = mentions[rows], np.maximum(candidates[rows], 0)
        out[rows, 0] = split_arrays.cosine(left[own][:, None], right[others])
    if pictures is not None:
        sentences = [corpus.mentions[i].text for i in mentions]
        images = [corpus.mentions[i].image for i in mentions]
        texts = [entity.description for entity in corpus.entities]
        entity_images = [entity.image for entity in corpus.entities]
        out[:, 1:] = pictures.edges(sentences, images, texts, entity_images, candidates)
    return np.where((candidates >= 0)[:, None], out, 0)


def describe(store: Store) -> str:
    """One line on what a store holds."""
    sizes = store.sizes
    splits = ", ".join(f"{name} {n}" for name, n in store.splits.items())
    pictures = f"pictures {sizes['image_width']}" if sizes["image_width"] else "no pictures"
    return (
        f"{store.name}: {sizes['entities']} entities, {sizes['mentions']} mentions ({splits}), "
        f"r {sizes['r']}, text {sizes['text_width']} wide, {pictures}"
    )


def say(message: str) -> None:
    """A line of what is going on, on stderr."""
    print(message, file=sys.stderr, flush=True)
