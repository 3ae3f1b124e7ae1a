"""The sample world: made from its seed alone, honest, and of the kinds it promises."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer

from data_pipeline import precomputed, retrieval, sample, sample_encoder, sample_features
from data_pipeline import sample_words as words
from data_pipeline.readers import read
from data_pipeline.sample_pictures import draw
from data_pipeline.sample_world import KINDS, make_entities, make_mentions
from data_pipeline.schema import SPLITS, Corpus, DataError, Entity, Mention

SMALL: dict[str, Any] = {"names": 24, "sizes": (150, 60, 120)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample.generate(tmp_path_factory.mktemp("world") / "sample", seed=3, **SMALL)


@pytest.fixture(scope="module")
def corpus(root: Path) -> Corpus:
    return read("sample", root, name="sample", split="disjoint", valid_fraction=0.1)


@pytest.fixture(scope="module")
def features(root: Path) -> precomputed.Precomputed:
    return precomputed.load(root / "pictures.npz")


def _content(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix != ".npz"  # archives hold the time
    }


def test_the_seed_decides_everything(root: Path, tmp_path: Path) -> None:
    again = sample.generate(tmp_path / "again", seed=3, **SMALL)
    assert _content(again) == _content(root)
    with np.load(again / "pictures.npz") as one, np.load(root / "pictures.npz") as other:
        assert one.files == other.files
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])
    another = sample.generate(tmp_path / "another", seed=4, **SMALL)
    assert _content(another)["mentions.jsonl"] != _content(root)["mentions.jsonl"]


def test_making_it_twice_does_nothing_and_foreign_folders_are_kept(tmp_path: Path) -> None:
    small: dict[str, Any] = {"names": 4, "sizes": (6, 3, 3)}
    root = sample.generate(tmp_path / "sample", **small)
    (root / "mine").touch()
    sample.generate(root, **small)
    assert (root / "mine").exists()
    sample.generate(root, seed=1, **small)  # another world takes its place
    assert not (root / "mine").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]
    with pytest.raises(DataError, match="not the sample"):
        sample.generate(tmp_path, **small)
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "sample"):
        with pytest.raises(DataError, match=r"data\.root") as error:
            sample.generate(place, **small)
        assert "\n" not in str(error.value)


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sample_encoder, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        sample.generate(tmp_path / "sample", names=4, sizes=(6, 3, 3))
    assert not list(tmp_path.iterdir())


def test_splits_share_no_sentence_and_no_picture(corpus: Corpus) -> None:
    assert all(mention.clean for mention in corpus.mentions)
    assert Counter(m.split for m in corpus.mentions) == dict(
        zip(SPLITS, (150, 60, 120), strict=True)
    )
    texts = [mention.text for mention in corpus.mentions]
    assert len(set(texts)) == len(texts)
    pictures = {s: {m.image for m in corpus.mentions if m.split == s and m.image} for s in SPLITS}
    banners = {entity.image for entity in corpus.entities if entity.image}
    for split in SPLITS:
        others = set().union(banners, *(pictures[s] for s in SPLITS if s != split))
        assert pictures[split]
        assert not pictures[split] & others


def test_test_has_wordings_that_training_lacks(corpus: Corpus) -> None:
    def wordings(split: str) -> set[str]:
        known = {e.name for e in corpus.entities}
        slots = {
            w for group in (words.TYPES, words.TOPICS) for v in group.values() for w in v.split()
        }
        slots |= known | {*words.SHAPES, *words.PATTERNS.values()}
        return {
            " ".join("_" if w in slots else w for w in re.findall(r"\w+", m.text)[6:])
            for m in corpus.mentions
            if m.split == split
        }

    assert len(wordings("test") - wordings("train")) > len(wordings("test")) / 3


def test_some_test_entities_are_in_no_training_mention(corpus: Corpus) -> None:
    gold = {s: {m.gold for m in corpus.mentions if m.split == s} for s in SPLITS}
    names = {entity.id: entity.name for entity in corpus.entities}
    unseen = [m for m in corpus.mentions if m.split == "test" and m.gold not in gold["train"]]
    assert 0.1 < len(unseen) / 120 < 0.5
    hidden = {names[g] for g in gold["test"] if g} - {names[g] for g in gold["train"] if g}
    assert sum(m.name in hidden for m in unseen) > len(unseen) / 2


def test_every_kind_is_in_every_split_and_names_collide(corpus: Corpus) -> None:
    kinds = Counter((mention.split, mention.kind) for mention in corpus.mentions)
    assert set(kinds) == {(split, kind) for split in SPLITS for kind in KINDS}
    sizes = Counter(Counter(entity.name for entity in corpus.entities).values())
    assert sizes.keys() <= {3, 4, 5}
    assert all(m.text[m.start : m.end] == m.name for m in corpus.mentions)
    assert any(m.image is None for m in corpus.mentions)
    assert any(e.image is None for e in corpus.entities)


def test_features_are_functions_of_pixels_and_text(
    root: Path, corpus: Corpus, features: precomputed.Precomputed
) -> None:
    """Read back from the files, in another order and one by one, everything is the same."""
    items: list[Entity | Mention] = [*corpus.entities, *corpus.mentions]
    paths = sorted({item.image for item in items if item.image}, reverse=True)[::9]
    rows = features.image_rows(paths)
    assert (rows >= 0).all()
    for path, row in zip(paths, rows, strict=True):
        with Image.open(path) as image:
            measured = sample_features.measure(np.asarray(image)[None])
        np.testing.assert_array_equal(measured.pooled[0], features.pooled[row])
        np.testing.assert_array_equal(measured.objects[0], features.objects[row])
        np.testing.assert_array_equal(measured.object_score[0], features.object_score[row])
        np.testing.assert_array_equal(measured.clip[0], features.clip_image[row])
    texts = [mention.text for mention in corpus.mentions][::-1]
    rows = features.text_rows(texts)
    np.testing.assert_array_equal(sample_features.concepts(texts), features.clip_text[rows])


def test_ids_and_file_names_say_nothing(root: Path, corpus: Corpus) -> None:
    """An entity's place in the file and its id are independent of its name and of its mentions."""
    place = {entity.id: i for i, entity in enumerate(corpus.entities)}
    neighbours = sum(
        a.name == b.name for a, b in zip(corpus.entities, corpus.entities[1:], strict=False)
    )
    assert neighbours < len(corpus.entities) / 10
    golds = [place[m.gold] for m in corpus.mentions if m.gold]
    assert abs(np.mean(golds) / len(place) - 0.5) < 0.08
    order = np.corrcoef(
        [place[e.id] for e in corpus.entities], [int(e.id[1:]) for e in corpus.entities]
    )
    assert abs(order[0, 1]) < 0.3
    for image in (root / "images").iterdir():
        assert re.fullmatch(r"[0-9a-f]{16}\.png", image.name)


def test_names_find_the_gold_and_do_not_rank_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    entities = make_entities(rng, 60)
    mentions = make_mentions(rng, entities, {"train": 1500, "valid": 10, "test": 1500})
    names = [entity.name for entity in entities]
    found, _ = retrieval.by_name(
        names, [names[m.gold] for m in mentions], 10, scorer="WRatio", cache_dir=tmp_path
    )
    gold = np.array([m.gold for m in mentions])
    assert (found == gold[:, None]).any(1).all()
    sizes = Counter(names)
    chance = np.mean([1 / sizes[names[g]] for g in gold])
    assert np.mean(found[:, 0] == gold) == pytest.approx(chance, abs=0.04)


@pytest.mark.parametrize(
    ("kind", "decides"), [("scene", ["scene"]), ("emblem", ["shape", "colour"]),
                          ("described", ["shape", "pattern"]), ("text", ["type", "topic"])]
)  # fmt: skip
def test_what_a_kind_shows_singles_its_entity_out(kind: str, decides: list[str]) -> None:
    rng = np.random.default_rng(1)
    entities = make_entities(rng, 40)
    mentions = make_mentions(rng, entities, {"train": 400, "valid": 10, "test": 10})
    for mention in (m for m in mentions if m.kind == kind):
        gold = entities[mention.gold]
        alike = [
            e
            for e in entities
            if e.name == gold.name and all(getattr(e, a) == getattr(gold, a) for a in decides)
        ]
        assert alike == [gold]


def test_pixels_are_read_well_and_not_perfectly() -> None:
    """The concept space names most scenes, shapes and patterns from pixels."""
    rng = np.random.default_rng(2)
    scenes = [str(rng.choice(list(words.SCENES))) for _ in range(60)]
    clip = sample_features.measure(np.stack([draw(("scene", s), rng) for s in scenes])).clip
    columns = [sample_features.CONCEPTS.index(s) for s in scenes]
    assert np.mean(clip.argmax(1) == columns) > 0.8
    shapes = [str(rng.choice(words.SHAPES)) for _ in range(60)]
    banners = [draw(("banner", "blue", "dots", shape, "yellow"), rng) for shape in shapes]
    measured = sample_features.measure(np.stack(banners))
    first = measured.objects[:, 0, : len(words.SHAPES)].argmax(1)
    assert np.mean(first == [words.SHAPES.index(s) for s in shapes]) > 0.8
    assert (measured.object_score[:, 0] > measured.object_score[:, 1]).all()


def test_the_encoder_is_a_tokenizer_and_weights_that_fit(root: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(root / "encoder")
    config = json.loads((root / "encoder" / "config.json").read_text())
    assert len(tokenizer) == config["vocab_size"] == len(sample_encoder.vocabulary())
    assert tokenizer.tokenize("Alder by the sea, 7") == ["alder", "by", "the", "sea", ",", "7"]
    assert "[UNK]" not in tokenizer.tokenize("An unheard-of word: Zyzzyva!")
    assert tokenizer("a")["input_ids"] == tokenizer.convert_tokens_to_ids(["[CLS]", "a", "[SEP]"])
