"""Exported scorers: what they score, where and in which sizes, and what is refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jaxtyping
import numpy as np
import optax
import pytest
from flax import nnx
from jax import export as jax_export

from configs import common
from data_pipeline.files import checksums, own_checksum
from data_pipeline.loader import GraphTables
from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from drin_jax import export, models
from drin_jax.export import __main__ as export_command
from drin_jax.export import artefact, scorer
from drin_jax.export.artefact import LIMITS, random_batch
from drin_jax.training.checkpoint import Checkpoints, Position
from drin_jax.training.setup import set_up
from drin_jax.training.step import create_state
from drin_jax.workdir import CHECKPOINTS, REPORT, claim, open_run
from tests.support import commands
from tests.support.commands import user_error
from tests.support.fixtures import refusal
from tests.support.tolerance import assert_close

T, V = 8, 6
SIZES = {"b": 5, "r": 9, "s": 7, "q": 3}
FRESH = """
import sys
import numpy as np
from drin_jax import export
arrays = dict(np.load(sys.argv[2]))
np.save(sys.argv[3], export.load(sys.argv[1]).scores(arrays))
assert "flax" not in sys.modules and "drin_jax.models" not in sys.modules
"""


@pytest.fixture(autouse=True, scope="module")
def sizes_may_be_symbols() -> Iterator[None]:
    """No checks of signatures: where they say int, `jax.export` traces with symbols."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def random_like(params: Any) -> Any:
    """Noise for every parameter, biases too."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: 0.5 * rng.standard_normal(x.shape, np.float32), params)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a finished DRIN leaves, with random parameters as its best."""
    folder = tmp_path_factory.mktemp("run")
    config = common.get_config()
    config.data.root, config.model.width, config.eval.batch = str(folder), 8, 16
    store = commands.small_store(folder / "store", mentions={"train": 4, "test": 12}, t=T, v=V)
    claim(folder, config)
    (folder / REPORT).write_text(json.dumps({"system": "DRIN (small)"}))
    checkpoints = Checkpoints(folder / CHECKPOINTS)
    params = random_like(set_up(config, Store.open(store)).params)
    checkpoints.save(7, create_state(params, optax.adam(1e-3)), Position({}), score=0.5)
    checkpoints.close()
    return folder


@pytest.fixture(scope="module")
def exported(workdir: Path) -> Path:
    """Its export, made by the command."""
    result = commands.run("drin_jax.export", f"--workdir={workdir}", f"--out={workdir / 'out'}")
    assert result.returncode == 0, result.stderr
    assert "DRIN (small), step 7, for cpu, cuda, tpu" in result.stdout
    assert sorted(path.name for path in (workdir / "out").iterdir()) == sorted(
        [scorer.MANIFEST, scorer.CONFIG, scorer.PARAMS, scorer.ARTEFACT]
    )
    assert not list(workdir.glob("out.*"))
    return workdir / "out"


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """An export to spoil."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def change(folder: Path, **fields: Any) -> None:
    """Other fields in a manifest, and checksums of the files as they are now."""
    path = folder / scorer.MANIFEST
    content = json.loads(path.read_text()) | fields
    path.unlink()
    content["files"] = checksums(folder)
    path.write_text(json.dumps(content | {"checksum": own_checksum(content)}))


def test_a_fresh_process_scores_as_evaluation_did_without_the_models(
    workdir: Path, exported: Path, tmp_path: Path
) -> None:
    done = open_run(workdir)
    arrays = GraphTables(done.store, "test", done.setup.spec).batch(np.arange(12))
    assert not arrays["candidate_mask"].all()
    np.savez(tmp_path / "arrays.npz", **arrays)
    result = subprocess.run(
        [sys.executable, "-c", FRESH, exported, tmp_path / "arrays.npz", tmp_path / "scores.npy"],
        cwd=commands.ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    scores = np.load(tmp_path / "scores.npy")
    assert_close(scores, done.scores("test"))
    assert np.ptp(scores) > 0.1
    assert (scores[~arrays["candidate_mask"]] == 0).all()


@pytest.mark.parametrize(
    ("name", "v", "fields"),
    [
        *((name, V, {}) for name in models.MODELS),
        ("drin", V, {"form": "paper", "gold_slot": True}),
        ("drin", 0, {"adjacency": "dense", "dtype": "bfloat16"}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_every_system_lowers_for_every_platform_and_any_size(
    name: str, v: int, fields: dict[str, Any]
) -> None:
    fields = dict(fields)
    dtype, gold_slot = fields.pop("dtype", "float32"), fields.pop("gold_slot", False)

    def build() -> nnx.Module:
        return models.build(name, T, v, dtype=dtype, rngs=nnx.Rngs(0), width=4, **fields)

    params = random_like(models.named(nnx.state(nnx.eval_shape(build), nnx.Param)))
    score = artefact.score_function(build, gold_slot)
    needs = models.needs(name, v)
    traced = artefact.trace(score, params, text_width=T, image_width=v, needs=needs)
    again = jax_export.deserialize(traced.serialize())
    assert again.platforms == scorer.PLATFORMS
    b, r, s, q = SIZES.values()
    shapes = scorer.inputs(b, r, T, v, needs, s, q)
    specs = {name: {"shape": list(shape), "dtype": d} for name, (shape, d) in shapes.items()}
    arrays = random_batch(specs, SIZES)
    scores = again.call(params, arrays)
    assert scores.shape == (b, r - gold_slot)
    assert np.ptp(scores) > 0.01
    assert_close(scores, jax.jit(score)(params, arrays), limit=LIMITS[dtype])


def test_the_check_in_other_sizes_tells_equal_from_different(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export_command.check(copy) == 0
    assert ": equal" in capsys.readouterr().out
    config = copy / scorer.CONFIG
    config.write_text(json.dumps(json.loads(config.read_text()) | {"graph.edges": "static"}))
    change(copy)
    assert export_command.check(copy) == 1
    assert ": DIFFERENT" in capsys.readouterr().out


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def garbage(path: Path) -> None:
    path.write_bytes(b"\x10\0\0\0garbage" * 9)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: cut(folder / scorer.ARTEFACT), ("scorer.jaxexport", "checksum")),
        (lambda folder: cut(next((folder / "params/d").iterdir())), ("params/d/", "checksum")),
        (lambda folder: (folder / "params/_METADATA").unlink(), ("_METADATA", "cannot be read")),
        (lambda folder: cut(folder / scorer.MANIFEST), ("export.json", "unreadable")),
        (lambda folder: (folder / scorer.MANIFEST).unlink(), ("no export.json", "--out")),
        (shutil.rmtree, ("no folder", "--out")),
        (lambda folder: change(folder, version=2, drin_jax="9"), ("version 2", "drin_jax 9")),
        (
            lambda folder: change(folder, calling_convention=99, jax="9.9"),
            ("with jax 9.9", f"this is jax {jax.__version__}", "not 99"),
        ),
        (
            lambda folder: [garbage(folder / scorer.ARTEFACT), change(folder, jax="9.9")],
            ("with jax 9.9", "cannot read it"),
        ),
        (lambda folder: change(folder, platforms=["tpu"]), ("runs on cpu", "=tpu,cpu")),
        (
            lambda folder: change(folder, parameters={"w": {"shape": [1], "dtype": "float32"}}),
            ("params: unreadable",),
        ),
    ],
)
def test_damage_and_other_versions_are_told(
    copy: Path, spoil: Callable[[Path], Any], words: tuple[str, ...]
) -> None:
    spoil(copy)
    told = refusal(lambda: export.load(copy))
    assert [word for word in words if word not in told] == []
    assert str(copy) in told


def test_a_changed_manifest_is_told(copy: Path) -> None:
    path = copy / scorer.MANIFEST
    path.write_text(path.read_text().replace('"tt"', '"vv"'))
    assert "damaged" in refusal(lambda: export.load(copy))
    path.write_text("[" * 100_000)
    assert "unreadable (nested too deeply)" in refusal(lambda: export.load(copy))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("calling_convention", "1"),
        ("platforms", [1]),
        ("parameters", {"w": {"shape": [None], "dtype": "float32"}}),
        ("inputs", {"edges": {"shape": ["b"], "dtype": "object"}}),
        ("files", {"/dev/zero": ""}),
        ("files", {"params/../../x": ""}),
        ("files", {"a\0": ""}),
    ],
)
def test_a_manifest_that_no_export_wrote_is_refused(copy: Path, name: str, value: Any) -> None:
    path = copy / scorer.MANIFEST
    content = json.loads(path.read_text()) | {name: value}
    path.write_text(json.dumps(content | {"checksum": own_checksum(content)}))
    assert f"its {name!r} is missing or odd" in refusal(lambda: export.load(copy))


def test_arrays_that_are_not_as_the_export_says(exported: Path) -> None:
    loaded = export.load(exported)
    good = random_batch(loaded.manifest["inputs"], SIZES)
    more = good | {"gold": np.zeros(5, np.int32), "mask": np.ones(5, bool)}
    np.testing.assert_array_equal(loaded.scores(more), loaded.scores(good))

    def told(**arrays: Any) -> str:
        return refusal(lambda: loaded.scores(good | arrays))

    assert "an unknown pictures" in told(pictures=good["edges"])
    assert "it has to be an array of float32" in told(edges=good["edges"].astype(np.float64))
    assert "is list" in told(edges=good["edges"].tolist())
    assert "it has to be [b, 4, r], b = 5, r = 9" in told(edges=good["edges"][:, :3])
    assert "edges is [5, 4, 8]" in told(edges=good["edges"][..., :8])
    assert "entity_text is [5, 9, 7]" in told(entity_text=good["entity_text"][..., :7])
    assert "candidate_mask is [5]" in told(candidate_mask=good["candidate_mask"][:, 0])
    none = {name: array[:0] for name, array in good.items()}
    assert "nothing to score" in refusal(lambda: loaded.scores(none))
    del good["edges"]
    assert "scores was given no edges; drin takes" in refusal(lambda: loaded.scores(good))


def test_where_an_export_may_be_written(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = open_run(workdir)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    for overwrite in (False, True):
        told = user_error(
            lambda over=overwrite: artefact.write(done, tmp_path / "other", overwrite=over)
        )
        assert "is no export" in told
    (tmp_path / "out").mkdir()
    content = artefact.write(done, tmp_path / "out", platforms=["cpu"])
    assert content == scorer.read(tmp_path / "out")
    assert content["platforms"] == ["cpu"]
    told = user_error(lambda: artefact.write(done, tmp_path / "out"))
    assert "DRIN (small) from step 7; add --overwrite" in told
    assert "known are cpu, cuda, tpu" in user_error(
        lambda: artefact.write(done, tmp_path / "new", platforms=["cpu", "gpu"])
    )

    def full(folder: Path, params: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(artefact, "_save", full)
        told = user_error(lambda: artefact.write(done, tmp_path / "out", overwrite=True))
    assert "No space left" in told
    assert scorer.read(tmp_path / "out") == content  # the older one is untouched
    artefact.write(done, tmp_path / "out", platforms=["tpu"], overwrite=True)
    assert scorer.read(tmp_path / "out")["platforms"] == ["tpu"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_flags_and_runs_that_cannot_be_meant(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no finished run"):
        export_command.write(tmp_path, tmp_path / "out", ["cpu"], False)
    commands.assert_one_clear_line(
        commands.run("drin_jax.export", "--check=x", "--workdir=y"), "--check goes alone"
    )
