"""WikiMEL, in its two public forms.

MELBench's, one file of samples, `Wikidata-MEL.json`:

    {sample id: {"id", "sentence", "mentions": [surface, …], "entities": […], "answer": [QID, …]}}

with `test_keys.json` (the keys of the published test mentions; without it there is no test split),
and the form of one file a split, `WIKIMEL_{train,valid,test}.json`, read where both are there:

    {key: {"sentence", "mentions": surface, "answer": QID}}

A key is the sample id, or `id-i` for the i-th mention (from 0) of a sample with several; the
picture is `images/<sample id>.jpg`. Both need `qid2ne.json` (QID -> name; its order is the order of
the entities) and `qid2abs.json` (QID -> attributes as text). `candidates-answer.tsv`, where there,
gives each key its candidates. The field "entities" is the gold's name and is never read.

A mention stands at the first exact occurrence of its surface form. Case counts: ignoring it would
locate not one of the 740 mentions that are not found.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.readers import raw_files, raw_rows
from data_pipeline.schema import SPLITS, Corpus, Mention, UserError

SAMPLES = "Wikidata-MEL.json"
TEST_KEYS = "test_keys.json"
SPLIT_FILES = {split: f"WIKIMEL_{split}.json" for split in SPLITS}
CANDIDATES = "candidates-answer.tsv"

# Columns of CANDIDATES after the key. The authors' arrays append the gold as one more: not read.
PUBLISHED_CANDIDATES = 100


def read(root: Path, name: str) -> Corpus:
    """The corpus under `root`, with its published splits and pictures as named, there or not.

    Raises:
        MissingFile: the folder has neither form whole.
        UserError: a file is not what it should be; names the file and the key.
    """
    sources: dict[str, str] = {}
    counts: dict[str, int] = {}
    if any((root / file).is_file() for file in SPLIT_FILES.values()):
        mentions = raw_rows.unique(
            placed
            for split, file in SPLIT_FILES.items()
            for placed in _mentions(root, file, sources, split)
        )
    elif (root / SAMPLES).is_file():
        mentions = raw_rows.unique(_mentions(root, SAMPLES, sources, "train"))
        path = root / TEST_KEYS
        keys = raw_files.load_json(path, sources) if path.is_file() else []
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise UserError(f"{path}: expected a JSON list of mention keys")
        test = set(keys)
        unknown = test - {mention.id for mention in mentions}
        if test and unknown == test:
            raise UserError(f"{path}: not one key is a mention of {SAMPLES}; fetch it again")
        counts["test_keys_unknown"] = len(unknown)
        mentions = [dataclasses.replace(m, split="test") if m.id in test else m for m in mentions]
    else:
        raise raw_files.MissingFile(f"{root} holds neither {SAMPLES} nor {SPLIT_FILES['train']}")
    entities = raw_rows.entities(root, sources)
    if (root / CANDIDATES).is_file():
        given = raw_files.columns(root / CANDIDATES, sources)
        known = {mention.id for mention in mentions}
        counts["candidate_rows_unknown"] = sum(key not in known for key in given)
        cut = [max(0, len(found) - PUBLISHED_CANDIDATES) for found in given.values()]
        counts["candidates_cut"] = sum(cut)
        for i, mention in enumerate(mentions):
            if mention.id in given:
                first = tuple(given[mention.id][:PUBLISHED_CANDIDATES])
                mentions[i] = dataclasses.replace(mention, candidates=first)
    return Corpus(name, entities, mentions, counts, sources)


def _mentions(
    root: Path, file: str, sources: dict[str, str], split: str
) -> Iterator[tuple[str, Mention]]:
    """The mentions of a file with their places."""
    for where, key, row in raw_rows.rows(root / file, sources, dict):
        raw_files.text(key, "the key", where, empty=False)
        sample = key if file == SAMPLES else key.split("-")[0]
        text, found = raw_rows.pairs(row, where)
        for i, (surface, gold) in enumerate(found):
            mention = raw_rows.located(
                text,
                surface,
                id=key if len(found) == 1 else f"{key}-{i}",
                split=split,
                sample=sample,
                gold=gold,
                image=str(root / "images" / f"{sample}.jpg"),
            )
            yield where, mention
