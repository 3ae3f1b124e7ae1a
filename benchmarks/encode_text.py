"""Sentences a second through the text encoder: length buckets against padding to 512 tokens.

    python -m benchmarks.encode_text --encoder DIR [--data WIKIMEL_DIR] [--texts N] [--json FILE]

Ours encodes unique sentences in length buckets, mention span and CLS pooled. It is held against the
published way (every text padded to 512 tokens) in the same encoder, against transformers' PyTorch
BertModel on our very batches, and against the rate of a plain matrix product in the same run.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipeline.output import Progress
from data_pipeline.schema import UserError
from drin_jax.encoders.frozen import plan
from drin_jax.encoders.text_encoder import TextEncoder

PADDED = 512
POOLINGS = ("span", "cls")
Text = tuple[str, tuple[int, int]]


def wikimel(folder: Path, count: int) -> list[Text]:
    """Sentences of WikiMEL with the place of their first mention, drawn with a fixed seed."""
    path = folder / "Wikidata-MEL.json"
    try:
        samples = json.loads(path.read_text(encoding="utf-8")).values()
    except FileNotFoundError:
        raise UserError(f"{path}: missing; pass WikiMEL's folder as --data") from None
    found = {}
    for sample in samples:
        text, name = sample["sentence"], sample["mentions"][0]
        if name and (at := text.find(name)) >= 0:
            found[text] = (at, at + len(name))
    order = np.random.default_rng(0).permutation(len(found))[:count]
    items = list(found.items())
    return [items[i] for i in order]


def synthetic(count: int) -> list[Text]:
    """Random words, about as many to a text as WikiMEL's sentences have."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlu"))
    texts = []
    for words in np.clip(rng.lognormal(2.2, 0.6, count), 2, 200).astype(int):
        drawn = ["".join(rng.choice(letters, n)) for n in rng.integers(2, 8, words)]
        texts.append((" ".join(drawn), (0, len(drawn[0]))))
    return texts


def best(run: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of `repeats` runs, after one that compiles."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return min(times)


def matmul_rate(size: int = 2048) -> float:
    """Floating-point operations a second of a float32 matrix product."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda x: jax.numpy.matmul(x, x, precision="highest"))
    return 2 * size**3 / best(lambda: product(a), 5)


def padded_run(encoder: TextEncoder, texts: list[Text]) -> Callable[[], Any]:
    """The published way: every text padded to the longest length there is."""
    length = min(PADDED, encoder.max_length)
    size = max(1, encoder.batch_tokens // length) * jax.local_device_count()

    def run() -> list[Any]:
        ids, jobs = encoder._windows([t for t, _ in texts], [s for _, s in texts], True)
        return [
            encoder(POOLINGS, encoder._batch(ids, jobs[i : i + size], length, size))
            for i in range(0, len(jobs), size)
        ]

    return run


def torch_run(encoder: TextEncoder, texts: list[Text]) -> Callable[[], Any] | None:
    """transformers' PyTorch BertModel on the same batches, or None without PyTorch."""
    try:
        import torch
        import transformers
    except ImportError:
        return None
    transformers.utils.logging.disable_progress_bar()
    model = transformers.BertModel.from_pretrained(encoder.folder).eval()

    def run() -> list[np.ndarray]:
        ids, jobs = encoder._windows([t for t, _ in texts], [s for _, s in texts], True)
        lengths = np.asarray([job.length for job in jobs])
        out = []
        for rows, length, size in plan(lengths, encoder.max_length, encoder.batch_tokens):
            batch = encoder._batch(ids, [jobs[i] for i in rows], length, size)
            tokens, count, start, end = (torch.from_numpy(a).long() for a in batch)
            at = torch.arange(length)
            with torch.inference_mode():
                mask = (at < count[:, None]).long()
                hidden = model(tokens, attention_mask=mask).last_hidden_state
                inside = ((at >= start[:, None]) & (at < end[:, None])).float()
                span = (inside[:, None] @ hidden)[:, 0] / inside.sum(1, keepdim=True).clamp(min=1)
                out.append(torch.stack([span, hidden[:, 0]]).numpy())
        return out

    return run


def operations(encoder: TextEncoder, texts: list[Text]) -> tuple[float, float, float]:
    """Floating-point operations of our batches, their padded tokens, and the real tokens."""
    config = json.loads((encoder.folder / "config.json").read_text())
    d, f, layers = (
        config[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    _, jobs = encoder._windows([t for t, _ in texts], [s for _, s in texts], True)
    lengths = np.asarray([job.length for job in jobs])
    total = tokens = 0.0
    devices = jax.local_device_count()
    for _, length, size in plan(lengths, encoder.max_length, encoder.batch_tokens, devices):
        tokens += length * size
        total += length * size * layers * (8 * d * d + 4 * d * f + 4 * length * d)
    return total, tokens, float(lengths.sum())


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Every number the report prints."""
    encoder = TextEncoder(args.encoder, dtype=args.dtype, batch_tokens=args.batch_tokens)
    texts = wikimel(args.data, args.texts) if args.data else synthetic(args.texts)
    sentences, spans = [text for text, _ in texts], [span for _, span in texts]
    with Progress("encode_text", 5, unit="measurements") as bar:
        begin = time.perf_counter()
        encoder.encode(sentences, spans, POOLINGS)
        first = time.perf_counter() - begin
        bar.advance()
        ours = best(lambda: encoder.encode(sentences, spans, POOLINGS), args.repeats)
        bar.advance()
        few = texts[: args.padded_texts]
        padded = best(padded_run(encoder, few), 1) / len(few) * len(texts)
        bar.advance()
        peer = torch_run(encoder, texts) if args.dtype == "float32" else None
        torch_seconds = best(peer, args.repeats) if peer else None
        bar.advance()
        rate = matmul_rate()
        bar.advance()
    total, tokens, real = operations(encoder, texts)
    return {
        "benchmark": "encode_text",
        "device": jax.local_devices()[0].device_kind,
        "encoder": Path(args.encoder).name,
        "dtype": args.dtype,
        "data": "WikiMEL" if args.data else "synthetic",
        "texts": len(texts),
        "tokens_per_text": real / len(texts),
        "padding": tokens / real,
        "ours_per_s": len(texts) / ours,
        "first_call_s": first,
        "padded512_per_s": len(texts) / padded,
        "ratio_padded512": padded / ours,
        "torch_per_s": len(texts) / torch_seconds if torch_seconds else None,
        "ratio_torch": torch_seconds / ours if torch_seconds else None,
        "matmul_gflops": rate / 1e9,
        "share_of_matmul": total / ours / rate,
    }


def report(row: dict[str, Any]) -> str:
    lines = [
        f"{row['texts']} {row['data']} sentences, {row['tokens_per_text']:.1f} tokens each, "
        f"{row['encoder']} {row['dtype']} on {row['device']}",
        f"ours, length buckets        {row['ours_per_s']:9.1f} sentences/s   "
        f"(padding {row['padding']:.2f}x; first call with compilation {row['first_call_s']:.1f} s)",
        f"ours, padded to 512         {row['padded512_per_s']:9.1f} sentences/s   "
        f"{row['ratio_padded512']:.1f}x slower (goal: 15x)",
    ]
    if row["torch_per_s"]:
        lines.append(
            f"PyTorch, our buckets        {row['torch_per_s']:9.1f} sentences/s   "
            f"{row['ratio_torch']:.2f}x ours' time"
        )
    lines.append(
        f"limit: a matrix product runs at {row['matmul_gflops']:.0f} Gflop/s; "
        f"ours reaches {row['share_of_matmul']:.0%} of it, padding counted as work"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="bert-base-cased", help="folder or Hugging Face id")
    parser.add_argument("--data", type=Path, help="WikiMEL's folder; without it, random words")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--padded-texts", type=int, default=64, help="texts timed at 512 tokens")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    try:
        row = measure(args)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(report(row))
    print(json.dumps(row))
    if args.json:
        args.json.write_text(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
