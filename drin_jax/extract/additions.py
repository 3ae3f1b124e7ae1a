"""What some systems read beside the vertex features, added to a store: tokens and regions."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data_pipeline import schema
from data_pipeline.graphs import FLAGS
from data_pipeline.progress import Progress
from data_pipeline.schema import Corpus, Span, UserError
from data_pipeline.store.extension import StoreExtension, same_mentions
from data_pipeline.store.reader import Store
from data_pipeline.store.split_arrays import offsets_of
from drin_jax.config import check
from drin_jax.extract.corpus import read_corpus
from drin_jax.extract.encoder_settings import encoder_settings
from drin_jax.extract.encoding import Encoders
from drin_jax.extract.stages import ROWS
from drin_jax.extract.stored import RELEASE, WEIGHTS
from drin_jax.extract.texts import check as check_texts
from drin_jax.extract.texts import mention_text

TOKENS_PER_SHARD = 1 << 15
PICTURES_PER_SHARD = 64
_ENCODER = {"tokens": "text", "regions": "image"}


def add(config: ConfigDict, store: Store, needs: Sequence[str]) -> Store:
    """The store with the arrays of `needs` ("tokens", "regions") added; resumable.

    Raises:
        UserError: one line where raw files or encoders are gone or changed.
    """
    if config.data.reader == RELEASE:
        from data_pipeline.release import convert, inventory

        root = Path(config.data.root)
        try:
            made_from = {"release": inventory.fingerprint(root)}
        except UserError as error:
            raise _unable(store, needs, error) from None
        extension = StoreExtension(store, made_from)
        convert.write_sequences(root, store, extension, needs)
        return extension.add({})
    try:
        check(config)
        check_texts(config.text)
        corpus = read_corpus(config)
        encoders = Encoders(encoder_settings(config))
        weights = {_ENCODER[need]: _fingerprint(encoders, store, need) for need in needs}
    except UserError as error:
        raise _unable(store, needs, error) from None
    same_mentions(store, [mention.id for mention in corpus.mentions])
    settings = {"needs": list(needs), "weights": weights, "tokens": config.encoders.max_tokens}
    extension = StoreExtension(store, settings)
    report: dict[str, Any] = {}
    if "tokens" in needs:
        report["tokens"] = _tokens(config, corpus, encoders, extension)
    if "regions" in needs:
        report["regions"] = _regions(corpus, encoders, store, extension)
    return extension.add(report)


def _unable(store: Store, needs: Sequence[str], error: Exception) -> UserError:
    flags = " ".join(FLAGS[need] for need in needs)
    return UserError(
        f"{store.path}: holds no {' and no '.join(needs)} of the mentions; "
        f"python -m drin_jax.extract with {flags} adds them from the raw files, but: {error}"
    )


def check_limit(config: ConfigDict, store: Store, needs: Collection[str]) -> None:
    """UserError where encoders.max_tokens is out of range or not what the store's tokens have."""
    limit = config.encoders.max_tokens
    if "tokens" not in needs:
        return
    if not 3 <= limit <= schema.MAX_TOKENS:
        raise UserError(f"encoders.max_tokens is {limit}; it must be 3 to {schema.MAX_TOKENS}")
    made = store.report.get("tokens", {}).get("limit", limit)
    if made != limit:
        raise UserError(
            f"{store.path}: its mentions have at most {made} tokens, and encoders.max_tokens is "
            f"{limit}; use the same, or another --workdir or data.store"
        )


def _fingerprint(encoders: Encoders, store: Store, need: str) -> str:
    name = _ENCODER[need]
    if not getattr(encoders.settings, name):
        raise UserError(f"encoders.{name} is not set")
    found = str(getattr(encoders, name).fingerprint)
    if store.made_from.get(WEIGHTS, {}).get(name, found) != found:
        raise UserError(f"encoders.{name} is another checkpoint than the one it was made with")
    return found


def _tokens(
    config: ConfigDict, corpus: Corpus, encoders: Encoders, extension: StoreExtension
) -> dict[str, int]:
    mentions, encoder, limit = corpus.mentions, encoders.text, config.encoders.max_tokens
    counts: list[np.ndarray] = []
    spans: list[np.ndarray] = []
    for begin in range(0, len(mentions), ROWS):
        count, span = encoder.token_counts(*_texts(config, corpus, begin, begin + ROWS), limit)
        counts.append(count)
        spans.append(span)
    offsets = offsets_of(np.concatenate(counts))
    extension.write("mention_token_offsets", offsets)
    extension.write("mention_span", np.concatenate(spans))
    total = int(offsets[-1])
    table = extension.shards("mention_tokens", (total, encoder.width), "float32", TOKENS_PER_SHARD)
    missing = table.missing()
    bar = Progress("encoding mention tokens", table.count, table.count - len(missing), "shards")
    with bar:
        for shard in missing:
            low, high = shard * TOKENS_PER_SHARD, min((shard + 1) * TOKENS_PER_SHARD, total)
            # The mentions that the shard's rows belong to; those at its ends are shared.
            first = int(np.searchsorted(offsets, low, "right")) - 1
            last = int(np.searchsorted(offsets, high, "left"))
            rows = encoder.encode_tokens(*_texts(config, corpus, first, last), limit)
            begin = low - int(offsets[first])
            table.write(shard, rows[begin : begin + high - low])
            bar.advance()
    table.finish()
    return {"limit": limit, "tokens": total, "longest": int(np.diff(offsets).max())}


def _texts(
    config: ConfigDict, corpus: Corpus, begin: int, end: int
) -> tuple[list[str], list[Span]]:
    pairs = [mention_text(config.text.mention, m) for m in corpus.mentions[begin:end]]
    return [text for text, _ in pairs], [span for _, span in pairs]


def _regions(
    corpus: Corpus, encoders: Encoders, store: Store, extension: StoreExtension
) -> dict[str, int]:
    """Of every unique mention picture that the store's own pass could read."""
    has = np.asarray(store.array("mention_has_image"))
    number: dict[str, int] = {}
    row = np.full(len(has), schema.PADDING, np.int32)
    for i in np.flatnonzero(has).tolist():
        image = corpus.mentions[i].image
        if image is None:
            raise UserError(f"{store.path}: the picture of mention {i} is gone from the raw files")
        row[i] = number.setdefault(image, len(number))
    paths = list(number)
    extension.write("mention_region_row", row)
    side = encoders.plan.looks["image"].height
    probe = encoders.image.encode(np.zeros((0, side, side, 3), np.uint8), regions=True)["regions"]
    shape = (len(paths), *probe.shape[1:])
    table = extension.shards("mention_regions", shape, "float32", PICTURES_PER_SHARD)
    missing = table.missing()

    def shards() -> Iterator[list[str]]:
        for shard in missing:
            yield paths[shard * PICTURES_PER_SHARD : (shard + 1) * PICTURES_PER_SHARD]

    bar = Progress("encoding mention regions", table.count, table.count - len(missing), "shards")
    with bar:
        encoded = encoders.regions(shards(), len(missing) * PICTURES_PER_SHARD)
        for shard, rows in zip(missing, encoded, strict=True):
            table.write(shard, rows)
            bar.advance()
    table.finish()
    return {"pictures": len(paths)}
