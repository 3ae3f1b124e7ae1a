"""What `Linker.annotate` finds in raw sentences: mentions, and what they mean.

    python -m benchmarks.annotate --model=PLACE --run=WORKDIR [--sentences N] [--ner=NAME]

Sentences are those of the test split of a run's data set whose mentions are all known, as
WikiDiverse's are; a mention counts as found where both its ends are right. `candidates` are the
places that are looked at before anything is linked, `found` those that stay, and `linked` asks for
the entity too. Mentions whose gold is outside the knowledge base, or that have none, are counted
where places are looked for, and cannot be linked.
"""

import argparse
from collections import defaultdict
from pathlib import Path

from drin_jax import Linker
from drin_jax.command import keep_compiled
from drin_jax.extract.corpus import read_corpus
from drin_jax.linking import spans
from drin_jax.workdir import open_run

Place = tuple[int, int]


def sentences(run: Path, count: int) -> dict[str, dict[Place, str | None]]:
    """Text -> place of each mention -> its gold."""
    found: dict[str, dict[Place, str | None]] = defaultdict(dict)
    for mention in read_corpus(open_run(run).config).mentions:
        if mention.split == "test" and mention.start is not None and mention.end is not None:
            found[mention.text][mention.start, mention.end] = mention.gold
    return dict(list(found.items())[:count])


def shares(right: int, said: int, there: int) -> str:
    """Precision, recall and F1 in percent."""
    precision, recall = right / max(said, 1), right / max(there, 1)
    f1 = 2 * right / max(said + there, 1)
    return f"precision {100 * precision:.1f}  recall {100 * recall:.1f}  F1 {100 * f1:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--sentences", type=int, default=400)
    parser.add_argument("--ner")
    args = parser.parse_args()
    keep_compiled()
    linker = Linker.from_pretrained(args.model, ner=args.ner)
    texts = sentences(Path(args.run), args.sentences)
    state = linker._state
    gold = {(text, place): id for text, own in texts.items() for place, id in own.items()}
    looked = {
        (text, place)
        for text in texts
        for place in spans.find(text, state.finder.knows, state.last_words)
    }
    found = {
        (text, one.span): one.entity.id if one.entity else None
        for text in texts
        for one in linker.annotate(text)
    }
    right = gold.keys() & found.keys()
    same = sum(gold[key] == found[key] for key in right)
    known = sum(id is not None and linker.kb.get(id) is not None for id in gold.values())
    print(
        f"{len(texts)} sentences, {len(gold)} mentions, {known} with a gold in the knowledge base"
    )
    print(f"candidates  {shares(len(gold.keys() & looked), len(looked), len(gold))}")
    print(f"found       {shares(len(right), len(found), len(gold))}")
    print(f"linked      {shares(same, len(found), known)}")
    print(f"of what was found rightly, {100 * same / max(len(right), 1):.1f} % are linked rightly")


if __name__ == "__main__":
    main()
