"""The parity command on the authors' arrays, on another implementation's, and on damaged files."""

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data_pipeline.schema import UserError
from drin_jax.models.bert_matcher import BertMatcher
from drin_jax.parity import comparison, torch_weights
from tests.support.commands import assert_one_clear_line, run
from tests.support.paths import GOLDEN

FILES = [path for name in ("drin", "ghmfc", "melhi") for path in sorted(GOLDEN.glob(f"{name}_*"))]
ONE = GOLDEN / "drin_wikidiverse_dynamic.npz"
BASELINE = GOLDEN / "ghmfc_wikidiverse.npz"
PACKED = "mention_encoder.intermediate_layer.t2v_attention.a2b_attention"


def test_every_golden_file_passes(capsys):
    assert len(FILES) == 9
    assert comparison.main([*map(str, FILES)]) == 0
    out = capsys.readouterr().out
    for path in FILES:
        row = next(line for line in out.splitlines() if path.name in line)
        assert " ok " in row
    assert "FAIL" not in out


def test_the_command_says_the_same(tmp_path):
    result = run("drin_jax.parity", str(ONE))
    assert result.returncode == 0, result.stderr
    assert " ok " in result.stdout
    assert_one_clear_line(run("drin_jax.parity", str(tmp_path / "none.npz")), "no such file")


def altered(path: Path, of: Path = ONE, /, **changes: np.ndarray) -> Path:
    with np.load(of) as file:
        arrays = dict(file.items())
    np.savez(path, **(arrays | {name.replace("__", "/"): a for name, a in changes.items()}))
    return path


def the_array(name: str, of: Path = ONE) -> np.ndarray:
    with np.load(of) as file:
        return file[name].copy()


@pytest.mark.parametrize(
    ("of", "name", "index", "value"),
    [
        (ONE, "out/score", (2, 3), 2e-5),
        (ONE, "out/score", (0, 10), np.nan),
        (ONE, "grad/gcn_layers.0.w_h.weight", (1, 1), 1e-3),
        (ONE, "grad/gcn_layers.1.w_u.weight", (0, 0), np.nan),
        (ONE, "edgeL/ti", (5, 0), 1e-4),
        (ONE, "out/adam_losses", (4,), 1e-4),
        (BASELINE, f"grad/{PACKED}.in_proj_bias", (80,), 1e-5),  # of the values, 1e-3 of it
        (GOLDEN / "melhi_wikidiverse.npz", "in/mention_end", (2,), 1),
    ],
)
def test_a_changed_array_fails(tmp_path, capsys, of, name, index, value):
    array = the_array(name, of)
    array[index] += value
    path = altered(tmp_path / "changed.npz", of, **{name.replace("/", "__"): array})
    assert comparison.main([str(path)]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_a_missing_gradient_of_ours_or_a_wrong_shape_fails(tmp_path, capsys):
    extra = altered(tmp_path / "extra.npz", **{"grad__gcn_layers.7.w_h.weight": np.ones((2, 2))})
    short = altered(tmp_path / "short.npz", out__score=the_array("out/score")[:, :-1])
    assert comparison.main([str(extra)]) == 1
    assert comparison.main([str(short)]) == 1
    assert capsys.readouterr().out.count("FAIL") == 2


@pytest.mark.parametrize("system", ["melhi", "ghmfc"])
def test_parameters_come_back_in_pytorchs_layout(system):
    arrays, meta = comparison.read(GOLDEN / f"{system}_wikidiverse.npz")
    theirs = {n.removeprefix("w/"): a for n, a in arrays.items() if n.startswith("w/")}
    back = torch_weights.to_torch(nnx.state(comparison.build(arrays, meta), nnx.Param))
    assert back.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(back[name], array)


def test_a_system_without_a_counterpart_says_so():
    model = BertMatcher(4, 0, width=4, dtype=jnp.float32, rngs=nnx.Rngs(0))
    with pytest.raises(UserError, match=r"no counterpart .* are drin .*, mel_hi and ghmfc"):
        torch_weights.from_torch(model, {})


def truncated(path: Path) -> None:
    path.write_bytes(ONE.read_bytes()[:40_000])


def foreign(path: Path) -> None:
    np.savez(path, weights=np.zeros(3))


def not_npz(path: Path) -> None:
    path.write_text("hello")


def another_system(path: Path) -> None:
    np.savez(path, meta=json.dumps({"model": "jmel", "dataset": "wikidiverse", "dims": {}}))


def without_a_mask(path: Path) -> None:
    with np.load(BASELINE) as file:
        np.savez(path, **{name: a for name, a in file.items() if name != "in/mention_text_mask"})


def without_an_input(path: Path) -> None:
    with np.load(ONE) as file:
        np.savez(path, **{name: a for name, a in file.items() if name != "in/answer"})


def with_another_parameter(path: Path) -> None:
    name = "w/gcn_layers.0.w_h.weight"
    np.savez(
        altered(path, **{name.replace("/", "__"): the_array(name)[:-1]}), **dict(np.load(path))
    )


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncated, ["not a readable reference file"]),
        (not_npz, ["not a readable reference file"]),
        (foreign, ["not a readable reference file", "meta"]),
        (another_system, ["'jmel'", "known beside DRIN are melhi, ghmfc"]),
        (without_a_mask, ["in/mention_text_mask missing", "GHMFC"]),
        (without_an_input, ["in/answer missing"]),
        (with_another_parameter, ["wrong shape", "gcn_layers.0.w_h.weight"]),
        (lambda path: None, ["no such file"]),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path, capsys, damage, words):
    path = tmp_path / "bad.npz"
    damage(path)
    assert comparison.main([str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error


def test_a_bad_file_beside_a_good_one_fails_but_both_are_told(tmp_path, capsys):
    shutil.copy(ONE, tmp_path / "good.npz")
    assert comparison.main([str(tmp_path / "good.npz"), str(tmp_path / "none.npz")]) == 1
    out, error = capsys.readouterr()
    assert "ok" in out
    assert "none.npz: no such file" in error


@pytest.mark.parametrize(
    "fields",
    [
        {"layers": 1, "r": 5},
        {"layers": 3, "r": 2, "b": 5, "dataset": "wikimel"},
        {"layers": 2, "r": 4, "b": 1, "enabled": (0, 1, 1, 0), "dynamic": False},
    ],
    ids=str,
)
def test_files_of_another_implementation_pass_at_other_shapes(tmp_path, capsys, fields):
    pytest.importorskip("torch", reason="the other implementation is PyTorch (extra dev)")
    from tests.support.torch_references import make_reference

    path = make_reference(tmp_path / "made.npz", **fields)
    assert comparison.main([str(path)]) == 0, capsys.readouterr()
