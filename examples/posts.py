"""Link a folder of posts with pictures, many at once: FOLDER/*.txt, each with FOLDER/*.png.

    python examples/posts.py FOLDER [--model=PLACE] > answers.jsonl

In a post the mention stands in brackets, "Snow fell on [Kelfield]."; a post without a picture is
linked by its text. The answers are JSON lines, in the order of the files, and the progress goes to
stderr. An empty folder is filled with posts of the embedded sample's world first. Their texts say
next to nothing: that the answers differ is the pictures' doing.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipeline.sample.drawing import draw
from drin_jax import Linker, Query

NAMES = ("Kelfield", "Kelham", "Alham")
SCENES = ("sea", "forest", "city", "snow")


def fill(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in NAMES:
        for scene in SCENES:
            post = folder / f"{name}-{scene}.txt"
            post.write_text(f"One look was enough to recognise [{name}].")
            Image.fromarray(draw(("scene", scene), rng).pixels).save(post.with_suffix(".png"))


def queries(posts: list[Path]) -> Iterator[Query]:
    for post in posts:
        before, _, rest = post.read_text().partition("[")
        mention, _, after = rest.partition("]")
        picture = post.with_suffix(".png")
        span = len(before), len(before) + len(mention)
        yield Query(before + mention + after, span, image=picture if picture.exists() else None)


def main(folder: Path, model: str) -> None:
    if not [*folder.glob("*.txt")]:
        fill(folder)
    posts = sorted(folder.glob("*.txt"))
    linker = Linker.from_pretrained(model)
    answers = linker.link_many(queries(posts), k=3, total=len(posts), errors=True)
    linked: dict[str, set[str]] = {}  # name -> what it meant, here and there
    for post, found in zip(posts, answers, strict=True):
        if isinstance(found, Exception):  # a picture that cannot be read stops no other post
            print(json.dumps({"post": post.name, "error": str(found)}))
            continue
        print(json.dumps({"post": post.name, **found.to_dict()}))
        if found.entity:
            linked.setdefault(found.mention, set()).add(found.entity.id)
    for name, ids in linked.items():
        print(f"{name}: {len(ids)} entities, {', '.join(sorted(ids))}", file=sys.stderr)


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    flags.add_argument("folder", type=Path, help="of posts; filled where it is empty")
    flags.add_argument("--model", default="sample", help="workdir, folder or name on the hub")
    main(**vars(flags.parse_args()))
