"""TFDS builders: what is read back is the corpus, by TFDS and by grain, without TensorFlow."""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import grain
import pytest
import tensorflow_datasets as tfds

from data_pipeline import readers, tfds_builders
from data_pipeline.readers import READERS
from data_pipeline.schema import Corpus, UserError
from data_pipeline.tfds_builders import (
    BUILDERS,
    CONFIGS,
    VALID_FRACTION,
    CorpusBuilder,
    __main__,
    build,
)
from tests.support.fixtures import refusal
from tests.support.paths import ROOT

SAMPLES = {
    str(i): {
        "id": str(i),
        "sentence": f"Zoë {i} met the mayor.",
        "mentions": ["Zoë", "mayor", "nowhere"][: 1 + i % 3],
        "answer": ["Q1", "Q2", "Q3"][: 1 + i % 3],
    }
    for i in range(40)
}
SAMPLES["6"]["sentence"] = SAMPLES["0"]["sentence"]  # 0 is a test sample
TEST_KEYS = ["0", "1-0", "1-1"]
NAMES = {"Q3": "Nowhere", "Q1": "Zoë", "Q2": "The mayor"}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in WikiMEL's form with two pictures (of bytes: nothing decodes them)."""
    root = tmp_path_factory.mktemp("manual")
    contents: dict[str, Any] = {
        "Wikidata-MEL.json": SAMPLES,
        "test_keys.json": TEST_KEYS,
        "qid2ne.json": NAMES,
        "qid2abs.json": {"Q1": "Sex: female."},
    }
    for file, content in contents.items():
        (root / file).write_text(json.dumps(content))
    (root / "candidates-answer.tsv").write_text("0\tQ3\tQ1\n")
    (root / "images").mkdir()
    for key in ("0", "7"):
        (root / "images" / f"{key}.jpg").write_bytes(b"\xff\xd8\x00 picture " + key.encode())
    return root


@pytest.fixture(scope="module")
def built(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data_dir into which the command built every config."""
    out = tmp_path_factory.mktemp("data")
    arguments = ["--dataset=wikimel", f"--manual_dir={raw}", f"--data_dir={out}"]
    __main__.main(arguments)
    return out


def corpus(raw: Path, split: str) -> Corpus:
    return readers.read("wikimel", raw, name="x", split=split, valid_fraction=VALID_FRACTION)


def text(value: Any) -> Any:
    """TFDS gives texts back as bytes."""
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize("config", ["disjoint", "published"])
def test_every_mention_is_read_back_in_order(built: Path, raw: Path, config: str) -> None:
    given = corpus(raw, config)
    builder = tfds.builder(f"wikimel/{config}", data_dir=built)
    assert set(builder.info.splits) == {"train", "valid", "test"}
    for split in builder.info.splits:
        source = tfds.data_source(f"wikimel/{config}", split=split, data_dir=built)
        mentions = [m for m in given.mentions if m.split == split]
        assert len(source) == len(mentions) > 0
        for example, mention in zip(source, mentions, strict=True):
            assert example.keys() == builder.info.features.keys()
            assert text(example["id"]) == mention.id
            assert text(example["sentence"]) == mention.text
            assert text(example["surface"]) == mention.name
            assert text(example["sample"]) == mention.sample
            assert text(example["gold"]) == (mention.gold or "")
            span = (int(example["start"]), int(example["end"]))
            assert span == (-1 if mention.start is None else mention.start,
                            -1 if mention.end is None else mention.end)  # fmt: skip
            assert tuple(map(text, example["candidates"])) == (mention.candidates or ())
            assert bool(example["clean"]) == mention.clean
            picture = b"" if mention.image is None else Path(mention.image).read_bytes()
            assert example["image"] == picture
    test = tfds.data_source(f"wikimel/{config}", split="test", data_dir=built)
    assert test[0]["image"] == b"\xff\xd8\x00 picture 0"
    assert [text(qid) for qid in test[0]["candidates"]] == ["Q3", "Q1"]


def test_the_published_train_split_is_the_larger(built: Path) -> None:
    sizes = {
        config: tfds.builder(f"wikimel/{config}", data_dir=built).info.splits["train"].num_examples
        for config in ("disjoint", "published")
    }
    assert sizes["published"] - sizes["disjoint"] == 1  # sample 6 has the sentence of 0


def test_example_i_of_the_entities_is_row_i(built: Path, raw: Path) -> None:
    source = tfds.data_source("wikimel/entities", split="entities", data_dir=built)
    read = [{name: text(value) for name, value in example.items()} for example in source]
    entities = corpus(raw, "published").entities
    expected = [{"id": e.id, "name": e.name, "description": e.description} for e in entities]
    expected = [one | {"image": ""} for one in expected]
    assert read == expected


def test_grain_shuffles_and_batches_what_was_built(built: Path) -> None:
    folder = built / "wikimel" / "disjoint" / "1.0.0"
    source = tfds.builder_from_directory(folder).as_data_source("train")
    ids = [text(example["id"]) for example in source]
    shuffled = grain.MapDataset.source(source).shuffle(seed=3).map(lambda e: text(e["id"]))
    order = [shuffled[i] for i in range(len(shuffled))]
    assert order != ids
    assert sorted(order) == sorted(ids)
    starts = grain.MapDataset.source(source).map(lambda e: {"start": e["start"]}).batch(4)
    assert starts[0]["start"].shape == (4,)


def test_building_and_reading_needs_no_tensorflow(raw: Path, tmp_path: Path) -> None:
    """In a process of its own, which also shows what the command writes and leaves."""
    program = """
import sys
from data_pipeline.tfds_builders import __main__
__main__.main(sys.argv[1:])
import tensorflow_datasets as tfds
out = sys.argv[2].split("=")[1]
source = tfds.data_source("wikimel/entities", split="entities", data_dir=out)
print("read", len(source), source[1]["name"].decode())
assert "tensorflow" not in sys.modules
"""
    arguments = [f"--manual_dir={raw}", f"--data_dir={tmp_path}", "--dataset=wikimel"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--configs", "entities"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{tmp_path / 'wikimel' / 'entities' / '1.0.0'}: entities 3",
        "read 3 Zoë",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wikimel"]  # nothing else is left


# ---- what is there already, and what is wrong --------------------------------------------------


def test_what_is_built_stays_until_it_is_to_be_overwritten(raw: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "raw", tmp_path / "out"
    root.mkdir()
    for path in raw.glob("*.*"):
        (root / path.name).write_bytes(path.read_bytes())
    (root / "qid2ne.json").write_text(json.dumps({"Q1": "Zoë"}))
    path, counts = build(BUILDERS["wikimel"], "entities", root, out)
    assert counts == {"entities": 1}
    (root / "qid2ne.json").write_text(json.dumps(NAMES))
    assert build(BUILDERS["wikimel"], "entities", root, out) == (path, {"entities": 1})
    again = build(BUILDERS["wikimel"], "entities", root, out, overwrite=True)
    assert again == (path, {"entities": 3})


@pytest.mark.parametrize("name", BUILDERS)
def test_a_wrong_manual_dir_says_what_to_download(name: str, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "file").touch()
    (tmp_path / "empty").mkdir()
    for folder in ("nowhere", "empty", "foreign"):
        for config in CONFIGS:
            where = (BUILDERS[name], config, tmp_path / folder, tmp_path / "out")
            message = refusal(functools.partial(build, *where))
            assert "Download" in message
            assert "manual_dir" in message
    assert not list((tmp_path / "out").rglob("*.array_record*"))


def test_the_command_ends_in_one_line(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--dataset=wikimel", f"--data_dir={tmp_path / 'out'}"]
    told = refusal(lambda: __main__.main([*arguments, f"--manual_dir={tmp_path / 'nowhere'}"]))
    assert told.startswith(f"manual_dir = {tmp_path / 'nowhere'} is not")
    (tmp_path / "out").touch()
    told = refusal(lambda: __main__.main([*arguments, f"--manual_dir={raw}"]))
    assert told.startswith(f"{tmp_path / 'out'}")
    with pytest.raises(UserError, match="config is 'all'; known are disjoint, published"):
        build(BUILDERS["wikimel"], "all", raw, tmp_path)


def test_nil_kinds_and_absent_splits_of_any_reader(tmp_path: Path) -> None:
    """Our own form has what WikiMEL has not; a split without mentions is not there."""

    class Own(CorpusBuilder, skip_registration=True):  # type: ignore[call-arg]
        name = reader = "jsonl"
        description = homepage = MANUAL_DOWNLOAD_INSTRUCTIONS = "ours"
        BUILDER_CONFIGS: ClassVar = CorpusBuilder.BUILDER_CONFIGS

    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "entities.jsonl").write_text(
        '{"id": "e", "name": "E", "description": "d", "image": "e.png"}'
    )
    (raw / "e.png").write_bytes(b"png")
    (raw / "mentions.jsonl").write_text(
        '{"id": "m", "text": "an E", "start": 3, "end": 4, "image": null, "entity": null, '
        '"split": "test", "kind": "letter"}'
    )
    path, counts = build(Own, "disjoint", raw, tmp_path / "out")
    assert counts == {"test": 1}
    example = tfds.builder_from_directory(path).as_data_source("test")[0]
    found = {name: text(example[name]) for name in ("gold", "kind", "image", "start")}
    assert found == {"gold": "", "kind": "letter", "image": "", "start": 3}
    path, _ = build(Own, "entities", raw, tmp_path / "out")
    assert tfds.builder_from_directory(path).as_data_source("entities")[0]["image"] == b"png"


def test_every_builder_has_a_reader_and_a_name() -> None:
    assert set(BUILDERS) <= set(READERS)
    assert set(BUILDERS) <= set(tfds.list_builders(with_community_datasets=False))
    for builder in BUILDERS.values():
        assert issubclass(builder, tfds_builders.CorpusBuilder)
        assert next(iter(CONFIGS)) == builder.BUILDER_CONFIGS[0].name == "disjoint"
