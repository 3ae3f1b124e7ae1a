"""Link what customers write to the products of a CSV file, and add a product while it runs.

    python examples/products.py [--model=PLACE] [--products=FILE.csv]

Product lines share a name ("Aurora" is a teapot, a set of goblets and a fabric), so a name alone
says little; the sentence decides. `candidates` bounds the choice, as to what a shop has in stock.
"""

import argparse
import csv
from pathlib import Path

from drin_jax import Linker, Query

MESSAGES = [
    ("Does the Aurora come with a kettle, and how much tea does it hold?", "Aurora"),
    ("One goblet of my Aurora set was broken, and the wine is all over the desk.", "Aurora"),
    ("Is the Falcon good enough for a comet or an eclipse?", "Falcon"),
    ("The bridle of the Falcon is too long for my horse.", "Falcon"),
    ("My Regent stopped: the pendulum is still, and there was no chime.", "Regent"),
    ("A rook and a bishop were not in the box of the Regent.", "Regent"),
    ("The crust of your Alpina is what all bread should have.", "Alpina"),
    ("Is there any honey left, or wax from the Alpina bees?", "Alpina"),
]


def main(model: str, products: Path) -> None:
    linker = Linker.from_pretrained(model, kb=products)
    print(f"{len(linker.kb)} products from {products.name}")
    queries = [Query(text, mention=mention) for text, mention in MESSAGES]
    for found in linker.link_many(queries, k=1):
        best = found.candidates[0]
        print(f"{best.id}  {best.probability:4.0%}  {found.text}")

    with products.open(newline="") as file:
        food = [row["id"] for row in csv.DictReader(file) if row["type"] == "food"]
    text = "We had cheese on the table: curd and rind of an Alpina."
    found = linker.link(text, mention="Alpina", candidates=food)
    print(f"\n{text}\n{found.candidates[0].id}, of the {len(food)} foods")

    text = "How many cups of tea does the Regent hold?"
    before = linker.link(text, mention="Regent").candidates[0].id
    linker.kb.update([{"id": "P112", "name": "Regent", "description": "teapot for tea, with lid"}])
    after = linker.link(text, mention="Regent").candidates[0].id
    print(f"\n{text}\n{before}; with a Regent teapot in the catalogue: {after}")


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    flags.add_argument("--model", default="sample", help="workdir, folder or name on the hub")
    flags.add_argument("--products", type=Path, default=Path(__file__).with_suffix(".csv"))
    main(**vars(flags.parse_args()))
