"""Our own form: `entities.jsonl` and `mentions.jsonl`, one object a line.

    entities.jsonl  {"id", "name"}, and what else a knowledge base's row may have: a "description"
                    above all (`data_pipeline.kb.entity_files`)
    mentions.jsonl  {"id", "text", "start", "end", "split"} and, where there is one, "image" and
                    "entity", and, where wanted, "candidates" (entity ids), "name", "sample", "kind"

Offsets count characters, the end is exclusive; both are null where the mention is not in the text,
which then needs "name". Without "entity", or with null, a mention is NIL. Pictures are paths
relative to the folder of the file. Mentions of one "sample" stay in one split; the default is a
sample for each text and picture. Further keys are ignored.
"""

from pathlib import Path
from typing import Any

from data_pipeline.readers import raw_files, raw_rows
from data_pipeline.schema import SPLITS, Corpus, Entity, Mention, UserError, check_known

ENTITIES = "entities.jsonl"
MENTIONS = "mentions.jsonl"
ENTITY_KEYS = ("id", "name")
MENTION_KEYS = ("id", "text", "start", "end", "split")


def read(root: Path, name: str) -> Corpus:
    """The corpus under `root`, with its own splits and pictures as named, there or not.

    Raises:
        MissingFile: there are no mentions.
        UserError: with file and line: no JSON, a missing key, a wrong type, an id given twice, a
            span outside its text, an unknown split; or a file without a single row.
    """
    sources: dict[str, str] = {}
    entities: list[Entity] = []  # mentions may be linked to another knowledge base
    if (root / ENTITIES).is_file():
        entities = raw_rows.unique(
            (where, raw_rows.entity(row, root, where))
            for where, row in raw_files.json_lines(root / ENTITIES, sources, ENTITY_KEYS)
        )
    mentions = raw_rows.unique(
        (where, _mention(row, root, where))
        for where, row in raw_files.json_lines(root / MENTIONS, sources, MENTION_KEYS)
    )
    return Corpus(name, entities, mentions, {}, sources)


def _mention(row: dict[str, Any], root: Path, where: str) -> Mention:
    text = raw_files.text(row["text"], '"text"', where)
    start, end = _span(row, text, where)
    if row.get("name") is not None:
        name = raw_files.text(row["name"], '"name"', where, empty=False)
    elif start is not None:
        name = text[start:end]
    else:
        raise UserError(f'{where}: "start" and "end" are null; give the surface form as "name"')
    split = row["split"]
    check_known(f'{where}: "split"', split, SPLITS)
    gold, image = row.get("entity"), raw_rows.picture(row.get("image"), root, where)
    sample = row.get("sample")
    if sample is None:
        sample = raw_rows.sample_id(text, row.get("image"))
    return Mention(
        id=raw_files.text(row["id"], '"id"', where, empty=False),
        text=text,
        name=name,
        start=start,
        end=end,
        split=split,
        sample=raw_files.text(sample, '"sample"', where, empty=False),
        gold=None if gold is None else raw_files.text(gold, '"entity"', where, empty=False),
        image=image,
        candidates=raw_rows.candidates(row, "candidates", "entity ids", where),
        kind=raw_files.text(row.get("kind") or "", '"kind"', where),
    )


def _span(row: dict[str, Any], text: str, where: str) -> tuple[int | None, int | None]:
    start, end = row["start"], row["end"]
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
