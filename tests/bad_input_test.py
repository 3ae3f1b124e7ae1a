"""A user's mistake ends in one clear line: what, where, what to do. No traceback, no leftovers."""

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.commands import assert_one_clear_line, run, small_store

ENTITY = {"id": "Q1", "name": "Springfield", "description": "a city", "image": None}
MENTION = {
    "id": "m1",
    "text": "Snow in Springfield.",
    "start": 8,
    "end": 19,
    "image": None,
    "entity": "Q1",
}


def write_corpus(root: Path, entities: list | None = None, mentions: list | None = None) -> str:
    """A JSONL corpus of three mentions, or of what is given; returns its flag."""
    root.mkdir()
    if mentions is None:
        mentions = [
            MENTION | {"id": f"m{i}", "split": split, "text": f"Snow in Springfield{'!' * i}"}
            for i, split in enumerate(("train", "valid", "test"))
        ]
    for name, items in (("entities", entities or [ENTITY]), ("mentions", mentions)):
        lines = [item if isinstance(item, str) else json.dumps(item) for item in items]
        (root / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines))
    return f"--config.data.root={root}"


def flags(tmp: Path, *more: str, config: str = "configs/common.py") -> list[str]:
    return [f"--config={config}", f"--workdir={tmp / 'work'}", *more]


def edit_store(tmp: Path, edit: Callable[[Path], None]) -> list[str]:
    """Flags over a store that was edited after it was made."""
    store = small_store(tmp / "store")
    edit(store)
    return flags(tmp, f"--config.data.store={store}", "--config.train.batch=4")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def save(path: Path, array: np.ndarray) -> None:
    np.save(path, array)


def trained_workdir(tmp: Path) -> list[str]:
    """Flags of a run that is over, with several checkpoints; it was run once for all that ask."""
    for name in ("store", "work"):
        shutil.copytree(_trained() / name, tmp / name)
    return _trained_flags(tmp)


def _trained_flags(tmp: Path) -> list[str]:
    return flags(
        tmp,
        f"--config.data.store={tmp / 'store'}",
        "--config.model.width=8",
        *("--config.train.batch=4", "--config.train.epochs=1", "--config.train.save_every=2"),
    )


@functools.cache
def _trained() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="drin_jax_trained_")
    atexit.register(folder.cleanup)
    tmp = Path(folder.name)
    small_store(tmp / "store")
    result = run("drin_jax.main", *_trained_flags(tmp))
    assert result.returncode == 0, result.stderr
    return tmp


def damage_checkpoints(tmp: Path) -> list[str]:
    args = trained_workdir(tmp)
    for path in (tmp / "work" / "checkpoints").rglob("*"):
        if path.is_file() and "d" in path.parent.name and path.stat().st_size > 100:
            truncate(path)
    return args


def two(mention: dict) -> list[dict]:
    return [MENTION | mention | {"split": "train"}]


CASES: dict[str, tuple[Callable[[Path], list[str]], tuple[str, ...]]] = {
    "no config": (lambda tmp: [f"--workdir={tmp / 'work'}"], ("--config is missing",)),
    "no workdir": (lambda tmp: ["--config=configs/common.py"], ("--workdir is missing",)),
    "missing folder": (lambda tmp: flags(tmp, f"--config.data.root={tmp / 'no'}"), ("no",)),
    "missing file": (
        lambda tmp: flags(tmp, write_corpus(tmp / "raw"), f"--config.data.root={tmp}"),
        ("mentions.jsonl",),
    ),
    "wikidiverse without data": (
        lambda tmp: flags(tmp, f"--config.data.root={tmp / 'no'}", config="configs/wikidiverse.py"),
        ("github.com/wangxw5/wikiDiverse", "--config.data.root=DIR"),
    ),
    "wikimel without data": (
        lambda tmp: flags(tmp, f"--config.data.root={tmp / 'no'}", config="configs/wikimel.py"),
        ("github.com/seukgcode/MEL-GHMFC", "--config.data.root=DIR"),
    ),
    "broken json": (
        lambda tmp: flags(tmp, write_corpus(tmp / "raw", mentions=['{"id": '])),
        ("mentions.jsonl:1",),
    ),
    "span outside its text": (
        lambda tmp: flags(tmp, write_corpus(tmp / "raw", mentions=two({"end": 99}))),
        ("mentions.jsonl:1", "99"),
    ),
    "duplicate entity": (
        lambda tmp: flags(tmp, write_corpus(tmp / "raw", entities=[ENTITY, ENTITY])),
        ("entities.jsonl:2", "Q1"),
    ),
    "duplicate mention": (
        lambda tmp: flags(tmp, write_corpus(tmp / "raw", mentions=two({}) * 2)),
        ("mentions.jsonl:2", "m1"),
    ),
    "empty split": (
        lambda tmp: flags(tmp, write_corpus(tmp / "raw", mentions=two({}))),
        ("split is empty",),
    ),
    "hub unreachable": (
        lambda tmp: flags(
            tmp, write_corpus(tmp / "raw"), "--config.encoders.text=nobody/no-such-model-here"
        ),
        ("nobody/no-such-model-here",),
    ),
    "encoder folder without weights": (
        lambda tmp: flags(tmp, write_corpus(tmp / "raw"), f"--config.encoders.text={tmp}"),
        ("config.json",),
    ),
    "truncated array": (
        lambda tmp: edit_store(tmp, lambda s: truncate(s / "kb" / "000001" / "entity_text.npy")),
        ("kb/000001/entity_text.npy",),
    ),
    "foreign array": (
        lambda tmp: edit_store(tmp, lambda s: (s / "train_edges.npy").write_text("hello")),
        ("train_edges.npy",),
    ),
    "wrong shape": (
        lambda tmp: edit_store(
            tmp, lambda s: save(s / "mention_text.npy", np.zeros((2, 2), np.float32))
        ),
        ("mention_text.npy",),
    ),
    "wrong dtype": (
        lambda tmp: edit_store(tmp, lambda s: save(s / "train_gold.npy", np.zeros(13))),
        ("train_gold.npy",),
    ),
    "missing array": (
        lambda tmp: edit_store(tmp, lambda s: (s / "test_gold.npy").unlink()),
        ("test_gold.npy",),
    ),
    "damaged store.json": (
        lambda tmp: edit_store(tmp, lambda s: truncate(s / "store.json")),
        ("store.json",),
    ),
    "store made from other settings": (
        lambda tmp: [*edit_store(tmp, lambda s: None), "--config.text.entity={name}"],
        ("text.entity",),
    ),
    "more candidates than stored": (
        lambda tmp: [*edit_store(tmp, lambda s: None), "--config.graph.r=50"],
        ("graph.r is 50",),
    ),
    "batch that does not divide": (
        lambda tmp: [*edit_store(tmp, lambda s: None), "--config.train.batch=0"],
        ("train.batch is 0",),
    ),
    "no fields for a group": (
        lambda tmp: flags(tmp, "--config.graph={}"),
        ("the config has no graph.", "single fields"),
    ),
    "unknown loss": (lambda tmp: flags(tmp, "--config.loss.form=best"), ("paper_own",)),
    "unknown model": (
        lambda tmp: [*edit_store(tmp, lambda s: None), "--config.model.name=gpt"],
        ("gpt", "drin"),
    ),
    "unknown relation": (
        lambda tmp: flags(tmp, "--config.graph.relations=('tt','xx')"),
        ("xx", "vv"),
    ),
    "more devices than there are": (
        lambda tmp: [*edit_store(tmp, lambda s: None), "--config.parallel.devices=3"],
        ("parallel.devices is 3",),
    ),
    "workdir of another config": (
        lambda tmp: [*trained_workdir(tmp), "--config.model.width=16"],
        ("another config", "model.width 8 -> 16"),
    ),
    "unreadable checkpoint": (damage_checkpoints, ("unreadable checkpoint", "checkpoints/")),
    "damaged config.json": (
        lambda tmp: [
            *flags(tmp, "--config.data.root=x"),
            *((tmp / "work").mkdir() or []),
            *((tmp / "work" / "config.json").write_text("{") and []),
        ],
        ("config.json",),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_line(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    prepare, words = CASES[case]
    result = run("drin_jax.main", *prepare(tmp_path))
    assert_one_clear_line(result, *words)
    work = tmp_path / "work"
    assert not list(work.rglob("report.*")) or case in ("workdir of another config",
                                                        "unreadable checkpoint")  # fmt: skip
    assert not (work / "store").exists()


BAD_FLAGS = {
    "unknown field": ("--config=configs/common.py", "--config.train.epoch=3", ("epoch", "epochs")),
    "value of another type": ("--config=configs/common.py", "--config.seed=abc", ("seed", "abc")),
    "number of one that has none": ("--config=configs/common.py", "--config.seed[0]=1", ("seed",)),
    "value nested too deeply": (
        "--config=configs/common.py",
        f"--config.eval.ks={'-' * 30_000}1",  # 3.13's parser takes 5,000
        ("nested",),
    ),
    "missing config": ("--config=configs/nosuch.py", "--workdir=w", ("configs/nosuch.py",)),
    "unknown flag": ("--config=configs/common.py", "--foo=3", ("foo",)),
    "stray argument": ("--config=configs/common.py", "foo", ("foo",)),
}


@pytest.mark.parametrize("case", BAD_FLAGS)
@pytest.mark.parametrize("module", ["drin_jax.main", "drin_jax.audit"])
def test_bad_flags(case: str, module: str) -> None:
    *args, words = BAD_FLAGS[case]
    assert_one_clear_line(run(module, *args), *words, code=2)


def test_help_tells_the_command() -> None:
    result = run("drin_jax.main", "--help")
    assert result.returncode == 0
    assert "python -m drin_jax.main --config=" in result.stdout + result.stderr
    assert "--workdir" in result.stdout + result.stderr


def test_a_workdir_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file")
    assert_one_clear_line(run("drin_jax.main", *flags(tmp_path)), "work")


def test_a_damaged_last_checkpoint_leaves_the_one_before(tmp_path: Path) -> None:
    args = trained_workdir(tmp_path)
    states = tmp_path / "work" / "checkpoints"
    newest = max(states.iterdir(), key=lambda folder: int(folder.name))
    shutil.rmtree(newest)  # what the message of an unreadable checkpoint says to do
    result = run("drin_jax.main", *args)
    assert result.returncode == 0, result.stderr
