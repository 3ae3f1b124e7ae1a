"""The cross-encoder: its rows, its head, and that transformers reads what is written."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from data_pipeline.sample import tiny_bert
from data_pipeline.schema import UserError
from drin_jax.encoders import cross_encoder
from drin_jax.encoders.cross_encoder import CrossEncoder, Pair, PairScore
from tests.support.tolerance import assert_close

LONG = "the river " * 40
PAIRS: list[Pair] = [
    ("Snow fell on the village.", (17, 24), "village. a small place by the river"),
    (f"{LONG}club{LONG}", (400, 404), "club. a team"),
    ("club", None, f"club. {LONG}"),
    (f"{LONG}club{LONG}", (400, 404), LONG),
    ("Snow", (0, 4), ""),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a head."""
    source, out = (tmp_path_factory.mktemp(name) for name in ("bert", "cross"))
    tiny_bert.write(source, seed=0)
    model = cross_encoder.load(source)
    width = model.classifier.kernel.shape[0]
    head = np.random.default_rng(1).normal(size=(width, 1))
    model.classifier.kernel[...] = jnp.asarray(head, jnp.float32)
    model.classifier.bias[...] = jnp.full(1, 0.5)
    cross_encoder.save(model, source, out)
    return out


def test_rows_keep_the_mention_and_the_entitys_beginning(folder: Path) -> None:
    encoder = CrossEncoder(folder, max_length=32)
    tokenizer = encoder.tokenizer
    words = tokenizer._tokenizer.convert_ids_to_tokens
    rows = [(words(row.tolist()), first) for row, first in tokenizer.rows(PAIRS)]
    for row, first in rows:
        assert len(row) <= 32
        assert (row[0], row[first - 1], row[-1]) == ("[CLS]", "[SEP]", "[SEP]")
        assert row.count("[SEP]") == 2
    mention = words(tokenizer._tokenizer("club", add_special_tokens=False)["input_ids"])
    for row, first in rows[1:4]:
        assert " ".join(mention) in " ".join(row[:first])
    # Each may have what the other leaves, and half where both are longer.
    assert [len(row) for row, _ in rows[1:4]] == [32, 32, 32]
    assert rows[3][1] - 2 == 15
    assert rows[4][0][rows[4][1] :] == ["[SEP]"]


def test_scores_are_the_heads_over_the_pooled_first_token(folder: Path) -> None:
    encoder = CrossEncoder(folder, max_length=48, batch_tokens=96)
    weights = load_file(folder / "model.safetensors")
    model = cross_encoder.load(folder)
    expected = []
    for row, first in encoder.tokenizer.rows(PAIRS):
        kinds = (np.arange(len(row)) >= first).astype(np.int32)[None]
        mask = jnp.ones((1, len(row)), jnp.int32)
        hidden, _ = model.bert(jnp.asarray(row[None]), mask, jnp.asarray(kinds))
        pooled = np.tanh(
            weights["bert.pooler.dense.weight"] @ np.asarray(hidden)[0, 0]
            + weights["bert.pooler.dense.bias"]
        )
        expected.append(weights["classifier.weight"][0] @ pooled + weights["classifier.bias"][0])
    assert_close(encoder.scores(PAIRS), np.array(expected))
    assert np.ptp(expected) > 0.01
    assert encoder.scores([]).shape == (0,)


def test_transformers_reads_it_and_scores_the_same(folder: Path) -> None:
    torch = pytest.importorskip(
        "torch",
        reason="torch is not there; test_scores_are_the_heads_over_the_pooled_first_token holds "
        "the head, and bert_test the encoder, without it",
    )
    from transformers import AutoModelForSequenceClassification

    theirs = AutoModelForSequenceClassification.from_pretrained(folder)
    assert type(theirs).__name__ == "BertForSequenceClassification"
    encoder = CrossEncoder(folder, max_length=48)
    expected = []
    with torch.no_grad():
        for row, first in encoder.tokenizer.rows(PAIRS):
            ids = torch.tensor(row[None].astype(np.int64))
            kinds = torch.tensor((np.arange(len(row)) >= first).astype(np.int64)[None])
            expected.append(float(theirs(input_ids=ids, token_type_ids=kinds).logits))
    assert_close(encoder.scores(PAIRS), np.array(expected, np.float32))


def test_a_bert_without_a_head_begins_by_saying_nothing(tmp_path: Path) -> None:
    tiny_bert.write(tmp_path, seed=0)
    assert (CrossEncoder(tmp_path).scores(PAIRS) == 0).all()


def test_a_head_of_other_labels_begins_anew(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    two = np.repeat(weights["classifier.weight"], 2, 0)
    weights |= {"classifier.weight": two, "classifier.bias": np.zeros(2, np.float32)}
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(weights, tmp_path / "model.safetensors")
    assert (CrossEncoder(tmp_path).scores(PAIRS) == 0).all()


def test_a_bert_of_one_text_is_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"type_vocab_size": 1}))
    weights = load_file(tmp_path / "model.safetensors")
    name = "bert.embeddings.token_type_embeddings.weight"
    save_file(weights | {name: weights[name][:1]}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="knows no second text"):
        CrossEncoder(tmp_path)


def test_what_is_saved_is_what_is_loaded(folder: Path, tmp_path: Path) -> None:
    model = cross_encoder.load(folder)
    cross_encoder.save(model, folder, tmp_path)
    again = cross_encoder.load(tmp_path)
    assert isinstance(again, PairScore)
    for a, b in zip(*(nnx.to_flat_state(nnx.state(one)) for one in (model, again)), strict=True):
        assert a[0] == b[0]
        np.testing.assert_array_equal(a[1][...], b[1][...])
