"""Link sentences to a knowledge base of your own: the twenty lines of own_base.jsonl.

    python examples/own_base.py [--model=PLACE] [--kb=FILE]

The model was trained on another knowledge base and has never seen these entities: it knows of each
what stands in its line. They are encoded once, and kept in ~/.cache/drin_jax. The embedded sample's
model knows few words, so they are used here; for texts of your own train configs/text.py, and give
its workdir as --model.
"""

import argparse
from pathlib import Path

from drin_jax import Linker

SENTENCES = [  # text, mention, the entity that is meant; None: none of them
    ("On its last voyage the Mercury lost a mast and half of its crew.", "Mercury", "mercury-ship"),
    ("The judge had read the verdict in the Mercury.", "Mercury", "mercury-paper"),
    ("The guitar of Aurora was louder than the drummer on that tour.", "Aurora", "aurora-band"),
    ("We saw a goblet of glass in the furnace at Aurora.", "Aurora", "aurora-glass"),
    ("A porter at Victoria showed us the platform.", "Victoria", "victoria-station"),
    ("At Victoria the surgeon had tea with the nurse.", "Victoria", "victoria-ward"),
    ("The oven at Albion is for bread, and the baker for its rye.", "Albion", "albion-bread"),
    ("Neither anvil nor forge was left of Phoenix, only steel.", "Phoenix", "phoenix-forge"),
    ("There was honey in Zanzibar.", "Zanzibar", None),
]


def main(model: str, kb: str | Path) -> None:
    linker, first, right = Linker.from_pretrained(model, kb=kb), 0, 0
    for text, mention, meant in SENTENCES:
        found = linker.link(text, mention=mention, k=3)
        first += meant == found.candidates[0].id
        right += meant == (found.entity.id if found.entity else None)
        print(f"\n{text}")
        for one in found.candidates:
            print(f"  {one.probability:6.1%}  {one.id}")
        print(f"  {found.nil_probability:6.1%}  none of them")
    known = sum(meant is not None for _, _, meant in SENTENCES)
    print(f"\n{len(linker.kb)} entities; the right one of them is first: {first} of {known}")
    print(f"right where the model may also say that it is none: {right} of {len(SENTENCES)}")


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    flags.add_argument("--model", default="sample", help="workdir, folder or name on the hub")
    flags.add_argument("--kb", default=Path(__file__).with_suffix(".jsonl"), help="its entities")
    main(**vars(flags.parse_args()))
