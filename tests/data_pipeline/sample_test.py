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

from data_pipeline.pictures import images, precomputed
from data_pipeline.readers import read
from data_pipeline.retrieval.names import by_name
from data_pipeline.sample import lexicon as words
from data_pipeline.sample import tiny_bert, world
from data_pipeline.sample.drawing import draw
from data_pipeline.sample.people import KINDS, make_entities, make_mentions
from data_pipeline.schema import SPLITS, Corpus, Entity, Mention, UserError
from drin_jax.encoders.picture_encoders import ClipEncoder, ResNetEncoder

SMALL: dict[str, Any] = {"names": 24, "sizes": (150, 60, 120)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.generate(tmp_path_factory.mktemp("world") / "sample", seed=3, **SMALL)


@pytest.fixture(scope="module")
def corpus(root: Path) -> Corpus:
    return read("sample", root, name="sample", split="disjoint", valid_fraction=0.1)


def _content(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_seed_decides_everything(root: Path, tmp_path: Path) -> None:
    again = world.generate(tmp_path / "again", seed=3, **SMALL)
    assert _content(again) == _content(root)
    another = world.generate(tmp_path / "another", seed=4, **SMALL)
    assert _content(another)["mentions.jsonl"] != _content(root)["mentions.jsonl"]


def test_making_it_twice_does_nothing_and_foreign_folders_are_kept(tmp_path: Path) -> None:
    small: dict[str, Any] = {"names": 4, "sizes": (6, 3, 3)}
    root = world.generate(tmp_path / "sample", **small)
    (root / "mine").touch()
    world.generate(root, **small)
    assert (root / "mine").exists()
    world.generate(root, seed=1, **small)  # another world takes its place
    assert not (root / "mine").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]
    with pytest.raises(UserError, match="not the sample"):
        world.generate(tmp_path, **small)
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "sample"):
        with pytest.raises(UserError, match=r"data\.root") as error:
            world.generate(place, **small)
        assert "\n" not in str(error.value)


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny_bert, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        world.generate(tmp_path / "sample", names=4, sizes=(6, 3, 3))
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


def test_every_picture_has_its_boxes(root: Path, corpus: Corpus) -> None:
    """Where something was stamped, and what a detector would be unsure of is listed last."""
    found = precomputed.load_boxes(root / "boxes.jsonl", {})
    items: list[Entity | Mention] = [*corpus.entities, *corpus.mentions]
    assert {item.image for item in items if item.image} <= found.keys()
    counts = Counter(len(scores) for _, scores in found.values())
    assert counts.keys() == {0, 1, 2, 3}
    for path, (own, scores) in found.items():
        with Image.open(path) as image:
            pixels = np.asarray(image, np.float32)
        assert ((scores > 0) & (scores <= 1)).all()
        for left, top, right, bottom in own.astype(int):
            inside = pixels[top:bottom, left:right]
            assert 0 < inside.size < pixels.size
    for entity in corpus.entities:
        if entity.image:  # the charge of a banner lies in its middle
            left, top, right, bottom = found[entity.image][0][0]
            assert left < 32 < right
            assert top < 32 < bottom


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
    found, _ = by_name(
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


def test_the_encoders_are_small_and_the_same_in_every_world(root: Path) -> None:
    """Kept with the package, under 2 MB, not made from the seed of a world."""
    files = [path for path in world.WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    for path in files:
        assert (root / path.relative_to(world.WEIGHTS)).read_bytes() == path.read_bytes()


def test_clip_reads_scenes_shapes_and_patterns_and_not_heraldry(root: Path) -> None:
    """On pictures of a seed it was not trained on: the right word is nearest for most, and words
    outside its concepts say nothing of colours."""
    rng = np.random.default_rng(2)
    clip = ClipEncoder(root / "clip")

    def accuracy(texts: list[str], shows: list[tuple[str, ...]], right: list[int]) -> float:
        pixels = np.stack([draw(one, rng).pixels for one in shows])
        near = clip.encode_pictures(pixels) @ _unit(clip.encode_texts(texts)).T
        return float(np.mean(near.argmax(1) == right))

    scenes = list(words.SCENES)
    named = [f"a village by the {words.SCENES[scene][0][0]}" for scene in scenes]
    right = rng.integers(0, len(scenes), 64).tolist()
    assert accuracy(named, [("scene", scenes[i]) for i in right], right) > 0.8
    patterns, colours = list(words.PATTERNS), list(words.COLOURS)
    right = rng.integers(0, len(words.SHAPES), 64).tolist()
    looks = [
        ("banner", *map(str, (rng.choice(colours[:3]), rng.choice(patterns), words.SHAPES[i])),
         str(rng.choice(colours[3:]))) for i in right
    ]  # fmt: skip
    assert accuracy([f"they saw the {shape}" for shape in words.SHAPES], looks, right) > 0.5
    right = rng.integers(0, len(patterns), 64).tolist()
    looks = [("banner", "blue", patterns[i], "disc", "yellow") for i in right]
    assert accuracy([f"a {word} flag" for word in words.PATTERNS.values()], looks, right) > 0.5
    right = rng.integers(0, len(colours), 64).tolist()
    looks = [
        ("banner", colours[i], "plain", "disc", colours[(i + 1) % len(colours)]) for i in right
    ]
    assert accuracy([f"arms on {words.HERALDIC[c]}" for c in colours], looks, right) < 0.4


def test_the_resnet_tells_objects_by_shape_and_colour(root: Path) -> None:
    """Two regions of the same charge are nearer than two of different ones, nearly always."""
    rng = np.random.default_rng(3)
    resnet = ResNetEncoder(root / "resnet")
    pairs = [
        (str(rng.choice(words.SHAPES)), str(rng.choice(list(words.COLOURS)))) for _ in range(80)
    ]

    def vectors(kind: str) -> np.ndarray:
        crops = []
        for shape, colour in pairs:
            field = next(c for c in words.COLOURS if c != colour)
            shows = (
                ("banner", field, "dots", shape, colour)
                if kind == "banner"
                else (kind, shape, colour)
            )
            picture = draw(shows, rng)
            box = np.array([picture.found[0].box])
            crops.append(images.crops(Image.fromarray(picture.pixels), box, images.plain(64))[0])
        return _unit(resnet.encode(np.stack(crops))["pooled"])

    near = vectors("emblem") @ vectors("banner").T
    same = np.array([[one == other for other in pairs] for one in pairs])
    best_other = np.where(same, -1, near).max(1)
    assert np.mean(np.diag(near) > np.where(same, -1, near).mean(1, where=~same)) > 0.95
    assert np.mean(np.diag(near) > best_other) > 0.6


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_the_encoder_is_a_tokenizer_and_weights_that_fit(root: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(root / "encoder")
    config = json.loads((root / "encoder" / "config.json").read_text())
    assert len(tokenizer) == config["vocab_size"] == len(tiny_bert.vocabulary())
    assert tokenizer.tokenize("Alder by the sea, 7") == ["alder", "by", "the", "sea", ",", "7"]
    assert "[UNK]" not in tokenizer.tokenize("An unheard-of word: Zyzzyva!")
    assert tokenizer("a")["input_ids"] == tokenizer.convert_tokens_to_ids(["[CLS]", "a", "[SEP]"])
