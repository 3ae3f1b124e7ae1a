"""The extraction: what lands in the store, what is masked, and what is never done twice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipeline.pictures import images
from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from drin_jax.encoders.picture_encoders import ClipEncoder, ResNetEncoder
from drin_jax.extract import preparation
from drin_jax.extract.pairs import edges
from tests.support import commands, picture_world, tiny_encoders
from tests.support.odd_pictures import write_all
from tests.support.tolerance import assert_close

ENTITIES, MENTIONS = 8, 12


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    picture_world.write(root, ENTITIES, MENTIONS)
    return root


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory, world: Path, encoders: Path) -> Path:
    """Where the command made the store."""
    folder = tmp_path_factory.mktemp("work")
    fields = picture_world.command_line(picture_world.config(world, encoders))
    result = commands.run("drin_jax.extract", f"--workdir={folder}", *fields)
    assert result.returncode == 0, result.stderr
    assert "pictures 64, CLIP 48, objects 64" in result.stdout
    assert "masked: not a picture" in result.stdout
    return folder


def by_id(store: Store, side: str) -> dict[str, int]:
    return {name: row for row, name in enumerate(store.strings(f"{side}_id"))}


def cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = (a / np.linalg.norm(a, axis=-1, keepdims=True) for a in (x, y))
    return x @ y.T


def pixels(path: Path, recipe: images.Recipe) -> np.ndarray:
    with Image.open(path) as file:
        return recipe(file.convert("RGB"))[None]


def test_every_picture_feature_is_the_encoders_own(
    workdir: Path, world: Path, encoders: Path
) -> None:
    """By the plain way, one picture at a time: ResNet's input is the paper's resize, CLIP's is its
    processor's, objects are crops of the original."""
    store = Store.open(workdir / "store")
    resnet, clip = ResNetEncoder(encoders / "resnet"), ClipEncoder(encoders / "clip")
    papers = images.plain(tiny_encoders.SIDE)
    processors = images.processor(clip.preprocessor, "here")
    row, file = by_id(store, "mention")["m3"], world / "images" / "m3.jpg"
    wanted = resnet.encode(pixels(file, papers))["pooled"][0]
    assert_close(store.array("mention_image")[row], wanted)
    wanted = clip.encode_pictures(pixels(file, processors))[0]
    wanted /= np.linalg.norm(wanted)
    assert_close(store.array("mention_clip_image")[row], wanted)
    wanted = clip.encode_texts(["Here is Name 0 in sentence 3."])[0]
    wanted /= np.linalg.norm(wanted)
    assert_close(store.array("mention_clip_text")[row], wanted)


def test_vv_is_equation_11_on_crops_of_the_originals(
    workdir: Path, world: Path, encoders: Path
) -> None:
    """Mention 3 has two boxes, the better one second; of an entity's picture one object counts."""
    store = Store.open(workdir / "store")
    resnet = ResNetEncoder(encoders / "resnet")

    def objects(name: str, boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
        with Image.open(world / name) as file:
            image = file.convert("RGB")
        crops = [
            np.asarray(image.crop(b).resize((64, 64), Image.Resampling.BILINEAR)) for b in boxes
        ]
        return resnet.encode(np.stack(crops))["pooled"]

    mine, score = objects("images/m3.jpg", [(20, 10, 80, 60), (0, 0, 40, 30)]), np.array([0.8, 0.5])
    shared, own = (
        objects(picture_world.SHARED, [(5, 5, 60, 45)]),
        objects("images/e4.png", [(2, 3, 30, 40)]),
    )
    mention, entity = by_id(store, "mention")["m3"], by_id(store, "entity")
    pair = np.array([[entity["Q2"], entity["Q4"], entity["Q3"]]])
    found = edges(store.array, np.array([mention]), pair)[0, 3]
    for value, theirs in zip(found, (shared, own), strict=False):
        wanted = (score @ cosines(mine, theirs))[0] / score.sum()
        assert value == pytest.approx(wanted, abs=1e-6)
    assert found[2] == 0  # Q3 has no picture


def test_stored_edges_are_those_of_the_candidates_and_of_the_gold(workdir: Path) -> None:
    store = Store.open(workdir / "store")
    mention, candidates = store.array("train_mention"), store.array("train_candidates")
    stored = store.array("train_edges")
    assert_close(stored, edges(store.array, mention, candidates))
    gold = np.asarray(store.array("train_gold_entity"))[:, None]
    wanted = edges(store.array, mention, gold)[:, :, 0]
    assert_close(store.array("train_gold_edges"), wanted)
    assert (np.abs(stored) > 1e-3).any((0, 2)).all()  # every relation is there


def test_masked_pictures_are_counted_listed_and_without_an_edge(
    workdir: Path, tmp_path: Path
) -> None:
    """Every odd file is masked with its reason or read; no masked one leaves a trace."""
    expected = write_all(tmp_path)
    store = Store.open(workdir / "store")
    has = store.array("mention_has_image")
    rows = by_id(store, "mention")
    for i, (name, status) in enumerate(expected.items()):
        row = rows[f"m{MENTIONS + i}"]
        assert has[row] == status.startswith("read"), name
        for table in ("image", "clip_image", "objects"):
            trace = np.abs(store.array(f"mention_{table}")[row]).max()
            assert (trace > 0) == (has[row] and table != "objects"), (name, table)
    counts = store.report["counts"]
    assert counts["pictures masked: cut or damaged"] == 2
    assert counts["pictures masked: too small"] == 2
    assert counts["missing_mention_images"] == 2  # the folder and the one that is not there
    listing = (workdir / "masked_mention_pictures.tsv").read_text().splitlines()
    listed = dict(line.split("\t") for line in listing)
    masked = {name for name, status in expected.items() if status.startswith("masked")}
    assert {Path(path).name for path in listed} == masked - {"folder.jpg", "not there.jpg"}
    assert {Path(path).name: why for path, why in listed.items()}.items() <= expected.items()


def test_each_unique_text_and_picture_is_encoded_once(
    workdir: Path, world: Path, encoders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, int] = {"pictures": 0, "clip pictures": 0, "clip texts": 0}
    whole = {
        "pictures": (ResNetEncoder, "encode"),
        "clip pictures": (ClipEncoder, "encode_pictures"),
        "clip texts": (ClipEncoder, "encode_texts"),
    }
    for name, (kind, method) in whole.items():
        real = getattr(kind, method)

        def counted(self: Any, items: Any, *rest: Any, _name: str = name, _real: Any = real) -> Any:
            seen[_name] += len(items)
            return _real(self, items, *rest)

        monkeypatch.setattr(kind, method, counted)
    store = preparation.prepare(picture_world.config(world, encoders), tmp_path)
    counts = store.report["counts"]
    read = sum(n for name, n in counts.items() if name.startswith("pictures read"))
    assert seen["clip pictures"] == read
    # Own pictures of entities 0, 1, 4, 6 and 7 with one box each, 11 of mentions with two, the
    # shared one with its one and its two.
    assert seen["pictures"] - read == 5 + 11 * 2 + 1 + 2
    assert seen["clip texts"] == ENTITIES + len(store.array("mention_text"))
    for name, spec in Store.open(workdir / "store").specs.items():
        assert spec == store.specs[name], f"{name} differs between two runs"


def test_pictures_only_ever_seen_in_part(world: Path, encoders: Path, tmp_path: Path) -> None:
    """Without CLIP and objects the vertices stay and the edges are 0; without pictures only the
    number of masked ones is told."""
    some = picture_world.config(world, encoders, **{"encoders.clip": "", "encoders.objects": ""})
    store = preparation.prepare(some, tmp_path / "some")
    assert store.sizes["image_width"] == tiny_encoders.POOLED
    assert store.sizes["clip_width"] == store.sizes["object_width"] == 0
    assert not store.array("test_edges")[:, 1:].any()
    none = picture_world.config(
        world, encoders, **{"encoders.clip": "", "encoders.objects": "", "encoders.image": ""}
    )
    store = preparation.prepare(none, tmp_path / "none")
    assert store.sizes["image_width"] == 0
    assert not store.array("mention_has_image").any()
    assert store.report["counts"]["mention pictures without features (masked)"] > MENTIONS


def test_the_processors_preprocessing_is_another_store(
    workdir: Path, world: Path, encoders: Path, tmp_path: Path
) -> None:
    config = picture_world.config(world, encoders, **{"image.preprocess": "processor"})
    store = preparation.prepare(config, tmp_path)
    resnet = ResNetEncoder(encoders / "resnet")
    recipe = images.processor(resnet.preprocessor, "here")
    assert recipe.shortest == tiny_encoders.SIDE
    wanted = resnet.encode(pixels(world / "images" / "m3.jpg", recipe))["pooled"][0]
    row = by_id(store, "mention")["m3"]
    assert_close(store.array("mention_image")[row], wanted)
    config.data.store = str(workdir / "store")
    with pytest.raises(UserError, match=r"image\.preprocess was \"paper\", is \"processor\""):
        preparation.prepare(config, tmp_path / "other")


@pytest.mark.parametrize(
    ("vectors", "tables"),
    [
        ("text", ("mention_text_edge", "entity_text_edge")),
        ("clip", ("mention_clip_text", "entity_clip_text")),
    ],
)
def test_candidates_by_vectors_are_the_nearest_of_the_whole_base(
    vectors: str, tables: tuple[str, str], world: Path, encoders: Path, tmp_path: Path
) -> None:
    fields = {"retrieval.method": "vectors", "retrieval.vectors": vectors, "retrieval.r": 3}
    store = preparation.prepare(picture_world.config(world, encoders, **fields), tmp_path)
    near = cosines(*(np.asarray(store.array(name)) for name in tables))
    near = near[store.array("train_mention")]
    found = store.array("train_candidates")
    scores = store.array("train_retrieval_score")
    assert_close(scores, -np.sort(-near, axis=1)[:, :3])
    assert_close(np.take_along_axis(near, found, 1), scores)
    # The name that the method had before, in a config or in a store, means the same.
    meta = json.loads((store.path / "store.json").read_text())
    assert meta["made_from"]["retrieval.method"] == "vectors"
    older = picture_world.config(world, encoders, **fields | {"retrieval.method": "dense"})
    preparation.prepare(older, tmp_path)
    meta["made_from"]["retrieval.method"] = "dense"
    (store.path / "store.json").write_text(json.dumps(meta))
    for method in ("dense", "vectors"):
        older.retrieval.method = method
        preparation.prepare(older, tmp_path)


def test_statistics_and_vectors_need_their_fields(
    world: Path, encoders: Path, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"retrieval.method": "statistics", "retrieval.names_pool": 4}
    store = preparation.prepare(picture_world.config(world, encoders, **fields), tmp_path)
    scores = store.array("test_retrieval_score")
    assert (np.diff(scores, axis=1) <= 0).all()
    for fields, words in (
        ({"retrieval.vectors": "image"}, "known are text, clip"),
        ({"retrieval.vectors": "clip", "encoders.clip": ""}, "set encoders.clip too"),
    ):
        config = picture_world.config(world, encoders, **{"retrieval.method": "vectors", **fields})
        with pytest.raises(UserError, match=words):
            preparation.prepare(config, tmp_path / "none")


def _remove_pictures(root: Path) -> None:
    for path in (root / "images").iterdir():
        if path.is_file():
            path.unlink()


def _spoil_pictures(root: Path) -> None:
    for path in (root / "images").iterdir():
        if path.is_file():
            path.write_text("<html>")


def _line(name: str, **fields: Any) -> Any:
    def change(root: Path) -> None:
        with (root / name).open("a") as file:
            file.write(json.dumps(fields) + "\n")

    return change


BOX = {"image": "images/new.png", "boxes": [[0, 0, 5, 5]], "scores": [0.5]}


@pytest.mark.parametrize(
    ("change", "fields", "words"),
    [
        (_remove_pictures, {}, "not one picture of the data set is there"),
        (_spoil_pictures, {}, "pictures can be read; the first is"),
        (None, {"encoders.image": ""}, "encoders.clip needs encoders.image"),
        (None, {"encoders.pictures": "pictures.npz"}, "brings its own features"),
        (None, {"encoders.objects": "no.jsonl"}, "no.jsonl is missing"),
        (None, {"encoders.entity_objects": 0}, "must be from 1 to 1,000"),
        (None, {"image.preprocess": "crop"}, "known are paper, processor"),
        (None, {"retrieval.method": "magic"}, "known are union, names"),
        (None, {"text.clip_mention": "{text}"}, "text.clip_mention is '{text}'"),
        (None, {"text.clip_entity": "{title}"}, "text.clip_entity is '{title}'"),
        (_line("boxes.jsonl", **BOX | {"scores": [0.5, 0.4]}), {}, "1 boxes but 2 scores"),
        (_line("boxes.jsonl", **BOX | {"boxes": [[5, 0, 0, 5]]}), {}, "left < right"),
        (_line("boxes.jsonl", **BOX | {"boxes": [["a", 0, 0, 5]]}), {}, "finite numbers"),
        (_line("boxes.jsonl", **BOX | {"image": picture_world.SHARED}), {}, "given twice"),
        (_line("boxes.jsonl", boxes=[], scores=[]), {}, '"image" is missing'),
    ],
)
def test_bad_input_is_one_line(
    change: Any, fields: dict[str, Any], words: str, encoders: Path, tmp_path: Path
) -> None:
    picture_world.write(tmp_path / "data", 3, 4)
    if change:
        change(tmp_path / "data")
    config = picture_world.config(tmp_path / "data", encoders, **fields)
    with pytest.raises(UserError) as caught:
        preparation.prepare(config, tmp_path / "work")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "work" / "store").exists()


def test_weights_of_another_architecture(world: Path, encoders: Path, tmp_path: Path) -> None:
    config = picture_world.config(world, encoders)
    config.encoders.image = config.encoders.clip
    with pytest.raises(UserError, match="model_type is 'clip'; this encoder needs 'resnet'"):
        preparation.prepare(config, tmp_path)


def test_a_picture_that_goes_while_it_is_encoded_is_masked(
    world: Path, encoders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed when the corpus is read, gone when its turn comes."""
    picture_world.write(tmp_path / "data", 3, 4)
    config = picture_world.config(tmp_path / "data", encoders)
    real = preparation.read_corpus

    def reads_then_loses(*args: Any) -> Any:
        corpus = real(*args)
        (tmp_path / "data" / "images" / "m0.jpg").unlink()
        return corpus

    monkeypatch.setattr(preparation, "read_corpus", reads_then_loses)
    store = preparation.prepare(config, tmp_path / "work")
    assert store.report["counts"]["pictures masked: no such file"] == 1
    assert not store.array("mention_has_image")[by_id(store, "mention")["m0"]]
