"""What the probability that no entity is meant does: precision and recall of NIL by threshold.

    python examples/nil_threshold.py [--model=PLACE]

Links labelled sentences to own_base.jsonl. In half of them the mention means nothing that is in
there: its name is missing, or it is the name of something else. A mention is NIL from a
`nil_probability` on; the higher the threshold, the surer and the rarer. `LinkResult.is_nil` uses
the threshold that decided most of the model's own valid split right, which need not be yours.
"""

import argparse
from pathlib import Path

from drin_jax import Linker, Query

MEANT = [  # text, mention, entity; None: NIL
    ("On its last voyage the Mercury lost a mast and half of its crew.", "Mercury", "mercury-ship"),
    ("The judge had read the verdict in the Mercury.", "Mercury", "mercury-paper"),
    ("At the Mercury a comet was seen in the telescope.", "Mercury", "mercury-comet"),
    ("We saw a goblet of glass in the furnace at Aurora.", "Aurora", "aurora-glass"),
    ("A porter at Victoria showed us the platform.", "Victoria", "victoria-station"),
    ("The oven at Albion is for bread, and the baker for its rye.", "Albion", "albion-bread"),
    ("The chime and the dial of Albion were heard and seen all over.", "Albion", "albion-clock"),
    ("Neither anvil nor forge was left of Phoenix, only steel.", "Phoenix", "phoenix-forge"),
    ("There was honey in Zanzibar.", "Zanzibar", None),
    ("The rehearsal of Octavia was known for its curtain.", "Octavia", None),
    ("A canvas of Merton, and a portrait, were in that studio.", "Merton", None),
    ("Our vineyard at Albion has one grape and a cellar.", "Albion", None),
    ("The map of Victoria has a compass and a meridian.", "Victoria", None),
    ("An ambulance from Phoenix brought the vaccine.", "Phoenix", None),
    ("The choir of Mercury had pupils and a headmaster.", "Mercury", None),
    ("The league and the striker of Aurora were without a stadium.", "Aurora", None),
]
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.99)


def row(name: str, said: list[bool], best: list[str]) -> str:
    """Precision and recall of those said to be NIL, and the share of all that is right then."""
    gold = [entity for _, _, entity in MEANT]
    hits = sum(nil and entity is None for nil, entity in zip(said, gold, strict=True))
    right = hits + sum(
        not nil and found == entity for nil, found, entity in zip(said, best, gold, strict=True)
    )
    precision = f"{hits / sum(said):11.0%}" if any(said) else f"{'-':>11}"
    return (
        f"{name:>9}{sum(said):6}{precision}{hits / gold.count(None):8.0%}{right / len(gold):7.0%}"
    )


def main(model: str) -> None:
    linker = Linker.from_pretrained(model, kb=Path(__file__).with_name("own_base.jsonl"))
    queries = [Query(text, mention=mention) for text, mention, _ in MEANT]
    found = [*linker.link_many(queries)]
    best = [one.candidates[0].id for one in found]
    print(f"{'threshold':>9}{'NIL':>6}{'precision':>11}{'recall':>8}{'right':>7}")
    for threshold in THRESHOLDS:
        print(row(str(threshold), [one.nil_probability >= threshold for one in found], best))
    print(row("is_nil", [one.is_nil for one in found], best))


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    flags.add_argument("--model", default="sample", help="workdir, folder or name on the hub")
    main(**vars(flags.parse_args()))
