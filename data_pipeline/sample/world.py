"""The embedded sample: a small world made from a seed, in the form a user's own data would have.

    python -m data_pipeline.sample --root DIR [--seed N]

writes `entities.jsonl`, `mentions.jsonl`, `images/*.png`, the boxes of what is on them
(`boxes.jsonl`), and tiny encoders: a text encoder (`encoder/`) and the ResNet and CLIP of
`tests.golden.make_sample.training` (`resnet/`, `clip/`). The knowledge base's names collide;
kinds of mentions differ in what decides them:

    text       the sentence, against the entity's description                          (tt)
    scene      the picture, against the description: both show or name a scene         (vt)
    emblem     the picture, against the entity's picture: both hold the same charge    (vv)
    described  the sentence, against the entity's picture: it says what that shows     (tv)
    both       the sentence narrows to some namesakes, the picture to others

An entity's picture is tied to its own description only by colours, which the description names in
heraldic words that CLIP never saw: `emblem` and `described` need that tie learned. Every feature is
a function of text or pixels; ids are random, the order of files is shuffled.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_pipeline.files import load_json
from data_pipeline.output import Progress, say
from data_pipeline.sample import drawing, tiny_bert
from data_pipeline.sample.people import make_entities, make_mentions
from data_pipeline.schema import SPLITS, UserError

# The shipped world: a draw that nobody looked at while the generator was tuned.
SEED = 20261122
VERSION = 2  # of the world: another one is made anew
STAMP = "sample.json"
WEIGHTS = Path(__file__).parent / "weights"  # made by tests.golden.make_sample.training
NAMES = 130
SIZES = (3000, 600, 2200)  # mentions of train, valid, test


def generate(
    root: str | Path, *, seed: int = SEED, names: int = NAMES, sizes: tuple[int, int, int] = SIZES
) -> Path:
    """Makes the world under `root` and returns it; does nothing where the same one is there.

    The folder appears whole or not at all. A sample made with other arguments is replaced.

    Args:
        root: the folder; a folder that is not a sample is never touched.
        seed: of everything random.
        names: how many names; each has three to five entities. At most 160.
        sizes: mentions of the train, valid and test split.

    Raises:
        UserError: `root` holds something else, or cannot be written.
    """
    root = Path(root)
    stamp = {"version": VERSION, "seed": seed, "names": names, "sizes": list(sizes)}
    if root.exists():
        made = _stamp(root)
        if made == stamp:
            return root
        if made is None and (not root.is_dir() or any(root.iterdir())):
            raise UserError(
                f"data.root = {root} holds something that is not the sample; name a new folder"
            )
    began = time.perf_counter()
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    except OSError as error:
        raise UserError(f"data.root = {root} cannot be written: {error.strerror}") from None
    try:
        counts = _write(partial, seed, names, dict(zip(SPLITS, sizes, strict=True)))
        (partial / STAMP).write_text(json.dumps(stamp) + "\n")
        partial.chmod(0o755)  # mkdtemp's folders are private
        if root.exists():
            shutil.rmtree(root)
        os.replace(partial, root)
    except OSError as error:
        if _stamp(root) != stamp:  # else another process was faster
            raise UserError(f"data.root = {root} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"sample world: {counts} in {time.perf_counter() - began:.1f} s")
    return root


def _stamp(root: Path) -> Any:
    with contextlib.suppress(OSError, ValueError):
        return load_json(root / STAMP)
    return None


def _write(root: Path, seed: int, names: int, sizes: dict[str, int]) -> str:
    rng = np.random.default_rng(seed)
    entities = make_entities(rng, names)
    mentions = make_mentions(rng, entities, sizes)
    (root / "images").mkdir()
    shows: dict[tuple[str | int, ...], tuple[str, ...]] = {
        ("entity", i): ("banner", e.field, e.pattern, e.shape, e.colour)
        for i, e in enumerate(entities)
        if e.has_picture
    }
    # A mention's picture is (split, what it shows ..., number).
    shows |= {m.picture: tuple(map(str, m.picture[1:-1])) for m in mentions if m.picture}
    files = _draw(root, list(shows.values()), rng)
    file_of = dict(zip(shows, files, strict=True))
    ids = [f"Q{number}" for number in rng.permutation(9000)[: len(entities)] + 1000]
    _write_lines(root / "entities.jsonl", [
        {"id": ids[i], "name": e.name, "description": e.description,
         "image": file_of.get(("entity", i))}
        for i, e in enumerate(entities)
    ])  # fmt: skip
    _write_lines(root / "mentions.jsonl", [
        {"id": f"m{i:05d}", "text": m.text, "start": m.start,
         "end": m.start + len(entities[m.gold].name), "image": file_of.get(m.picture),
         "entity": ids[m.gold], "split": m.split, "sample": f"m{i:05d}", "kind": m.kind}
        for i, m in enumerate(mentions)
    ])  # fmt: skip
    tiny_bert.write(root / "encoder", seed)
    for name in ("resnet", "clip"):
        shutil.copytree(WEIGHTS / name, root / name)
    return f"{len(entities)} entities, {len(mentions)} mentions, {len(files)} pictures"


def _draw(root: Path, shows: list[tuple[str, ...]], rng: np.random.Generator) -> list[str]:
    """Draws pictures to files named by their own content, and their boxes; returns the names."""
    files = []
    boxes = {}
    live = sys.stderr.isatty()  # elsewhere the line at the end of `generate` is enough
    with Progress("drawing the sample world", len(shows), unit="pictures", loud=live) as bar:
        for what in shows:
            picture = drawing.draw(what, rng)
            name = f"images/{hashlib.sha256(picture.pixels.tobytes()).hexdigest()[:16]}.png"
            Image.fromarray(picture.pixels).save(root / name, compress_level=1)
            files.append(name)
            boxes[name] = picture.found
            bar.advance()
    _write_lines(root / "boxes.jsonl", [
        {"image": name, "boxes": [o.box for o in found], "scores": [o.score for o in found]}
        for name, found in boxes.items()
    ])  # fmt: skip
    return files


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
