"""The authors' preprocessed release -> feature store, with bounded memory, at the disk's speed.

The release holds token and region sequences (the authors ask for 100 GB of memory for it). Each is
reduced to the vertex that upstream makes of it, entities are kept once, and the gold slot of every
mention leaves the candidates: its edges go to `gold_edges`, which only the leaking protocol reads.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline import splits
from data_pipeline.release import inventory, mention_rows, vertices
from data_pipeline.release.entity_rows import find_entities
from data_pipeline.release.inventory import WIKIMEL, Release
from data_pipeline.schema import SPLITS, UserError
from data_pipeline.store import split_arrays
from data_pipeline.store.writer import StoreWriter


def check(root: str | Path) -> list[str]:
    """Everything that is wrong with the release at `root`, a line each; reads no features."""
    try:
        release, problems = inventory.inspect(*inventory.find(root))
    except UserError as error:
        return [str(error)]
    if problems:
        return problems
    return [*_wrong_answers(release), *_wrong_entities(release)]


def _wrong_answers(release: Release) -> Iterator[str]:
    last = release.sizes["S"] - 1
    for split in SPLITS:
        answer = release.rows(f"answer_{split}")
        wrong = np.flatnonzero((answer < 0) | (answer > last))
        if len(wrong):
            yield (
                f"{release.path(f'answer_{split}')}: row {wrong[0]} holds {answer[wrong[0]]}; "
                f"allowed are 0 to {last}"
            )


def _wrong_entities(release: Release) -> Iterator[str]:
    if release.dataset == WIKIMEL:
        try:
            find_entities(release)
        except UserError as error:
            yield str(error)


def write(root: str | Path, writer: StoreWriter, *, name: str) -> dict[str, Any]:
    """Makes the store of a release, going on with what a killed import left.

    Args:
        root: the wikidiverse or wikimel folder, or the one that holds one of them.
        writer: made with the `fingerprint` of `root` among its settings.
        name: of the data set, for reports.

    Returns:
        the report that is kept in the store: `release` (which form), `counts`, `notes`.

    Raises:
        UserError: files are missing, cut, of another shape or type, or contradict each other.
    """
    if problems := check(root):
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise UserError(problems[0] + more)
    release, _ = inventory.inspect(*inventory.find(root))
    entities = find_entities(release)
    counts = dict(entities.counts) | {"entities": len(entities)}
    vertices.write_entities(writer, release, entities)
    vertices.write_mentions(writer, release)
    has = vertices.write_flags(writer)
    mentions = list(mention_rows.mentions(release, entities))
    # A picture that gave no features is no picture: it cannot be shared either.
    mentions = splits.mark_clean(
        [
            mention if has["mention_has_image"][i] else dataclasses.replace(mention, image=None)
            for i, mention in enumerate(mentions)
        ]
    )
    writer.write_strings("entity_id", entities.ids)
    writer.write_strings("entity_name", entities.names)
    writer.write_strings("mention_id", [mention.id for mention in mentions])
    writer.write_strings("mention_surface", ["" for _ in mentions])
    groups = split_arrays.group_names(mentions)
    known = {mention.gold for mention in mentions if mention.split == "train"}
    counts["gold slots that differ from their candidate"] = 0
    for split, begin in vertices.begins(release).items():
        own = [mention for mention in mentions if mention.split == split]
        writer.write(f"{split}_groups", split_arrays.group_bits(own, groups, known))
        counts["gold slots that differ from their candidate"] += mention_rows.write_slots(
            writer, release, entities, split, begin
        )
        mention_rows.write_edges(writer, release, entities, split, begin, has)
        counts[split] = len(own)
    counts |= {
        "mentions": len(mentions),
        "span_not_found": sum(mention.start is None for mention in mentions),
        "clean_test": sum(mention.split == "test" and mention.clean for mention in mentions),
        **{f"without {key}": int((~flags).sum()) for key, flags in has.items()},
    }
    report = {"release": release.dataset, "counts": counts, "notes": _notes(release)}
    writer.finish(name, groups, report)
    return report


def _notes(release: Release) -> list[str]:
    names = "QIDs" if release.dataset == WIKIMEL else "texts"
    return [
        "a row of zeros is a missing text or picture",
        "a mention without a span is represented by CLS",
        f"entities are named by their {names}; mentions have no surface forms",
        "candidates score by their order; CLIP vectors are not in the release, its cosines are",
    ]
