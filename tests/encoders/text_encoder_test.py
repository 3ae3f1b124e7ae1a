"""Texts to vectors: tokens, spans, cuts, poolings, batches."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.schema import POOLINGS, UserError
from drin_jax.encoders import text_encoder
from drin_jax.encoders.bert import load_bert
from drin_jax.encoders.frozen import FEW, LENGTHS, plan, shapes
from drin_jax.encoders.text_encoder import TextEncoder, token_span
from tests.encoders.bert_test import golden_weights, minilm, write_checkpoint
from tests.support.tolerance import assert_close

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = """
    the a play ##ing ##er ##s ##ed in paris Paris ##land zoe Zoe kahl ##o frida Frida , . 東 京
    I i saw by river new york New York
"""
WORDS = [*SPECIAL, *PIECES.split()]


def write_encoder(folder: Path, *, cased: bool = False, **kwargs) -> Path:
    """A tiny BERT with 64 tokens, 40 positions, width 32."""
    write_checkpoint(folder, **kwargs)
    vocab = WORDS + [f"[unused{i}]" for i in range(64 - len(WORDS))]
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": not cased})
    )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("bert") / "uncased")


@pytest.fixture(scope="module")
def encoder(folder) -> TextEncoder:
    return TextEncoder(folder, batch_tokens=64)


@pytest.fixture(scope="module")
def hidden(folder):
    """Hidden states [s, d] and pooler output [d] of words given by name, one text at a time."""
    model = load_bert(folder)
    run = jax.jit(lambda ids, mask: model(ids, mask))

    def states(words: str) -> tuple[np.ndarray, np.ndarray]:
        ids = [WORDS.index(word) for word in words.split()]
        padded = jnp.asarray([ids + [0] * (40 - len(ids))])
        sequence, pooled = run(padded, jnp.arange(40)[None] < len(ids))
        return np.asarray(sequence[0, : len(ids)]), np.asarray(pooled[0])

    return states


TEXTS = [
    # text, mention, its tokens in the model's input, the model's input
    ("the players in Paris", "players", (2, 5), "[CLS] the play ##er ##s in paris [SEP]"),
    ("Zoë saw the river.", "Zoë", (1, 2), "[CLS] zoe saw the river . [SEP]"),
    ("I saw FRIDA Kahlo", "FRIDA Kahlo", (3, 6), "[CLS] i saw frida kahl ##o [SEP]"),
    ("東京 by a river", "京", (2, 3), "[CLS] 東 京 by a river [SEP]"),
    ("playing in Parisland", "island", (4, 6), "[CLS] play ##ing in paris ##land [SEP]"),
    ("xyzzy, the river", "xyzzy", (1, 2), "[CLS] [UNK] , the river [SEP]"),
    ("in New York", "", (0, 1), "[CLS] in new york [SEP]"),
    ("", "", (0, 1), "[CLS] [SEP]"),
]


def test_every_pooling_by_hand(encoder, hidden):
    texts = [text for text, *_ in TEXTS]
    spans = [(t.index(m), t.index(m) + len(m)) if m else None for t, m, *_ in TEXTS]
    vectors = encoder.encode(texts, spans, POOLINGS)
    assert set(vectors) == set(POOLINGS)
    for row, (_, _, (first, last), words) in enumerate(TEXTS):
        sequence, pooled = hidden(words)
        expected = {
            "span": sequence[first:last].mean(0),
            "cls": sequence[0],
            "mean": sequence.mean(0),
            "inner": sequence[1:-1].mean(0) if len(sequence) > 2 else sequence[0],
            "pooler": pooled,
        }
        for kind, vector in expected.items():
            assert vectors[kind].dtype == np.float32
            assert_close(vectors[kind][row], vector, kind)
    alone = encoder.encode(texts, None, ["cls"])  # computes the first token alone
    assert_close(alone["cls"], vectors["cls"])


def test_cased_tokens(tmp_path):
    encoder = TextEncoder(write_encoder(tmp_path / "cased", cased=True))
    counts, ends = encoder.token_counts(["I saw Paris, paris"], [(6, 11)], 40)
    assert (counts.tolist(), ends.tolist()) == ([7], [[3, 4]])
    one, other = encoder.encode(["Paris", "paris"], None, ["cls"])["cls"]
    assert np.abs(one - other).max() > 1e-3


def test_token_span():
    offsets = [(0, 4), (4, 7), (8, 9), (9, 9), (10, 15)]
    assert token_span(offsets, (0, 4)) == (0, 1)
    assert token_span(offsets, (3, 5)) == (0, 2)
    assert token_span(offsets, (10, 15)) == (4, 5)
    assert token_span(offsets, (8, 12)) == (2, 5)
    assert token_span(offsets, (7, 8)) == (0, 0)  # a blank


def test_span_without_a_token_is_cls(encoder):
    out = encoder.encode(["in  Paris"], [(2, 4)], ["span", "cls"])
    np.testing.assert_array_equal(out["span"], out["cls"])


def test_long_text_is_cut_around_the_mention(encoder, hidden):
    words = ["river"] * 45 + ["frida", "kahl", "##o"] + ["the"] * 50
    text = " ".join(["river"] * 45 + ["Frida", "Kahlo"] + ["the"] * 50)
    start = text.index("Frida")
    end = start + len("Frida Kahlo")
    out = encoder.encode([text, text], [(start, end), None], ["span", "cls", "mean"])
    low = (45 + 48 - 38) // 2
    window, _ = hidden(" ".join(["[CLS]", *words[low : low + 38], "[SEP]"]))
    head, _ = hidden(" ".join(["[CLS]", *words[:38], "[SEP]"]))
    assert_close(out["span"][0], window[46 - low : 49 - low].mean(0))
    assert_close(out["mean"], np.stack([window.mean(0), head.mean(0)]))
    assert_close(out["cls"], np.stack([window[0], head[0]]))


@pytest.mark.parametrize("at", [0, 7, 60, 118, 119])
def test_cut_keeps_mentions_at_both_ends(encoder, at):
    text = " ".join(["the"] * at + ["Paris"] + ["river"] * (119 - at))
    counts, ends = encoder.token_counts([text], [(at * 4, at * 4 + 5)], 40)
    low = max(min((2 * at + 1 - 38) // 2, 120 - 38), 0)  # 38 tokens from here on, behind CLS
    assert (counts.tolist(), ends.tolist()) == ([40], [[at - low + 1, at - low + 2]])


def test_mention_longer_than_the_limit_fills_the_window(encoder):
    text = " ".join(["the"] * 20 + ["Paris"] * 60)
    counts, ends = encoder.token_counts([text], [(80, len(text))], 40)
    assert (counts.tolist(), ends.tolist()) == ([40], [[1, 39]])


def test_equal_texts_run_once_and_compile_once(encoder, monkeypatch):
    ran = []

    def watched(lengths, *limits):
        ran.extend(lengths)
        return plan(lengths, *limits)

    monkeypatch.setattr(text_encoder, "plan", watched)
    texts = ["the river"] * 50 + ["a river"] * 50
    spans = [(0, 3), (4, 9)] * 25 + [None] * 50
    out = encoder.encode(texts, spans, ["span", "cls"])
    assert len(ran) == 3
    np.testing.assert_array_equal(out["cls"][0], out["cls"][2])
    ran.clear()
    again = encoder.encode(texts, spans, ["cls"])["cls"]
    assert_close(again, out["cls"])
    assert len(ran) == 2  # no span is asked for, so its place makes no difference
    compiled = encoder.compiled()
    encoder.encode(["in York"] * 3 + ["by york", "new york"], [(0, 2)] * 5, ["cls", "span"])
    assert encoder.compiled() == compiled


def test_a_vector_does_not_depend_on_its_company(encoder):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[5:], rng.integers(0, 60))) for _ in range(90)]
    spans = [(0, len(text) // 2) if len(text) > 4 else None for text in texts]
    whole = encoder.encode(texts, spans, POOLINGS)
    for rows in (slice(0, 90, 7), slice(40, 75), slice(3, 4)):
        part = encoder.encode(texts[rows], spans[rows], POOLINGS)
        for kind in POOLINGS:
            assert_close(part[kind], whole[kind][rows])


def test_plan_covers_each_text_once_with_one_size_a_length():
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.geometric(0.03, 3000) + 2, 300)
    sizes: dict[int, set[int]] = {}
    seen: list[int] = []
    computed = 0
    for rows, length, size in plan(lengths, 300, 4096, devices=3):
        assert len(rows) <= size
        assert lengths[rows].max() <= length
        sizes.setdefault(length, set()).add(size)
        seen += rows.tolist()
        computed += length * size
    assert sorted(seen) == list(range(3000))
    assert set(sizes) <= {*LENGTHS, 300}
    assert all(found == {4096 // length * 3} for length, found in sizes.items())
    assert computed < 1.7 * lengths.sum()  # padded to 300 it would be 8.6 times


@pytest.mark.parametrize("devices", [1, 3])
def test_plan_of_few_texts_has_small_batches_and_little_padding(devices):
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.geometric(0.06, FEW) + 2, 300)
    known = {*shapes(FEW, 512, 4096, devices)}
    for n in (1, 3, 9, 64, FEW):
        found = [*plan(lengths[:n], 512, 4096, devices)]
        assert sorted(np.concatenate([rows for rows, _, _ in found]).tolist()) == [*range(n)]
        assert all(lengths[rows].max() <= length for rows, length, _ in found)
        assert {(length, size) for _, length, size in found} <= known
        assert all(size == devices or size * length <= 1200 * devices for _, length, size in found)
    assert sum(length * size for _, length, size in found) < 1.4 * lengths.sum()
    assert not list(plan(np.array([], int), 512, 4096))


def test_plan_of_a_few_texts_shares_a_batch_where_that_is_sooner():
    alike = [(rows.tolist(), n, size) for rows, n, size in plan(np.full(7, 9), 512, 4096)]
    assert alike == [([*range(7)], 12, 8)]
    apart = [(rows.tolist(), n, size) for rows, n, size in plan(np.array([400, 9]), 512, 4096)]
    assert apart == [([1], 12, 1), ([0], 512, 1)]


def test_what_the_caller_gets_wrong(encoder, folder):
    for span in [(3, 3), (4, 99), (-1, 2)]:
        with pytest.raises(UserError, match=r"text 1 .* outside its 9 characters"):
            encoder.encode(["a", "the river"], [None, span], ["span"])
    with pytest.raises(UserError, match="2 texts came with 1 spans"):
        encoder.encode(["a", "the"], [None], ["cls"])
    with pytest.raises(UserError, match="pooling 'max' is unknown"):
        encoder.encode(["a"], None, ["max"])
    with pytest.raises(UserError, match="dtype is 'float8'"):
        TextEncoder(folder, dtype="float8")
    with pytest.raises(UserError, match="max_length is 2"):
        TextEncoder(folder, max_length=2)


def test_what_a_folder_gets_wrong(tmp_path):
    bare = {k: v for k, v in golden_weights().items() if not k.startswith("pooler")}
    encoder = TextEncoder(write_encoder(tmp_path / "bare", weights=bare))
    assert encoder.encode(["a"], None, ["cls"])["cls"].shape == (1, 32)
    with pytest.raises(UserError, match="no pooler"):
        encoder.encode(["a"], None, ["pooler"])
    (tmp_path / "bare/tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(UserError, match="tokenizer") as caught:
        TextEncoder(tmp_path / "bare")
    assert "\n" not in str(caught.value)
    (tmp_path / "bare/tokenizer.json").unlink()
    with open(tmp_path / "bare/vocab.txt", "a") as file:
        file.write("more\n")
    with pytest.raises(UserError, match="65 tokens"):
        TextEncoder(tmp_path / "bare")
    (tmp_path / "bare/tokenizer_config.json").unlink()
    with pytest.raises(UserError, match="tokenizer_config"):
        TextEncoder(tmp_path / "bare")


def test_real_minilm_span_mean_like_pytorch():
    folder = minilm()
    torch = pytest.importorskip("torch", reason="PyTorch is the reference")
    import transformers

    text, name = "Frida Kahlo (left) met Zoë Łukasz's playwright in Coyoacán, 1932", "Zoë Łukasz"
    start = text.index(name)
    span = (start, start + len(name))
    encoder = TextEncoder(folder)
    out = encoder.encode([text, "a"], [span, None], ["span", "mean"])
    given = transformers.AutoTokenizer.from_pretrained(folder)(
        text, return_tensors="pt", return_offsets_mapping=True
    )
    offsets = given.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        states = transformers.BertModel.from_pretrained(folder).eval()(**given).last_hidden_state
    sequence = states[0].numpy()
    inside = [i for i, (a, b) in enumerate(offsets) if max(a, span[0]) < min(b, span[1])]
    assert len(inside) > 2
    assert_close(out["span"][0], sequence[inside].mean(0))
    assert_close(out["mean"][0], sequence.mean(0))
    assert encoder.fingerprint == TextEncoder(folder).fingerprint
