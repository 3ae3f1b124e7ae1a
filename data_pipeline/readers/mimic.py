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

import os
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from data_pipeline.readers import raw_files
from data_pipeline.readers.entities import by_number, first_there
from data_pipeline.readers.mentions import candidates, located, pairs, rows, sample_id
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
) -> list[Mention]:
    pictures = raw_files.folder(root, *MENTION_PICTURES)
    mentions: list[Mention] = []
    loaded = raw_files.load_json(path, sources)
    if isinstance(loaded, dict):
        raise UserError(f"{path}: expected a JSON list (an object is the form of reader richpedia)")
    for where, row in rows(loaded, path, {"sentence", "mentions", "answer", "imgPath"}):
        text, found = pairs(row, where)
        stem = _optional(row["imgPath"], '"imgPath"', where).split("/")[-1].split(".")[0]
        picture = os.path.join(pictures, f"{stem}.jpg") if stem else None
        counts["without_picture"] += picture is None
        for surface, gold in found:
            decoded = surface if surface in text else unquote(surface)
            mentions.append(
                located(
                    text,
                    decoded,
                    id=f"{split}-{len(mentions)}",
                    split=split,
                    sample=sample_id(text, stem),
                    gold=gold,
                    image=picture,
                    candidates=candidates(row, "cands", "QIDs", where),
                )
            )
    return mentions


def _entities(root: Path, sources: dict[str, str]) -> list[Entity]:
    path = root / KNOWLEDGE_BASE
    folder = raw_files.folder(root, *ENTITY_PICTURES)
    texts: dict[str, tuple[str, str]] = {}
    pictures: dict[str, list[str]] = {}
    for where, row in rows(raw_files.load_json(path, sources), path, {"qid", "entity_name"}):
        qid = raw_files.text(row["qid"], '"qid"', where, empty=False)
        if qid in texts:
            raise UserError(f"{where}: entity {qid!r} is given twice; QIDs must be unique")
        raw = raw_files.text(row["entity_name"], '"entity_name"', where)
        named = " ".join(unquote(raw).replace("_", " ").split())
        texts[qid] = (named, _optional(row.get("attr"), '"attr"', where))
        shown = row.get("image_list") or []
        if not isinstance(shown, list):
            raise UserError(f'{where}: "image_list" must be a list of file names')
        pictures[qid] = [
            os.path.join(folder, raw_files.text(one, '"image_list"', where).split("/")[-1])
            for one in shown
        ]
    image = first_there(pictures)
    return by_number(
        Entity(qid, named, description, image.get(qid))
        for qid, (named, description) in texts.items()
    )


def _optional(value: Any, what: str, where: str) -> str:
    return "" if value is None else raw_files.text(value, what, where)
