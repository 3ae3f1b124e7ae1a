"""The form of the MIMIC data: WikiMEL, RichpediaMEL and WikiDiverse over a knowledge base in full.

    *_train.json, *_dev.json, *_test.json   [{"id", "sentence", "mentions": surface, "entities": …,
                                              "answer": QID or "nil", "imgPath": file or ""}, …]
    kb_entity.json                          [{"id", "qid", "type", "entity_name", "attr",
                                              "image_list": [file, …], …}, …]
    kb_image/, mention_image/ (RichpediaMEL: mention_images/)

A row may hold "cands", QIDs of given candidates. Every mention picture is stored as .jpg, whatever
"imgPath" ends in; an entity shows the first of its pictures that is there. Names are
percent-decoded. `qid2id.json` is the column "id" of the knowledge base again and is not needed.
A mention's "id" can be its gold and "entities" is the gold's name: neither is read, and mentions
are numbered by their place in the file.
"""

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from data_pipeline.readers import raw_files, raw_rows
from data_pipeline.schema import Corpus, Entity, Mention, UserError

KNOWLEDGE_BASE = "kb_entity.json"
MENTION_PICTURES = ("mention_image", "mention_images")
ENTITY_PICTURES = ("kb_image", "kb_images")


def read(root: Path, name: str) -> Corpus:
    """The corpus under `root`, with its published splits; mention pictures as named.

    Raises:
        MissingFile: no file of a split, or no knowledge base.
        UserError: a file is not what it should be; names the file and the row.
    """
    sources: dict[str, str] = {}
    counts: Counter[str] = Counter()
    mentions = [
        mention
        for split, path in raw_files.split_files(root).items()
        for mention in _mentions(root, path, split, sources, counts)
    ]
    return Corpus(name, _entities(root, sources), mentions, dict(counts), sources)


def _mentions(
    root: Path, path: Path, split: str, sources: dict[str, str], counts: Counter[str]
) -> Iterator[Mention]:
    pictures = raw_files.folder(root, *MENTION_PICTURES)
    number = itertools.count()
    for where, _, row in raw_rows.rows(path, sources, list, raw_rows.SENTENCE | {"imgPath"}):
        text, found = raw_rows.pairs(row, where)
        image = raw_files.text(row["imgPath"] or "", '"imgPath"', where)
        stem = image.split("/")[-1].split(".")[0]
        counts["without_picture"] += not stem
        for surface, gold in found:
            yield raw_rows.located(
                text,
                surface if surface in text else unquote(surface),
                id=f"{split}-{next(number)}",
                split=split,
                sample=raw_rows.sample_id(text, stem),
                gold=gold,
                image=os.path.join(pictures, f"{stem}.jpg") if stem else None,
                candidates=raw_rows.candidates(row, "cands", "QIDs", where),
            )


def _entities(root: Path, sources: dict[str, str]) -> list[Entity]:
    folder = raw_files.folder(root, *ENTITY_PICTURES)
    pictures: dict[str, list[str]] = {}
    found: list[tuple[str, Entity]] = []
    for where, _, row in raw_rows.rows(
        root / KNOWLEDGE_BASE, sources, list, {"qid", "entity_name"}
    ):
        qid = raw_files.text(row["qid"], '"qid"', where, empty=False)
        raw = raw_files.text(row["entity_name"], '"entity_name"', where)
        named = " ".join(unquote(raw).replace("_", " ").split())
        description = raw_files.text(row.get("attr") or "", '"attr"', where)
        kind = raw_files.text(str(row.get("type") or ""), '"type"', where)
        found.append((where, Entity(qid, named, description, type=kind)))
        shown = row.get("image_list") or []
        if not isinstance(shown, list):
            raise UserError(f'{where}: "image_list" must be a list of file names')
        pictures[qid] = [
            os.path.join(folder, raw_files.text(one, '"image_list"', where).split("/")[-1])
            for one in shown
        ]
    entities, image = raw_rows.unique(found), raw_rows.first_there(pictures)
    return raw_rows.by_number(dataclasses.replace(e, image=image.get(e.id)) for e in entities)
