"""Relations between mentions and candidates, each worked out by hand or plainly, pair by pair."""

from pathlib import Path

import numpy as np
import pytest
from rapidfuzz import fuzz

from data_pipeline.kb.folded_names import fold
from data_pipeline.kb.knowledge_base import KnowledgeBase
from data_pipeline.relations import hashed, memory
from data_pipeline.relations.association import FOLDS, HALF, LEAST, folds
from data_pipeline.relations.evidence import (
    Relations,
    Remembered,
    Retrieved,
    components,
    scale_of,
    standardised,
)
from data_pipeline.relations.memory import MOST
from data_pipeline.relations.sides import Rarities, years
from data_pipeline.schema import (
    CUT,
    EVIDENCE,
    EVIDENCE_COLUMNS,
    LIFE,
    NEAR,
    PADDING,
    READ_GOLDS,
    Mention,
)
from tests.support import bases
from tests.support.bases import entity
from tests.support.tolerance import assert_close

ENTITIES = [
    entity("Q0", "Michael Jordan", "American basketball player, born 1963"),
    entity("Q1", "Michael Jordan (mycologist)", "English mycologist of fungi, 1947 to 2020"),
    entity("Q2", "Jordan", "country in the Middle East"),
    entity("Q3", "Chicago Bulls", "basketball team founded 1966"),
    entity("Q4", "Scottie Pippen", "basketball player of the Chicago Bulls, born 1965"),
]
CANDIDATES = [0, 1, 2, PADDING]
VECTORS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0], [0.8, 0.6, 0]], np.float32)
OWN = np.array([0.8, 0.6, 0], np.float32)  # the frozen vector of every mention


def mention(i: int, text: str, name: str, sample: str = "", image: str | None = None) -> Mention:
    begin = text.index(name)
    return Mention(
        f"m{i}", text, name, begin, begin + len(name), "train", sample or f"s{i}", None, image
    )


# Their golds are TRAINED; the first two share a sample, the last two a picture.
TRAINING = [
    mention(0, "Jordan scored for Chicago in basketball", "Jordan", "one"),
    mention(1, "Fans saw Jordan in the basketball arena", "Jordan", "one"),
    mention(2, "Jordan wrote of fungi and basketball", "Jordan"),
    mention(3, "The Bulls won in basketball", "Bulls", image="a.jpg"),
    mention(4, "Pippen plays basketball", "Pippen", image="a.jpg"),
]
TRAINED = np.array([0, 0, 1, 3, 4])
ASKED = mention(9, "In 1998 Michael Jordan beat Scottie Pippen in basketball", "Jordan", "new")


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    return bases.build(tmp_path_factory.mktemp("relations") / "kb", ENTITIES)


def relations_of(kb: KnowledgeBase, training: list[Mention], golds: np.ndarray) -> Relations:
    t = len(training)
    return Relations(
        kb,
        VECTORS,
        Remembered(
            training,
            golds,
            components(training),
            np.tile(np.array(CANDIDATES), (t, 1)),
            np.tile(OWN, (t, 1)),
            Rarities.of(kb),
        ),
    )


def values_of(
    relations: Relations,
    one: Mention,
    component: np.ndarray | None = None,
    rows: list[int] = CANDIDATES,
    pictures: bool = False,
) -> dict[str, np.ndarray]:
    """Value -> [r] of one mention with these candidates."""
    r = len(rows)
    edges = np.linspace(0.1, 0.9, 4 * r, dtype=np.float32).reshape(1, 4, r)
    retrieved = Retrieved(np.array([rows]), np.linspace(1, 0.5, r)[None], edges)
    m = relations.mentions([one], OWN[None], component)
    found = relations(m, retrieved, np.full((1, r, 2), pictures))
    assert found.shape == (1, r, len(EVIDENCE_COLUMNS))
    names = [value for values in EVIDENCE.values() for value in values]
    return dict(zip(names, found[0].T, strict=True))


@pytest.fixture(scope="module")
def known(kb: KnowledgeBase) -> dict[str, np.ndarray]:
    """Of the mention that is asked for, after all training."""
    return values_of(relations_of(kb, TRAINING, TRAINED), ASKED)


def test_every_value_has_a_name_of_its_own() -> None:
    names = [value for values in EVIDENCE.values() for value in values]
    assert len(set(names)) == len(names) == len(EVIDENCE_COLUMNS)


def test_nothing_is_known_of_what_is_no_candidate(known: dict[str, np.ndarray]) -> None:
    assert all(np.isnan(values[3]) for values in known.values())


def test_names(known: dict[str, np.ndarray]) -> None:
    names = ["michael jordan", "michael jordan", "jordan"]
    assert known["surface is the name"][:3].tolist() == [0, 0, 1]
    assert known["form is the name"][:3].tolist() == [1, 1, 0]
    assert known["surface is last"][:3].tolist() == [1, 1, 1]
    assert known["form is first"][:3].tolist() == [1, 1, 0]
    assert known["surface words fewer"][:3].tolist() == [1, 1, 0]
    assert known["form words fewer"][:3].tolist() == [0, 0, -1]
    for kind, asked in (("surface", "jordan"), ("form", "michael jordan")):
        for scorer in (fuzz.ratio, fuzz.token_set_ratio):
            wanted = [scorer(asked, name) / 100 for name in names]
            assert_close(known[f"{kind} {scorer.__name__}"][:3], np.array(wanted))
    assert known["form trigrams"][0] == pytest.approx(1, abs=1e-6)


def weighed(weights: np.ndarray, text: str, form: str = "") -> dict[str, float]:
    """The words of a text but those of a form, with what they weigh."""
    own = set(fold(form).split())
    return {w: weights[hashed.column(w)] for w in fold(text).split() if w not in own}


def cosine(a: dict[str, float], b: dict[str, float]) -> float:
    dot = sum(a[w] * b[w] for w in a.keys() & b.keys())
    return float(dot / np.sqrt(sum(x**2 for x in a.values()) * sum(x**2 for x in b.values())))


def test_words(kb: KnowledgeBase, known: dict[str, np.ndarray]) -> None:
    """The text has "in" and "basketball", of which each candidate has one or none."""
    weights = Rarities.of(kb).words
    asked = weighed(weights, ASKED.text, "Michael Jordan")
    described = [weighed(weights, f"{one.name} {one.description}") for one in ENTITIES[:3]]
    shared = np.array([cosine(asked, one) for one in described])
    assert (shared > 0).tolist() == [True, False, True]
    assert_close(known["words shared"][:3], shared)
    assert_close(known["words shared, best"][:3], shared - shared.max())
    assert_close(known["name in the text"][:3], np.ones(3))
    assert known["title in the text"][:3].tolist() == [0, 0, 0]  # "mycologist" is not there
    around = known["name around"][:3]
    assert 0 < around[0] == around[1] < 1  # Michael, not Jordan
    assert around[2] == 0


def test_years(known: dict[str, np.ndarray]) -> None:
    """The text says 1998; the first was born in 1963, the second lived from 1947 to 2020."""
    assert years("from 1998 to 2004, 12345 and 999") == (1998, 2004)
    assert_close(known["age"][:2] * LIFE, np.array([35, 51]))
    assert np.isnan(known["age"][2])
    assert known["year known"][:3].tolist() == [1, 1, 0]
    assert known["last year known"][:3].tolist() == [0, 1, 0]
    assert known["year named"][:2].tolist() == [0, 0]
    assert known["older than a life"][:2].tolist() == [0, 0]
    assert known["before its time"][0] == pytest.approx(-1 / NEAR)
    assert known["after its time"][1] == pytest.approx(-1 / NEAR)


def test_vectors(known: dict[str, np.ndarray]) -> None:
    assert_close(known["cosine"][:3], np.array([0.8, 0.6, 0]))
    assert_close(known["cosine, best"][:3], np.array([0, -0.2, -0.8]))


def test_pictures_are_known_where_both_ends_have_one(kb: KnowledgeBase) -> None:
    relations = relations_of(kb, [], np.zeros(0, np.int64))
    without, seen = (values_of(relations, ASKED, pictures=there) for there in (False, True))
    edges = np.linspace(0.1, 0.9, 16, dtype=np.float32).reshape(4, 4)
    for i, name in enumerate(("tv", "vt", "vv"), 1):
        assert np.isnan(without[name]).all()
        assert_close(seen[name][:3], edges[i, :3])
        assert_close(seen[f"{name}, best"][:3], edges[i, :3] - edges[i, 2])


def test_votes_are_of_other_training_mentions(kb: KnowledgeBase) -> None:
    relations = relations_of(kb, TRAINING, TRAINED)
    new = values_of(relations, ASKED)
    assert_close(new["votes of the surface"][:3], np.log1p(np.array([2, 1, 0])))
    assert_close(new["share of the surface"][:3], np.array([2, 1, 0]) / 4)
    assert_close(new["named in training"][:3], np.log1p(np.array([2, 1, 0])))
    assert new["votes of the form"][:3].tolist() == [0, 0, 0]  # nobody was called by the full name
    # Two training mentions share a sample: neither sees the other.
    own = components(TRAINING)
    for i in (0, 1):
        seen = values_of(relations, TRAINING[i], own[[i]])
        assert_close(seen["votes of the surface"][:3], np.log1p(np.array([0, 1, 0])))
        assert_close(seen["named in training"][:3], np.log1p(np.array([0, 1, 0])))
    # The last two share a picture.
    seen = values_of(relations, TRAINING[3], own[[3]], [3, 4])
    assert seen["named in training"].tolist() == [0, 0]


def test_exemplars(kb: KnowledgeBase) -> None:
    """The nearest of a candidate's training texts, by the plain cosine of their words."""
    relations = relations_of(kb, TRAINING, TRAINED)
    new = values_of(relations, ASKED)
    assert_close(new["nearest exemplar, vectors"][:2], np.ones(2))
    weights = relations.weights.words
    asked = weighed(weights, ASKED.text, "Michael Jordan")
    likeness = [cosine(asked, weighed(weights, one.text, "Jordan")) for one in TRAINING[:3]]
    wanted = np.array([max(likeness[:2]), likeness[2]])
    assert_close(new["nearest exemplar, words"][:2], wanted)
    assert np.isnan(new["nearest exemplar, words"][2])
    own = components(TRAINING)
    alone = values_of(relations, TRAINING[0], own[[0]])
    assert np.isnan(alone["nearest exemplar, words"][0])  # its sample's other text is no exemplar


def test_neighbours_are_of_other_surface_forms(kb: KnowledgeBase) -> None:
    """Of "Jordan" only the mentions of Bulls and Pippen are neighbours, alike by vectors."""
    relations = relations_of(kb, TRAINING, TRAINED)
    new = values_of(relations, ASKED, rows=[0, 2, 4, PADDING])
    mean = (VECTORS[3] + VECTORS[4]) / 2
    wanted = VECTORS[[0, 2, 4]] @ mean
    assert_close(new["neighbours by vectors: vectors"][:3], wanted)
    apart = np.exp(-np.abs(np.array([1966, 1965]) - 1963) / 20).mean()
    assert new["neighbours by vectors: years"][0] == pytest.approx(apart, rel=1e-5)
    assert np.isnan(new["neighbours by vectors: years"][1])


@pytest.mark.parametrize("width", [40, 41, 700, 20_000])
def test_the_likest_are_those_of_a_sort(width: int) -> None:
    k, rng = memory.NEIGHBOURS, np.random.default_rng(width)
    similar = rng.uniform(-1, 1, (16, width)).astype(np.float32)
    similar[1] = np.round(similar[1], 2)  # ties
    similar[2] = 0.5
    similar[3, k // 2 :] = -np.inf
    similar[4] = similar[5] = 0  # no word in common
    similar[5, : k // 4], similar[5, -k // 4 :] = -np.inf, rng.uniform(0, 1e-4, k // 4)
    noise = rng.uniform(-1e-7, 1e-7, similar.shape).astype(np.float32)
    found = memory.likest(similar, k)
    order = np.argsort(-np.round(similar.astype(np.float64), 5), axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found, order)
    np.testing.assert_array_equal(memory.likest(similar + noise, k)[1:6], order[1:6])


def test_context_is_what_the_text_names_beside(known: dict[str, np.ndarray]) -> None:
    """The text names Scottie Pippen, a basketball player as the first candidate is."""
    assert known["beside it: words"][0] > known["beside it: words"][2]
    assert_close(known["beside it: vectors"][:3], VECTORS[:3] @ VECTORS[4])
    assert known["beside it: years"][0] == pytest.approx(np.exp(-2 / 20))
    assert known["beside it: is named"][:3].tolist() == [0, 0, 0]


def test_association_is_read_from_other_folds(kb: KnowledgeBase) -> None:
    """With one word on either side it is the log odds of its counts, in a training mention's own
    table without its own fold."""
    n = 4 * LEAST
    training = [mention(i, f"Goal of Jordan x{i}", "Jordan") for i in range(n)]
    golds = np.array([0, 2] * (n // 2))
    relations = relations_of(kb, training, golds)
    fold_of = folds(components(training))

    def odds(some: np.ndarray) -> float:
        """Of "goal" with "country", which the third alone has: it is the gold or one of two."""
        is_gold = golds[some] == 2
        return float(np.log((is_gold.sum() + HALF) / ((~is_gold).sum() / 2 + HALF)))

    table = relations.association
    word = table.context[hashed.column("goal")]
    country = table.description[hashed.column("country")]
    for k in range(FOLDS):
        kept = fold_of != k
        assert table.table(k)[word, country] == pytest.approx(odds(kept), rel=1e-5)
    assert table.table(FOLDS)[word, country] == pytest.approx(odds(fold_of >= 0), rel=1e-5)


def test_a_training_mention_never_sees_its_own_gold(kb: KnowledgeBase) -> None:
    """Whatever its gold, and that of its sample, is said to be, nothing it is told changes."""
    own = components(TRAINING)
    told = []
    for gold in (0, 1, 2):
        golds = np.array([gold, gold, *TRAINED[2:]])
        told.append(values_of(relations_of(kb, TRAINING, golds), TRAINING[0], own[[0]]))
    for name in told[0]:
        np.testing.assert_array_equal(told[0][name], told[1][name], err_msg=name)
        np.testing.assert_array_equal(told[0][name], told[2][name], err_msg=name)


def test_one_of_many_training_mentions_never_sees_its_own_gold(kb: KnowledgeBase) -> None:
    """Also where there are more of an entity than are looked at: it takes no other's place."""
    many = [mention(i, f"Jordan and word{i}", "Jordan") for i in range(MOST + 9)]
    many[-1] = mention(MOST + 8, "Jordan and word0", "Jordan")  # alike to the first
    told = []
    for gold in (0, 2):
        golds = np.zeros(len(many), int)
        golds[0] = gold
        relations = relations_of(kb, many, golds)
        told.append(values_of(relations, many[0], components(many)[:1]))
    for name in told[0]:
        np.testing.assert_array_equal(told[0][name], told[1][name], err_msg=name)


def test_without_golds_what_reads_them_is_unknown_and_nothing_else(kb: KnowledgeBase) -> None:
    alone = values_of(relations_of(kb, [], np.zeros(0, np.int64)), ASKED)
    learned = values_of(relations_of(kb, TRAINING, TRAINED), ASKED)
    for relation, values in EVIDENCE.items():
        for value in values:
            if relation in READ_GOLDS:
                assert np.isnan(alone[value]).all(), value
            else:
                np.testing.assert_array_equal(alone[value], learned[value], err_msg=value)


def test_training_mentions_that_are_all_one_component_tell_each_other_nothing(
    kb: KnowledgeBase,
) -> None:
    """Every fold but one is empty then, and what is read of the others is what no count says."""
    one = [mention(i, f"Goal number {i} of Jordan", "Jordan", "one") for i in range(4)]
    relations = relations_of(kb, one, np.array([0, 0, 0, 2]))
    seen = values_of(relations, one[0], components(one)[:1])
    assert seen["association"][:3].tolist() == [0, 0, 0]
    assert np.isnan(seen["nearest exemplar, words"]).all()
    assert seen["votes of the surface"][:3].tolist() == [0, 0, 0]
    assert np.isnan(seen["neighbours by words: years"]).all()


def test_components_are_of_shared_samples_texts_and_pictures() -> None:
    found = components([*TRAINING, ASKED])
    assert found[0] == found[1]
    assert found[3] == found[4]
    assert len(set(found.tolist())) == 4
    same = [mention(7, TRAINING[2].text, "Jordan"), TRAINING[2], ASKED]
    assert len(set(components(same).tolist())) == 2


def test_values_are_standardised_by_what_is_known() -> None:
    values = np.array([[[1, np.nan], [3, np.nan]], [[5, np.nan], [np.nan, np.nan]]], np.float32)
    scale = scale_of(values)
    assert_close(scale, np.array([[3, 0], [np.sqrt(8 / 3), 1]]))
    found = standardised(values, scale)
    assert found.dtype == np.float16
    assert found[1, 1].tolist() == [0, 0]
    assert found[..., 1].tolist() == [[0, 0], [0, 0]]
    assert standardised(np.full((1, 1, 2), 99, np.float32), scale).max() == CUT


def test_a_base_without_descriptions_and_a_mention_without_text(tmp_path: Path) -> None:
    kb = bases.build(tmp_path / "kb", [entity("Q0", "One"), entity("Q1", "Two")])
    none = np.zeros(0, np.int64)
    nothing = Remembered([], none, none, np.zeros((0, 2), int), None, Rarities.of(kb))
    relations = Relations(kb, None, nothing)
    one = Mention("m", "", "One", None, None, "test", "s", None)
    retrieved = Retrieved(np.array([[0, 1]]), np.ones((1, 2)), np.zeros((1, 4, 2)))
    m = relations.mentions([one], None)
    found = relations(m, retrieved, np.zeros((1, 2, 2), bool))
    assert found[0, 0, EVIDENCE_COLUMNS.index("names")] > found[0, 1, 0]
    assert np.isnan(found[..., [c == "vectors" for c in EVIDENCE_COLUMNS]]).all()


def test_where_nothing_tells_the_gold_no_value_does(tmp_path: Path) -> None:
    """Random words, names and golds; mentions of one sample share their gold, which nothing else
    does. Of every value the gold's place among its candidates is as by chance, within 4.5 standard
    errors, for the training mentions themselves."""
    rng = np.random.default_rng(0)
    e, m, r = 60, 600, 8

    def text(n: int) -> str:
        return " ".join(f"w{i}" for i in rng.integers(0, 200, n))

    kb = bases.build(
        tmp_path / "kb",
        [
            entity(f"Q{i}", f"N{rng.integers(20)} n{i}", f"{text(8)} {rng.integers(1900, 2000)}")
            for i in range(e)
        ],
    )
    golds = np.repeat(rng.integers(0, e, m // 3), 3)
    others = np.array([rng.permutation(np.delete(np.arange(e), gold))[: r - 1] for gold in golds])
    rows = np.concatenate([golds[:, None], others], 1)
    place = rng.permuted(np.tile(np.arange(r), (m, 1)), axis=1)
    rows = np.take_along_axis(rows, place, 1)
    mentions = []
    for i in range(m):
        surface = f"N{rng.integers(20)}"
        said = f"{surface} {text(6)} {rng.integers(1900, 2000)}"
        mentions.append(mention(i, said, surface, sample=f"s{i // 3}"))
    vectors = rng.standard_normal((e, 8)).astype(np.float32)
    own_vectors = rng.standard_normal((m, 8)).astype(np.float32)
    own = components(mentions)
    remembered = Remembered(mentions, golds, own, rows, own_vectors, Rarities.of(kb))
    relations = Relations(kb, vectors, remembered)
    asked = relations.mentions(mentions, own_vectors, own)
    retrieved = Retrieved(rows, rng.random((m, r)), rng.random((m, 4, r)).astype(np.float32))
    found = relations(asked, retrieved, np.ones((m, r, 2), bool))
    is_gold = rows == golds[:, None]
    names = [value for values in EVIDENCE.values() for value in values]
    worst = {}
    for k, name in enumerate(names):
        values = np.nan_to_num(found[..., k], nan=0.0)
        mine = values[is_gold][:, None]
        better = ((values > mine).sum(1) + ((values == mine).sum(1) - 1) / 2) / (r - 1)
        # Three mentions of a sample have one gold, so a third of them are draws of their own.
        error = max(better.std(), 1e-9) / np.sqrt(m / 3)
        worst[name] = abs(better.mean() - 0.5) / error if better.std() else 0.0
    assert max(worst.values()) < 4.5, sorted(worst.items(), key=lambda item: -item[1])[:5]
    assert sum(value > 0 for value in worst.values()) > 40  # there is something to leak
