"""Lists of mentions with described candidates: `*candidates*.json`, as I2CR gives WikiDiverse's.

    [{"key", "mention", "sentence", "candidates": [{"name", "description"}, …],
      "gold": name or null, "mention_image": file, …}, …]

A file belongs to the split that its name has a word of (train; valid, dev or val), else to test.
The knowledge base is the union of the candidates and the golds, its ids and names being their
titles in one spelling; of several descriptions an entity has the longest. A null gold is read as
NIL; the files do not tell a mention without an entity from one whose entity is not among the
candidates. Captions of pictures ("image_annotations") are not read. Pictures lie where
WikiDiverse's do.
"""

import re
from pathlib import Path
from typing import Any

from data_pipeline.readers import raw_files, raw_rows
from data_pipeline.readers.wikidiverse import MENTION_PICTURES, title
from data_pipeline.schema import Corpus, Entity, Mention, UserError

FIELDS = {"key", "mention", "sentence", "candidates", "gold", "mention_image"}


def read(root: Path, name: str) -> Corpus:
    """The corpus under `root`; pictures as named, there or not.

    Raises:
        MissingFile: no such list.
        UserError: a file is not what it should be; names the file and the row.
    """
    sources: dict[str, str] = {}
    texts: dict[str, set[str]] = {}
    folder = raw_files.folder(root, *MENTION_PICTURES)
    mentions: list[tuple[str, Mention]] = []
    paths = sorted(root.glob("*candidates*.json"))
    if not paths:
        raise raw_files.MissingFile(f"{root} holds no *candidates*.json")
    for path in paths:
        split = _split(path)
        for where, _, row in raw_rows.rows(path, sources, list, FIELDS):
            key = raw_files.text(row["key"], '"key"', where, empty=False)
            text = raw_files.text(row["sentence"], '"sentence"', where)
            surface = raw_files.text(row["mention"], '"mention"', where, empty=False)
            gold = title(raw_files.text(row["gold"] or "", '"gold"', where)) or None
            picture = raw_files.text(row["mention_image"] or "", '"mention_image"', where)
            mention = raw_rows.located(
                text,
                surface,
                id=f"{split}-{key}",
                split=split,
                sample=raw_rows.sample_id(text, picture),
                gold=gold,
                image=str(folder / picture) if picture else None,
                candidates=_candidates(row, where, texts),
            )
            mentions.append((where, mention))
            if gold is not None:
                texts.setdefault(gold, set())
    entities = [
        Entity(one, one, max(found, key=lambda text: (len(text), text), default=""))
        for one, found in sorted(texts.items())
    ]
    counts = {"entities_of_several_descriptions": sum(len(t) > 1 for t in texts.values())}
    return Corpus(name, entities, raw_rows.unique(mentions), counts, sources)


def _split(path: Path) -> str:
    words = set(re.split(r"[^a-z]+", path.stem.lower()))
    known = raw_files.SPLIT_NAMES.items()
    return next((split for split, names in known if words & {*names}), "test")


def _candidates(row: dict[str, Any], where: str, texts: dict[str, set[str]]) -> tuple[str, ...]:
    """The titles in their order; their descriptions are added to `texts`."""
    given = row["candidates"]
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise UserError(f'{where}: "candidates" must be a list of objects')
    titles: list[str] = []
    for one in given:
        named = title(raw_files.text(one.get("name"), 'a candidate\'s "name"', where, empty=False))
        text = raw_files.text(one.get("description") or "", 'a candidate\'s "description"', where)
        texts.setdefault(named, set()).add(text)
        titles.append(named)
    return tuple(titles)
