"""WikiMEL's real pictures, as photographed and as published, through the whole path."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.pictures import images
from data_pipeline.store.reader import Store
from drin_jax.encoders.picture_encoders import ClipEncoder, ResNetEncoder
from tests.data_pipeline.wikimel_reader_test import WIKIMEL
from tests.support import commands, tiny_encoders
from tests.support.tolerance import assert_close

PICTURES = 38
MENTIONS = 69  # of the samples with these pictures, ten of them published test mentions
OTHERS = 150  # entities beside their golds, so that there is something to choose from


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples that have pictures, in MELBench's form, with the pictures where they are."""
    if not (WIKIMEL / "images").is_dir():
        pytest.skip(
            f"WikiMEL's pictures may not be shipped and are not under {WIKIMEL}; extract_test and "
            "images_test hold the same commands and decoders to drawn pictures"
        )
    root = tmp_path_factory.mktemp("wikimel")
    samples = json.loads((WIKIMEL / "Wikidata-MEL.json").read_text())
    names = json.loads((WIKIMEL / "qid2ne.json").read_text())
    abstracts = json.loads((WIKIMEL / "qid2abs.json").read_text())
    keys = [path.stem for path in sorted((WIKIMEL / "images").iterdir())]
    kept = {key: samples[key] for key in keys}
    golds = {qid for row in kept.values() for qid in row["answer"]}
    known = [qid for qid in names if qid in golds] + [q for q in names if q not in golds][:OTHERS]
    test = set(json.loads((WIKIMEL / "test_keys.json").read_text()))
    own = [key for key in sorted(test) if key.split("-")[0] in kept]
    for name, content in {
        "Wikidata-MEL.json": kept,
        "qid2ne.json": {qid: names[qid] for qid in known},
        "qid2abs.json": {qid: abstracts[qid] for qid in known if qid in abstracts},
        "test_keys.json": own,
    }.items():
        (root / name).write_text(json.dumps(content))
    (root / "images").symlink_to(WIKIMEL / "images")
    return root


def test_real_pictures_go_from_file_to_report(world: Path, tmp_path: Path) -> None:
    """One command: read, retrieve, encode with BERT, ResNet and CLIP, train, evaluate."""
    encoders = tiny_encoders.write(tmp_path / "encoders")
    result = commands.run(
        "drin_jax.main",
        "--config=configs/wikimel.py",
        f"--workdir={tmp_path / 'work'}",
        f"--config.data.root={world}",
        "--config.retrieval.r=8",
        "--config.encoders.objects=",
        "--config.data.valid_fraction=0.25",
        "--config.train.epochs=2",
        "--config.train.batch=8",
        "--config.model.width=16",
        *(f"--config.{name}={value}" for name, value in encoders.items()),
    )
    assert result.returncode == 0, result.stderr
    store = Store.open(tmp_path / "work" / "store")
    counts = store.report["counts"]
    assert sum(n for name, n in counts.items() if name.startswith("pictures read")) == PICTURES
    assert not any(name.startswith("pictures masked") for name in counts)
    assert counts["mentions"] == MENTIONS
    assert store.array("mention_has_image").all()
    assert not store.array("entity_has_image").any()  # no picture of an entity is public
    edges = np.concatenate([store.array(f"{split}_edges") for split in store.splits])
    assert np.abs(edges[:, [0, 2]]).max((0, 2)).min() > 0.01
    assert not edges[:, [1, 3]].any()
    _compare_with_one_picture_alone(store, world, encoders)
    report = json.loads((tmp_path / "work" / "report.json").read_text())
    assert "test" in json.dumps(report)
    assert "DRIN" in (tmp_path / "work" / "report.md").read_text()


def _compare_with_one_picture_alone(store: Store, world: Path, encoders: dict[str, str]) -> None:
    identifier = store.strings("mention_id")[0]
    with Image.open(world / "images" / f"{identifier.split('-')[0]}.jpg") as file:
        picture = file.convert("RGB")
    resnet = ResNetEncoder(encoders["encoders.image"])
    alone = resnet.encode(images.plain(tiny_encoders.SIDE)(picture)[None])["pooled"][0]
    assert_close(store.array("mention_image")[0], alone)
    clip = ClipEncoder(encoders["encoders.clip"])
    pixels = images.processor(clip.preprocessor, "here")(picture)
    alone = clip.encode_pictures(pixels[None])[0]
    alone /= np.linalg.norm(alone)
    assert_close(store.array("mention_clip_image")[0], alone)
