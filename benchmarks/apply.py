"""A trained model on a data set that it was not trained on.

    python -m benchmarks.apply --model=PLACE --reader=READER --root=DIR [--split=test] [--own]

The data set's entities become a knowledge base, encoded by the model's encoders, and each of its
mentions is linked from its raw text, among the candidates that the data set gives it unless --own
has the model find them. Told are the share of mentions with a gold that are ranked first, and, NIL
counted, what the decisions are worth: accuracy over all, and precision, recall and F1 of NIL.
Nothing is chosen on the data set: temperature and threshold are those of the model's own valid.
"""

import argparse
import tempfile
from pathlib import Path

from data_pipeline.kb.change import Change
from data_pipeline.readers import load
from drin_jax import Linker, Query
from drin_jax.command import keep_compiled
from drin_jax.extract.preparation import filled_by
from drin_jax.extract.stages import Stages
from drin_jax.extract.stored import kb_settings
from drin_jax.linking.places import find_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--reader", required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--own", action="store_true")
    args = parser.parse_args()
    keep_compiled()
    corpus = load(args.reader, args.root, name="")
    model, _ = find_model(args.model)
    linker = Linker(model, model.kb)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kb"
        stages = Stages(model.config, "entity", corpus.entities, {}, linker.encoders, known=False)
        with Change(path, filled_by(stages, path)) as change:
            made_from = kb_settings(model.config, linker.encoders)
            kb = change.build(
                corpus.entities, name=corpus.name, root=args.root, made_from=made_from
            )
        linker = Linker(model, kb)
        mentions = [mention for mention in corpus.mentions if mention.split == args.split]
        queries = [
            Query(
                m.text,
                None if m.start is None else (m.start, m.end or 0),
                m.name,
                m.image if m.image and Path(m.image).exists() else None,
                None if args.own else m.candidates,
            )
            for m in mentions
        ]
        found = [*linker.link_many(queries)]
    pairs = [(one.best, one.is_nil, m.gold) for one, m in zip(found, mentions, strict=True)]
    known = [best for best, _, gold in pairs if gold is not None]
    first = sum(best is not None and best.id == gold for best, _, gold in pairs if gold is not None)
    right = sum(nil if gold is None else (not nil and best.id == gold) for best, nil, gold in pairs)
    said, are = sum(nil for _, nil, _ in pairs), sum(gold is None for _, _, gold in pairs)
    hits = sum(nil and gold is None for _, nil, gold in pairs)
    print(f"{corpus.name}: {len(pairs)} mentions of {args.split}, {are} NIL, {len(kb)} entities")
    print(f"ranked first, of those with a gold: {first}/{len(known)} = {first / len(known):.1%}")
    print(
        f"decided rightly, NIL counted: {right}/{len(pairs)} = {right / len(pairs):.1%}; NIL said "
        f"{said} times: precision {hits / max(said, 1):.1%}, recall {hits / max(are, 1):.1%}, "
        f"F1 {2 * hits / max(said + are, 1):.1%}"
    )


if __name__ == "__main__":
    main()
