"""Our own form: `entities.jsonl` and `mentions.jsonl`, one object a line.

    entities.jsonl  {"id", "name", "description", "image"|null}
    mentions.jsonl  {"id", "text", "start", "end", "image"|null, "entity"|null, "split"}
                    and, where wanted, "candidates" (entity ids), "name", "sample", "kind"

Offsets count characters, the end is exclusive; both are null where the mention is not in the text,
which then needs "name". "entity" is null for NIL. Pictures are paths relative to the folder of the
file. Mentions of one "sample" stay in one split; the default is a sample for each text and picture.
Further keys are ignored.
"""

import os
from pathlib import Path
from typing import Any

from data_pipeline.readers import raw_files
from data_pipeline.readers.mentions import candidates, sample_id
from data_pipeline.schema import SPLITS, Corpus, Entity, Mention, UserError

ENTITIES = "entities.jsonl"
MENTIONS = "mentions.jsonl"


def read(root: Path, name: str) -> Corpus:
    """The corpus under `root`, with its own splits and pictures as named, there or not.

    Raises:
        MissingFile: one of the two files is not there.
        UserError: with file and line: no JSON, a missing key, a wrong type, an id given twice, a
            span outside its text, an unknown split; or a file without a single row.
    """
    sources: dict[str, str] = {}
    entities: dict[str, Entity] = {}
    for where, row in raw_files.json_lines(root / ENTITIES, sources):
        entity = _entity(row, root, where)
        if entity.id in entities:
            raise UserError(f"{where}: entity id {entity.id!r} is given twice; ids must be unique")
        entities[entity.id] = entity
    mentions: dict[str, Mention] = {}
    for where, row in raw_files.json_lines(root / MENTIONS, sources):
        mention = _mention(row, root, where)
        if mention.id in mentions:
            raise UserError(
                f"{where}: mention id {mention.id!r} is given twice; ids must be unique"
            )
        mentions[mention.id] = mention
    return Corpus(name, list(entities.values()), list(mentions.values()), {}, sources)


def _entity(row: dict[str, Any], root: Path, where: str) -> Entity:
    return Entity(
        id=raw_files.text(_get(row, "id", where), '"id"', where, empty=False),
        name=raw_files.text(_get(row, "name", where), '"name"', where),
        description=raw_files.text(_get(row, "description", where), '"description"', where),
        image=_picture(row, root, where),
    )


def _mention(row: dict[str, Any], root: Path, where: str) -> Mention:
    text = raw_files.text(_get(row, "text", where), '"text"', where)
    start, end = _span(row, text, where)
    if row.get("name") is not None:
        name = raw_files.text(row["name"], '"name"', where, empty=False)
    elif start is not None:
        name = text[start:end]
    else:
        raise UserError(f'{where}: "start" and "end" are null; give the surface form as "name"')
    split = _get(row, "split", where)
    if split not in SPLITS:
        raise UserError(f'{where}: unknown "split" {split!r}; known: {", ".join(SPLITS)}')
    gold, image = _get(row, "entity", where), _picture(row, root, where)
    sample = row.get("sample")
    if sample is None:
        sample = sample_id(text, row["image"])
    return Mention(
        id=raw_files.text(_get(row, "id", where), '"id"', where, empty=False),
        text=text,
        name=name,
        start=start,
        end=end,
        split=split,
        sample=raw_files.text(sample, '"sample"', where, empty=False),
        gold=None if gold is None else raw_files.text(gold, '"entity"', where, empty=False),
        image=image,
        candidates=candidates(row, "candidates", "entity ids", where),
        kind=raw_files.text(row.get("kind") or "", '"kind"', where),
    )


def _span(row: dict[str, Any], text: str, where: str) -> tuple[int | None, int | None]:
    start, end = _get(row, "start", where), _get(row, "end", where)
    if start is None and end is None:
        return None, None
    if type(start) is not int or type(end) is not int:  # isinstance would let true and false pass
        raise UserError(f'{where}: "start" and "end" must be whole numbers, or both null')
    if not 0 <= start < end <= len(text):
        raise UserError(
            f"{where}: span {start}:{end} is not inside its text of {len(text)} characters "
            "(offsets count characters, the end is exclusive)"
        )
    return start, end


def _picture(row: dict[str, Any], root: Path, where: str) -> str | None:
    image = _get(row, "image", where)
    if image is None:
        return None
    return os.path.normpath(root / raw_files.text(image, '"image"', where, empty=False))


def _get(row: dict[str, Any], key: str, where: str) -> Any:
    if key not in row:
        raise UserError(f'{where}: key "{key}" is missing')
    return row[key]
