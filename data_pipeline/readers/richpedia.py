"""RichpediaMEL as MELBench and MEL-GHMFC publish it: one file of samples a split.

    {QID: {"id": QID, "sentence", "mentions": surface, "entities": …, "answer": QID}}

in `train.json`, `valid.json` (or dev, val; without it a share of train is held out), `test.json`,
or with a prefix, as `Richpedia-MEL_train.json`; with `qid2ne.json` (QID -> name) and `qid2abs.json`
(QID -> attributes as text). The picture is `images/<key>.jpg`.

The key and "id" ARE the gold, and "entities" is its name. Nothing of them reaches a feature: a
mention's id and sample are hashes of its text, mentions are ordered by that id and entities by
QID, so that renaming the keys or shuffling the files changes nothing but the pictures' paths (which
are opened, never read as text).
"""

from collections import Counter
from pathlib import Path

from data_pipeline.readers import raw_files, raw_rows
from data_pipeline.schema import Corpus, Mention

PICTURES = ("images", "image", "mention_images", "mention_image")


def read(root: Path, name: str) -> Corpus:
    """The corpus under `root`, with its published splits and pictures as named, there or not.

    Raises:
        MissingFile: no file of a split, or no names or attributes.
        UserError: a file is not what it should be; names the file and the key.
    """
    sources: dict[str, str] = {}
    pictures = raw_files.folder(root, *PICTURES)
    seen: Counter[str] = Counter()  # mentions of the same text and surface form
    mentions: list[Mention] = []
    for split, path in raw_files.split_files(root).items():
        own: list[Mention] = []
        for where, key, row in raw_rows.rows(path, sources, dict):
            text, found = raw_rows.pairs(row, where)
            for surface, gold in found:
                same = raw_rows.sample_id(text, surface)
                seen[same] += 1
                own.append(
                    raw_rows.located(
                        text,
                        surface,
                        id=same if seen[same] == 1 else f"{same}-{seen[same]}",
                        split=split,
                        sample=raw_rows.sample_id(text, None),
                        gold=gold,
                        image=str(pictures / f"{key}.jpg"),
                    )
                )
        mentions += sorted(own, key=lambda mention: mention.id)
    entities = raw_rows.by_number(raw_rows.entities(root, sources))
    return Corpus(name, entities, mentions, {}, sources)
