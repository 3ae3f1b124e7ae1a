"""KGMEL's form: one file of sentences with all their mentions, and the ids of each split.

    WikiDiverse.json   [{"id", "sentence", "imgPath", "mention": […], "entity": [name, …],
                         "answer": [QID, …], "img-url"}, …]; also WikiMEL.json, RichpediaMEL.json
    splits.json        {"train": [id, …], "val": […], "test": […]}, or one such object a data set,
                       as in `mapping/ids_split_mappings.json`

The published splits overlap. A sentence has one: test wins over val, val over train; those taken
from a split are counted. Sentences of no split train.

The knowledge base is the union of all answers, named by "entity": every entity is the gold of some
mention, which makes ranking over all of it easier than in a real one. The names belong to the
knowledge base; a mention's own "entity" is not read as its feature. An entity with several names
has the most frequent (then the first of the alphabet), and the others as aliases. `qid2ne.json`
(QID -> name) adds entities and `qid2abs.json` (QID -> text) descriptions where they are there; else
descriptions are empty.

A picture that stands with several addresses, or with and without one, is a stand-in for pictures
that could not be had ("mention_54.jpg" stands with 238 sentences): such mentions have none.
"""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

from data_pipeline.readers import raw_files, raw_rows
from data_pipeline.schema import Corpus, Mention, UserError

DATA_SETS = ("WikiDiverse", "WikiMEL", "RichpediaMEL")
SPLITS_FILES = ("splits.json", "ids_split_mappings.json")
FIELDS = {"id", "sentence", "imgPath", "mention", "entity", "answer"}


def read(root: Path, name: str) -> Corpus:
    """The corpus under `root`; `name` chooses where there are several data sets.

    Raises:
        MissingFile: no data set, or no splits.
        UserError: a file is not what it should be, or it is not clear which data set is meant.
    """
    sources: dict[str, str] = {}
    counts: Counter[str] = Counter()
    path = _data_set(root, name)
    raw = [(where, row) for where, _, row in raw_rows.rows(path, sources, list, FIELDS)]
    split = _splits(root, path.stem, sources, counts)
    pictures = raw_files.folder(root, f"image/{path.stem}", "image", "images", "mention_image")
    stand_ins = _stand_ins(raw)
    titles: dict[str, Counter[str]] = {}
    mentions: list[tuple[str, Mention]] = []
    for where, row in raw:
        text, found = raw_rows.pairs(row, where, "mention")
        names = row["entity"]
        if not isinstance(names, list) or len(names) != len(found):
            raise UserError(f'{where}: "entity" must be a list of {len(found)} names, as "answer"')
        image = raw_files.text(row["imgPath"] or "", '"imgPath"', where)
        counts["sentences_with_a_stand_in_picture"] += image in stand_ins
        counts["sentences_in_no_split"] += row["id"] not in split
        for i, (surface, gold) in enumerate(found):
            if gold is not None:
                title = raw_files.text(names[i], 'each of "entity"', where)
                titles.setdefault(gold, Counter())[title] += 1
            mention = raw_rows.located(
                text,
                surface,
                id=f"{row['id']}-{i}",
                split=split.get(row["id"], "train"),
                sample=str(row["id"]),
                gold=gold,
                image=str(pictures / image) if image and image not in stand_ins else None,
            )
            mentions.append((where, mention))
    counts["entities_of_several_names"] = sum(len(found) > 1 for found in titles.values())
    names = {qid: min(found, key=lambda one: (-found[one], one)) for qid, found in titles.items()}
    others = {qid: tuple(sorted(found.keys() - {names[qid]})) for qid, found in titles.items()}
    entities = raw_rows.by_number(
        dataclasses.replace(entity, aliases=others.get(entity.id, ()))
        for entity in raw_rows.entities(root, sources, names)
    )
    placed = raw_files.placed(root, sources)
    return Corpus(name, entities, raw_rows.unique(mentions), dict(counts), placed)


def _data_set(root: Path, name: str) -> Path:
    there = [root / f"{one}.json" for one in DATA_SETS if (root / f"{one}.json").is_file()]
    chosen = [path for path in there if path.stem.lower() == name.lower()] or there
    if not chosen:
        wanted = ", ".join(f"{one}.json" for one in DATA_SETS)
        raise raw_files.MissingFile(f"{root} holds no {wanted}")
    if len(chosen) > 1:
        stems = ", ".join(path.stem for path in chosen)
        raise UserError(f"{root} holds several data sets ({stems}); set data.name to one of them")
    return chosen[0]


def _splits(
    root: Path, data_set: str, sources: dict[str, str], counts: Counter[str]
) -> dict[Any, str]:
    """Sentence id -> split."""
    found = filter(None, (raw_files.find(root, name) for name in SPLITS_FILES))
    path = next(found, root / SPLITS_FILES[0])
    loaded = raw_files.load_json(path, sources, "object")
    loaded = loaded.get(data_set, loaded)
    if not isinstance(loaded, dict):
        raise UserError(f'{path}: {data_set} must be an object with "train", "val" and "test"')
    split: dict[Any, str] = {}
    for key, value in (("train", "train"), ("val", "valid"), ("test", "test")):
        ids = loaded.get(key)
        if not isinstance(ids, list) or not all(type(one) in (int, str) for one in ids):
            raise UserError(f'{path}: "{key}" must be a list of sentence ids; fetch the file again')
        for one in ids:
            if split.get(one, value) != value:
                counts[f"sentences_moved_from_{split[one]}_to_{value}"] += 1
            split[one] = value
    return split


def _stand_ins(raw: list[tuple[str, dict[str, Any]]]) -> set[str]:
    addresses: dict[Any, set[Any]] = {}
    for where, row in raw:
        if row.get("img-url") is not None:
            raw_files.text(row["img-url"], '"img-url"', where)
        if type(row["id"]) not in (int, str):
            raise UserError(f'{where}: "id" must be a number or a string')
        raw_files.text(str(row["id"]), '"id"', where)
        image = raw_files.text(row["imgPath"] or "", '"imgPath"', where)
        addresses.setdefault(image, set()).add(row.get("img-url"))
    return {image for image, found in addresses.items() if image and len(found) > 1}
