"""Which mention trains, which validates, which tests, and what they may not share.

Two mentions share content where they have the same sample, the same text (character for character)
or the same picture. Public data sets hold such pairs on both sides of their split; `disjoint` takes
them out of training, and `clean` marks the mentions that have none.
"""

import dataclasses
import hashlib
from collections.abc import Collection, Iterator, Sequence

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from data_pipeline.schema import Mention, UserError, check_known

MODES = ("disjoint", "published")


def assign(
    mentions: Sequence[Mention], *, mode: str, valid_fraction: float
) -> tuple[list[Mention], dict[str, int]]:
    """The mentions that stay, in their order, with final `split` and `clean`; and what was counted.

    Args:
        mentions: with their published splits; "train" also where only test was published.
        mode: "disjoint" drops training mentions that share content with valid or test, and valid
            mentions that share content with test; "published" drops none.
        valid_fraction: share of the training samples that becomes valid, in [0, 1), where no
            mention is published as valid; else not used.

    Raises:
        UserError: unknown mode, or fraction out of range.
    """
    check_known("data.split", mode, MODES)
    if not 0 <= valid_fraction < 1:
        raise UserError(f"data.valid_fraction = {valid_fraction} must be in [0, 1)")
    kept = list(mentions)
    if not any(mention.split == "valid" for mention in kept):
        kept = hold_out(kept, valid_fraction)
    kept = mark_clean(kept)
    counts = {}
    if mode == "disjoint":
        kept, counts["dropped_shared_with_test"] = _drop(kept, {"train", "valid"}, "test")
        kept, counts["dropped_shared_with_valid"] = _drop(kept, {"train"}, "valid")
    return kept, counts


def hold_out(mentions: Sequence[Mention], fraction: float) -> list[Mention]:
    """Moves about `fraction` of the training mentions to "valid", by a hash that no seed changes.

    Mentions that share content, directly or through others, move together; so a mention is on the
    same side in every mode and on every machine, whatever the order of the file.
    """
    group = groups([mention for mention in mentions if mention.split == "train"])
    return [
        dataclasses.replace(mention, split="valid")
        if mention.split == "train" and uniform(group[mention.sample]) < fraction
        else mention
        for mention in mentions
    ]


def mark_clean(mentions: Sequence[Mention]) -> list[Mention]:
    """Sets `clean`: no mention of another split shares sample, text or picture.

    To be asked before anything is dropped: a mention whose double was dropped from training is
    still one that published systems saw in training.
    """
    splits: dict[str, set[str]] = {}
    for mention in mentions:
        for trace in _traces(mention):
            splits.setdefault(trace, set()).add(mention.split)
    return [
        dataclasses.replace(mention, clean=all(len(splits[t]) == 1 for t in _traces(mention)))
        for mention in mentions
    ]


def _drop(
    mentions: Sequence[Mention], losing: Collection[str], kept_split: str
) -> tuple[list[Mention], int]:
    """Drops the samples of the `losing` splits that share content with `kept_split`, whole."""
    traces = {t for mention in mentions if mention.split == kept_split for t in _traces(mention)}
    samples = {
        mention.sample
        for mention in mentions
        if mention.split in losing and not traces.isdisjoint(_traces(mention))
    }
    stay = [m for m in mentions if m.split not in losing or m.sample not in samples]
    return stay, len(mentions) - len(stay)


def _traces(mention: Mention) -> Iterator[str]:
    """What a mention may share with another, as strings that differ by kind."""
    yield f"sample {mention.sample}"
    if mention.text.strip():  # mentions without a text do not share one
        yield f"text {mention.text}"
    if mention.image is not None:
        yield f"image {mention.image}"


def groups(mentions: Sequence[Mention]) -> dict[str, str]:
    """Maps each sample to the smallest sample id it is connected to by shared content."""
    node: dict[str, int] = {}
    traces = [[node.setdefault(t, len(node)) for t in _traces(mention)] for mention in mentions]
    ends = np.array([(own[0], other) for own in traces for other in own], int).reshape(-1, 2).T
    graph = sparse.coo_array((np.ones(ends.shape[1], bool), ends), (len(node), len(node)))
    group = csgraph.connected_components(graph, directed=False)[1]
    sample_of = {mention.sample: own[0] for mention, own in zip(mentions, traces, strict=True)}
    smallest: dict[int, str] = {}
    for sample in sorted(sample_of):
        smallest.setdefault(group[sample_of[sample]], sample)
    return {sample: smallest[group[first]] for sample, first in sample_of.items()}


def uniform(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
