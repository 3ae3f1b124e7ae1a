"""Retrieval by statistics: the sum as documented, and no mention that votes for itself."""

import dataclasses
import math
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from rapidfuzz import fuzz
from rapidfuzz.utils import default_process

from data_pipeline import readers
from data_pipeline.retrieval import statistics as stage
from data_pipeline.retrieval.statistics import Votes, Weights, by_statistics
from data_pipeline.schema import PADDING, Corpus, Entity, Mention, UserError
from tests.support.paths import SHARED
from tests.support.tolerance import assert_close

WIKIMEL = SHARED / "data" / "wikimel"
WORDS = ["red", "green", "blue", "Oak", "elm", "ash", "fox", "hare", "Owl", "carp"]


def mention(i: int, name: str, gold: str | None, split: str = "train", **other: Any) -> Mention:
    given = {"text": f"text {i}", "sample": f"s{i}", **other}
    return Mention(id=f"m{i}", name=name, start=None, end=None, split=split, gold=gold, **given)


def world(n: int = 60, seed: int = 0) -> Corpus:
    """Random names, descriptions and sentences of few words; some texts and samples are shared."""
    rng = np.random.default_rng(seed)

    def some(count: int) -> str:
        return " ".join(rng.choice(WORDS, count))

    entities = [Entity(f"Q{i}", some(2), some(int(rng.integers(6)))) for i in range(25)]
    mentions = []
    for i in range(n):
        gold = None if i % 9 == 0 else "gone" if i % 11 == 0 else f"Q{rng.integers(25)}"
        split = ("train", "train", "train", "valid", "test")[i % 5]
        text, sample = some(int(rng.integers(4))), f"s{i // 2}"
        mentions.append(mention(i, rng.choice(WORDS), gold, split, text=text, sample=sample))
    return Corpus("world", entities, mentions, {}, {})


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


def scores_by_definition(corpus: Corpus, weights: Weights) -> np.ndarray:
    """[N,E], the formulas of the docstrings, one pair after the other."""
    have = [words(f"{e.name} {e.description}") for e in corpus.entities]
    holders = Counter(word for own in have for word in own)
    total, mean = len(have), sum(map(len, have)) / len(have)
    idf = {w: math.log(1 + (total - n + 0.5) / (n + 0.5)) for w, n in holders.items()}
    k, b = stage.SATURATION, stage.LENGTH
    out = np.zeros((len(corpus.mentions), total))
    for i, m in enumerate(corpus.mentions):
        votes = Counter(
            other.gold
            for other in corpus.mentions
            if other.split == "train"
            and other.name.casefold() == m.name.casefold()
            and other.sample != m.sample
            and other.text != m.text
            and other.gold in {e.id for e in corpus.entities}
        )
        asked = words(m.text) & idf.keys()
        attainable = sum(idf[w] for w in asked) * (1 + k) / (1 + k * (1 - b))
        for j, entity in enumerate(corpus.entities):
            gain = (1 + k) / (1 + k * (1 - b + b * len(have[j]) / mean))
            shared = gain * sum(idf[w] for w in asked & have[j])
            out[i, j] = (
                weights.name * fuzz.WRatio(m.name, entity.name, processor=default_process) / 100
                + weights.prior * votes[entity.id] / (sum(votes.values()) + weights.smoothing)
                + weights.words * (shared / attainable if shared else 0)
            )
    return out


@pytest.mark.parametrize(
    "weights",
    [Weights(), Weights(1, 0, 0), Weights(0, 1, 0, 0.5), Weights(0, 0, 1), Weights(0.3, 2, 3, 4)],
)
def test_the_order_is_that_of_the_documented_sum(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = world()
    expected = scores_by_definition(corpus, weights)
    rows, scores = by_statistics(corpus, 25, weights=weights)
    assert (rows.dtype, scores.dtype) == (np.int32, np.float32)
    assert (np.sort(rows, axis=1) == np.arange(25)).all()  # the pool is everything, each once
    assert_close(scores, np.take_along_axis(expected, rows, 1))
    falls, rises = scores[:, :-1] > scores[:, 1:], rows[:, :-1] < rows[:, 1:]
    assert (falls | ((scores[:, :-1] == scores[:, 1:]) & rises)).all()
    monkeypatch.setattr(stage, "CHUNK_PAIRS", 700)  # blocks of a few mentions
    monkeypatch.setattr(stage, "PRODUCTS", 30)
    for ours, small in zip((rows, scores), by_statistics(corpus, 25, weights=weights), strict=True):
        np.testing.assert_array_equal(ours, small)


def test_a_short_row_is_the_beginning_of_a_long_one() -> None:
    long, short = (by_statistics(world(), r) for r in (25, 4))
    np.testing.assert_array_equal(long[0][:, :4], short[0])
    np.testing.assert_array_equal(long[1][:, :4], short[1])


# ---- what may vote -----------------------------------------------------------------------------


def test_votes_are_of_other_samples_and_texts_with_the_same_surface() -> None:
    entities = [Entity("Q0", "a", ""), Entity("Q1", "b", "")]
    mentions = [
        mention(0, "Powers", "Q0"),
        mention(1, "powers ", "Q0"),
        mention(2, "POWERS", "Q1"),
        mention(3, "Powers", "Q1", sample="s2"),
        mention(4, "Powers", "Q1", text="text 2"),
        mention(5, "Powers", "Q1", text="text 2", sample="s2"),
        mention(6, "Power", "Q0"),
        mention(7, "Powers", "gone"),
        mention(8, "Powers", None),
        mention(9, "Powers", "Q0", "valid"),
        mention(10, "Powers", "Q0", "test"),
    ]
    votes = Votes(Corpus("c", entities, mentions, {}, {}))
    assert votes.prior(mentions[0], 0) == {0: 1 / 5, 1: 4 / 5}  # not its own
    assert votes.prior(mentions[2], 0) == {0: 1}  # nor those of its sample or its text
    assert votes.prior(mentions[3], 0) == {0: 2 / 3, 1: 1 / 3}  # its sample has three
    assert votes.prior(mentions[4], 1) == {0: 2 / 4, 1: 1 / 4}
    assert votes.prior(mentions[10], 2) == {0: 2 / 8, 1: 4 / 8}  # all six; none of valid and test
    assert votes.prior(mentions[6], 1) == {}
    assert votes.prior(mention(11, "Nobody", None, "test"), 1) == {}


def test_no_mention_knows_its_own_gold() -> None:
    """Whatever its gold is changed to, of whatever split, its own candidates stay the same."""
    corpus = world()
    rows, scores = by_statistics(corpus, 6, weights=Weights(0.1, 5, 0.1))
    others_moved = 0
    for i in range(0, len(corpus.mentions), 4):
        changed = list(corpus.mentions)
        changed[i] = dataclasses.replace(changed[i], gold="Q7" if changed[i].gold != "Q7" else "Q8")
        again = by_statistics(
            dataclasses.replace(corpus, mentions=changed), 6, weights=Weights(0.1, 5, 0.1)
        )
        np.testing.assert_array_equal(again[0][i], rows[i])
        np.testing.assert_array_equal(again[1][i], scores[i])
        moved = (again[1] != scores).any()
        others_moved += int(moved)
        assert not moved or changed[i].split == "train"
    assert others_moved  # so the prior was at work


# ---- the pool ----------------------------------------------------------------------------------


def test_words_and_votes_bring_in_whom_the_name_does_not() -> None:
    entities = [Entity(f"Q{i}", f"Anna {i}", "") for i in range(40)]
    entities += [Entity("by words", "Zyx", "cellist of Bergen"), Entity("by votes", "Qqq", "")]
    mentions = [
        mention(0, "Anna", None, "test", text="Anna, the cellist, in Bergen"),
        mention(1, "Anna", "by votes", text=""),
    ]
    corpus = Corpus("c", entities, mentions, {}, {})
    rows, _ = by_statistics(corpus, 5, weights=Weights(0.01, 1, 1), names_pool=5)
    assert set(rows[0, :2].tolist()) == {40, 41}
    assert rows[0, 2:].tolist() == [0, 1, 2]  # the fallback: names, ties in the entities' order
    assert rows[1].tolist() == [0, 1, 2, 3, 4]
    alone, scores = by_statistics(corpus, 5, names_pool=0)
    assert set(alone[0, :2].tolist()) == {40, 41}
    assert alone[0, 2:].tolist() == [PADDING] * 3
    assert scores[0, 2:].tolist() == [0, 0, 0]
    assert alone[1].tolist() == [PADDING] * 5


def test_common_words_find_nobody_but_count() -> None:
    """Half of 60 entities are actors, three of them from Oslo."""
    descriptions = ["actor Oslo" if i % 20 == 4 else "actor" if i % 2 else "" for i in range(60)]
    entities = [Entity(f"Q{i}", f"n{i}", text) for i, text in enumerate(descriptions)]
    given = [mention(0, "?", None, text="an actor"), mention(1, "?", None, text="actor of Oslo")]
    corpus = Corpus("c", entities, given, {}, {})
    rows, scores = by_statistics(corpus, 4, names_pool=0)
    assert rows.tolist() == [[PADDING] * 4, [4, 24, 44, PADDING]]
    top = by_statistics(corpus, 60, names_pool=60)[1]
    assert top[0, 0] > top[0, -1] == 0  # an actor before the others, though the pool is of names
    assert top[1, 0] == scores[1, 0]


def test_nothing_to_retrieve_is_padding() -> None:
    corpus = world(3)
    rows, scores = by_statistics(dataclasses.replace(corpus, entities=[]), 2)
    assert rows.tolist() == [[PADDING, PADDING]] * 3
    assert not scores.any()
    assert by_statistics(dataclasses.replace(corpus, mentions=[]), 2)[0].shape == (0, 2)
    blank = [Entity("Q0", "", ""), Entity("Q1", "", "")]
    assert (
        by_statistics(dataclasses.replace(corpus, entities=blank), 3)[0][:, 2].tolist()
        == [PADDING] * 3
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"r": 0}, "retrieval.r is 0"),
        ({"scorer": "wratio"}, "known are WRatio"),
        ({"weights": Weights(prior=-1)}, "retrieval weight prior = -1"),
        ({"weights": Weights(smoothing=math.nan)}, "retrieval weight smoothing = nan"),
        ({"weights": Weights(0, 0, 0)}, "are all 0"),
        ({"names_pool": 0, "words_pool": 0}, "one must be above"),
        ({"names_pool": -1}, "neither may be below 0"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        by_statistics(world(3), **{"r": 2, **options})


def test_long_work_says_what_it_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    by_statistics(world(), 3)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(stage, "QUIET_MENTIONS", 0)
    by_statistics(world(), 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == "candidates by shared words: 60 mentions x 25 entities"
    assert err.splitlines()[-1].startswith("candidates by statistics: 60/60 mentions in ")


@pytest.mark.skipif(
    not (WIKIMEL / "Wikidata-MEL.json").is_file(), reason=f"no WikiMEL under {WIKIMEL}"
)
def test_real_text_retrieves_as_measured() -> None:
    """200 test mentions, 1,000 of training, without names in the pool (they take minutes)."""
    corpus = readers.read("wikimel", WIKIMEL, name="wikimel", split="disjoint", valid_fraction=0.1)
    parts = {s: [m for m in corpus.mentions if m.split == s] for s in ("test", "train")}
    asked = dataclasses.replace(corpus, mentions=parts["test"][:200] + parts["train"][:1000])
    row_of = {entity.id: row for row, entity in enumerate(corpus.entities)}
    gold = np.array([row_of[m.gold or ""] for m in asked.mentions[:200]])
    rows, _ = by_statistics(asked, 100, names_pool=0)
    hits = [int((rows[:200, :k] == gold[:, None]).any(axis=1).sum()) for k in (1, 10, 100)]
    assert hits == [164, 192, 195]
