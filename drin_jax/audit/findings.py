"""What a data set and its graphs are worth: each finding a line to read, and its numbers."""

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data_pipeline import schema
from data_pipeline.schema import Corpus, UserError
from data_pipeline.store.reader import Store
from drin_jax.audit.noise_floor import Structure, measure
from drin_jax.evaluation.evaluate import SplitView
from drin_jax.evaluation.ranks import slot_counts
from drin_jax.extract.corpus import read_corpus
from drin_jax.extract.stored import RELEASE
from drin_jax.training.setup import model_fields

Finding = dict[str, Any]


def _finding(name: str, message: str, /, **values: Any) -> Finding:
    """`message` with the values in their places, and the values."""
    return {"finding": name, "message": message.format(**values), **values}


def statistics(corpus: Corpus, split: str) -> Finding:
    """The rows of the paper's Table 1 for one split: samples, mentions, text length, entities."""
    mentions = [m for m in corpus.mentions if m.split == split]
    samples = {m.sample: m.text for m in mentions}
    words = [len(text.split()) for text in samples.values()]
    return _finding(
        f"statistics/{split}",
        f"{split}: {{samples}} samples, {{mentions}} mentions ({{mentions_per_sample:.2f}} a "
        "sample), {words_per_text:.1f} words a text, {gold_entities} gold entities, NIL {nil}, "
        "with picture {mentions_with_picture}, not in their text {span_not_found}",
        samples=len(samples),
        mentions=len(mentions),
        mentions_per_sample=len(mentions) / max(len(samples), 1),
        words_per_text=float(np.mean(words)) if words else 0.0,
        gold_entities=len({m.gold for m in mentions if m.gold is not None}),
        mentions_with_picture=sum(m.image is not None for m in mentions),
        nil=sum(m.gold is None for m in mentions),
        span_not_found=sum(m.start is None for m in mentions),
    )


def overlap(corpus: Corpus) -> Finding:
    """What the test mentions share with training."""
    test = [m for m in corpus.mentions if m.split == "test"]
    train = [m for m in corpus.mentions if m.split in ("train", "valid")]

    def shared(key: Any) -> int:
        seen = {key(m) for m in train} - {None}
        return sum(key(m) in seen for m in test)

    clean, golds = sum(m.clean for m in test), shared(lambda m: m.gold)
    clean_share, gold_share = (
        f"{100 * part / len(test):.1f} %" if test else "none" for part in (clean, golds)
    )
    return _finding(
        "overlap",
        "of {test} test mentions {same_sample} share their sample, {same_text} their text and "
        "{same_picture} their picture with train or valid as used here; {clean} "
        f"({clean_share}) share none with any other published mention (the clean subset); the "
        f"gold of {gold_share} is a training gold",
        test=len(test),
        same_sample=shared(lambda m: m.sample),
        same_text=shared(lambda m: m.text),
        same_picture=shared(lambda m: m.image),
        same_gold=golds,
        clean=clean,
    )


def knowledge_base(corpus: Corpus) -> Finding:
    """Missing descriptions and pictures, names and texts that several entities share."""
    entities = corpus.entities
    names = Counter(e.name for e in entities)
    texts = Counter((e.name, e.description) for e in entities)
    return _finding(
        "knowledge_base",
        "knowledge base: {entities} entities; without description {without_description}, without "
        "picture {without_picture}; {sharing_name} share their name, "
        "{sharing_name_and_description} name and description (no text can tell those apart)",
        entities=len(entities),
        without_description=sum(not e.description.strip() for e in entities),
        without_picture=sum(e.image is None for e in entities),
        sharing_name=sum(n for n in names.values() if n > 1),
        sharing_name_and_description=sum(n for n in texts.values() if n > 1),
    )


def retrieval(store: Store, split: str, r: int) -> list[Finding]:
    """Recall of a split and its duplicate candidates."""
    view = SplitView.of(store, split, r)
    recall = view.recall()
    shown = ", ".join(f"@{name.split('@')[1]} {100 * v:.1f}" for name, v in recall.items())
    candidates = np.asarray(store.array(f"{split}_candidates"))[:, : r or None]
    ordered = np.sort(candidates, 1)
    repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != schema.PADDING)
    method = store.made_from.get("retrieval.method", "given")
    tied = slot_counts(view.retrieval_score, view.gold, view.candidates).tied > 0
    return [
        _finding(
            f"retrieval/{split}",
            f"{split}: retrieval recall {shown}; gold not retrieved {{gold not retrieved}}, "
            "outside the knowledge base {gold outside the knowledge base}, NIL {NIL}; the gold's "
            f"score in the first stage ({method}) is tied in {{tied_golds}} of {{answerable}} "
            "answerable",
            recall=recall,
            tied_golds=int(np.sum(tied & (view.gold >= 0))),
            **view.counts(),
        ),
        _finding(
            f"duplicates/{split}",
            f"{split}: {{mentions}} mentions have one candidate twice",
            mentions=int(repeated.any(1).sum()),
        ),
    ]


def noise_floor(store: Store, config: ConfigDict) -> Finding:
    """Held-out accuracy of a model of this config on noise, against chance."""

    def graphs(split: str) -> Structure:
        view = SplitView.of(store, split, config.graph.r)
        real, pictured = view.candidates, np.asarray(store.array("mention_has_image"))
        rows = np.maximum(store.array(f"{split}_candidates")[:, : real.shape[1]], 0)
        of_text, of_image = (
            np.asarray(store.array(f"entity_has_{kind}"))[rows] & real for kind in ("text", "image")
        )
        return Structure(
            real, of_text, of_image, pictured[store.array(f"{split}_mention")], view.gold
        )

    floor = measure(
        graphs("train"),
        Structure(*map(np.concatenate, zip(graphs("valid"), graphs("test"), strict=True))),
        gold_slot=config.graph.gold_slot == "upstream",
        loss_form=config.loss.form,
        margin=config.loss.margin,
        seed=config.seed,
        **model_fields(config),
    )
    protocol = "gold in graph" if floor.gold_slot else "gold never in graph unless retrieved"
    inside = "inside" if floor.at_chance else "OUTSIDE: the graph itself gives the gold away"
    message = (
        f"noise floor ({protocol}): on pure noise {100 * floor.accuracy:.1f} % of {{trials}} "
        f"held-out mentions are right (95 % interval {100 * floor.low:.1f} to "
        f"{100 * floor.high:.1f}); chance {100 * floor.chance:.1f} % is {inside}"
    )
    values = dataclasses.asdict(floor) | {"gold_slot": config.graph.gold_slot}
    return _finding("noise_floor", message, at_chance=floor.at_chance, **values)


def data_findings(config: ConfigDict, store: Store) -> list[Finding]:
    """All findings but the noise floor, which takes minutes; without the raw files only what the
    store itself tells."""
    found: list[Finding] = []
    if config.data.reader != RELEASE:
        try:
            corpus = read_corpus(config)
            found = [statistics(corpus, split) for split in schema.SPLITS]
            found += [overlap(corpus), knowledge_base(corpus)]
        except UserError as error:
            found = [_finding("raw files", "the raw files are not read: {error}", error=str(error))]
    for split in schema.SPLITS:
        if store.splits[split]:
            found += retrieval(store, split, config.graph.r)
    counts = store.report.get("counts", {}).items()
    return found + [_finding(f"counts/{k}", f"{k}: {{count}}", count=n) for k, n in counts]
