"""A tiny BERT with fixed weights for the sample world, in Hugging Face's folder layout.

Random BERT weights of the usual size make every [CLS] vector nearly the same. These are random too,
but laid out: the hidden vector keeps a word's content, its position and a "no content" flag in
separate coordinates; heads attend by distance, so a token mixes with its neighbours, while [CLS],
which cancels its own position, attends to all tokens alike and becomes a bag of content words.
"""

import json
from pathlib import Path

import numpy as np

from data_pipeline.files import write_tensors
from data_pipeline.sample import lexicon as words

WIDTH, CONTENT, POSITION, HEADS, LAYERS, FEED_FORWARD = 128, 96, 24, 4, 2, 128
MAX_LENGTH = 512
REACH = 3.5  # standard deviation, in tokens, of a head's attention around a token
SHARPNESS = 6.0  # logit of the nearest token above that of a distant one
GAIN = (4.0, 0.5)  # of what attention adds to a token, by layer
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_FLAG = CONTENT + POSITION


def known_words() -> set[str]:
    """Every word of the world's texts, in lower case."""
    found: set[str] = {w for group in _word_groups().values() for w in group}
    found |= {w for text in _sentences() for w in _split(text)}
    found |= {*words.SHAPES, *words.PATTERNS.values(), *words.COLOURS}
    return found | set(words.FUNCTION_WORDS) | {name.lower() for name in words.names()}


def vocabulary() -> list[str]:
    """Every word of the world, and letters, digits and signs so that other text is spelled out."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [*letters, *("##" + c for c in letters), *".,;:!?'\"()-&/"]
    return [*_SPECIAL, *pieces, *sorted(known_words() - set(pieces))]


def write(folder: Path, seed: int) -> None:
    """Writes `config.json`, `model.safetensors`, `vocab.txt` and the tokenizer's settings."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab = vocabulary()
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": len(vocab),
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": FEED_FORWARD,
        "hidden_act": "gelu",
        "max_position_embeddings": MAX_LENGTH,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    }
    tokenizer = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": MAX_LENGTH,
        **{f"{name[1:-1].lower()}_token": name for name in _SPECIAL},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2) + "\n")
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n")
    write_tensors(folder / "model.safetensors", _weights(vocab, seed), {"format": "pt"})


def _split(text: str) -> list[str]:
    return "".join(c if c.isalpha() else " " for c in text.lower()).split()


def _sentences() -> list[str]:
    """All templates, their slots left out."""
    cores = [c for group in words.CORES.values() for c in group]
    texts = [*cores, *words.DESCRIPTIONS, *words.PLACES, *words.RARE_PLACES]
    return [
        "".join(part.partition("}")[2] if "}" in part else part for part in t.split("{"))
        for t in texts
    ]


def _word_groups() -> dict[str, list[str]]:
    """Words of one field: their embeddings lie close, as a trained model's do."""
    groups = {k: [k, *v.split()] for k, v in words.TYPES.items()}
    groups |= {k: v.split() for k, v in words.TOPICS.items()}
    groups |= {k: [*plain, *rare] for k, (plain, rare) in words.SCENES.items()}
    groups |= {word: [word] for word in words.HERALDIC.values()}
    openings = (*words.WHEN, *words.WHO, *words.SAID)
    groups["openings"] = [w for text in openings for w in _split(text)]
    return groups


def _embeddings(vocab: list[str], rng: np.random.Generator) -> np.ndarray:
    """Unit vectors [V, d]: content, and a flag for what content lacks."""

    def direction() -> np.ndarray:
        x = rng.normal(size=CONTENT)
        return x / np.linalg.norm(x)

    vectors = {word: direction() for word in vocab}
    share = dict.fromkeys(vocab, 0.1)  # of content in a word that belongs to no group
    for name, group in _word_groups().items():
        centre = direction()
        for word in group:
            mixed = 0.65 * centre + 0.76 * vectors[word]
            vectors[word] = mixed / np.linalg.norm(mixed)
            share[word] = 0.05 if name == "openings" else 0.9 if len(group) == 1 else 0.55
    share |= {name.lower(): 0.7 for name in words.names()}
    share |= dict.fromkeys((*words.FUNCTION_WORDS, *_SPECIAL, *".,;:!?'\"()-&/"), 0.0)
    out = np.zeros((len(vocab), WIDTH))
    for row, word in zip(out, vocab, strict=True):
        row[:CONTENT] = share[word] * vectors[word]
        row[_FLAG] = np.sqrt(1 - share[word] ** 2)
    return out


def _weights(vocab: list[str], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    word = _embeddings(vocab, rng)
    # Random Fourier features of the position: their dot product is a bell over the distance.
    frequency = rng.normal(0, 1 / REACH, POSITION // 2)
    phase = np.arange(MAX_LENGTH)[:, None] * frequency
    place = np.zeros((MAX_LENGTH, WIDTH))
    place[:, CONTENT:_FLAG] = np.concatenate([np.cos(phase), np.sin(phase)], 1) / np.sqrt(
        POSITION / 2
    )
    word[vocab.index("[CLS]")] -= place[0]
    weights = {
        "embeddings.word_embeddings.weight": word,
        "embeddings.position_embeddings.weight": place,
        "embeddings.token_type_embeddings.weight": np.zeros((2, WIDTH)),
        "embeddings.LayerNorm.weight": np.ones(WIDTH),
        "embeddings.LayerNorm.bias": np.zeros(WIDTH),
        "pooler.dense.weight": rng.normal(0, 0.3 * WIDTH**-0.5, (WIDTH, WIDTH)),
        "pooler.dense.bias": np.zeros(WIDTH),
    }
    last_scale = np.full(WIDTH, 1.2)
    last_scale[CONTENT:] = 0.02  # positions and flags have served
    for layer in range(LAYERS):
        scale = last_scale if layer == LAYERS - 1 else np.ones(WIDTH)
        weights |= {
            f"encoder.layer.{layer}.{k}": v for k, v in _layer(rng, GAIN[layer], scale).items()
        }
    return {k: np.ascontiguousarray(v, np.float32) for k, v in weights.items()}


def _layer(rng: np.random.Generator, gain: float, scale: np.ndarray) -> dict[str, np.ndarray]:
    size, read = WIDTH // HEADS, CONTENT // HEADS
    query, value, output = (np.zeros((WIDTH, WIDTH)) for _ in range(3))
    for h in range(HEADS):
        rows = slice(h * size, h * size + POSITION)
        query[rows, CONTENT:_FLAG] = np.eye(POSITION)
        value[h * size : h * size + read, h * read : (h + 1) * read] = np.eye(read)
        output[h * read : (h + 1) * read, h * size : h * size + read] = gain * np.eye(read)
    # After a layer norm a position has squared length d / 2, and BERT divides by sqrt(d / heads).
    query *= np.sqrt(SHARPNESS * np.sqrt(size) / (WIDTH / 2))
    inner = rng.normal(0, WIDTH**-0.5, (FEED_FORWARD, WIDTH))
    outer = np.zeros((WIDTH, FEED_FORWARD))
    outer[:CONTENT] = rng.normal(0, 0.1 * FEED_FORWARD**-0.5, (CONTENT, FEED_FORWARD))
    parts = {
        "attention.self.query": query,
        "attention.self.key": query,
        "attention.self.value": value,
        "attention.output.dense": output,
        "intermediate.dense": inner,
        "output.dense": outer,
        "attention.output.LayerNorm": np.ones(WIDTH),
        "output.LayerNorm": scale,
    }
    weights = {f"{name}.weight": part for name, part in parts.items()}
    # Every bias is zero, and as long as what it is added to.
    return weights | {
        name.replace("weight", "bias"): np.zeros(len(weight)) for name, weight in weights.items()
    }
