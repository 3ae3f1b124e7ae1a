"""A knowledge base of one's own: built once, searched in milliseconds, added to for ever.

    drin-jax kb build   KB --entities=FILE [--config=CARD --config.encoders.text=…]
    drin-jax kb build   KB --entities=FILE --model=PLACE         to be linked to by a model
    drin-jax kb build   KB --config=CARD --config.data.root=…    the entities of a data set
    drin-jax kb add     KB --entities=FILE [--update]
    drin-jax kb remove  KB --ids=Q1,Q2
    drin-jax kb search  KB --mention=NAME [--text=SENTENCE] [--k=10] [--json]
    drin-jax kb info    KB [--json]
    drin-jax kb verify  KB
    drin-jax kb compact KB
    drin-jax kb copy    KB OTHER     to where there is none yet

A KB is a folder, or postgresql://[user@]host/database#schema (extra `postgres`).
FILE holds a row an entity, as JSON lines, CSV or Parquet: "id" and "name", and, where there is one,
"aliases", "description", "type", "popularity", "image" or "images". With --config the encoders of
that config are run over every entity, so that mentions can be linked to it and models trained on it
(--config.data.kb=KB); without, names and words find it. What is added later is encoded by the same
encoders. Killed at any moment and started again, a command goes on where it was.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from rich.table import Table
from rich.text import Text

from data_pipeline.schema import STAGES, Entity, Mention, UserError
from drin_jax import command

FLAGS = flags.FLAGS
SHOWN = 60  # characters of a description in a table
Place = str | Path  # of a knowledge base: a URL or a folder


def build(path: Place) -> None:
    """Make a knowledge base of --entities, or of the config's data set."""
    from data_pipeline.kb.change import open_change

    config: ConfigDict | None = FLAGS.config
    if FLAGS.model:
        return _build_for_model(path)
    if config is None:
        entities: Sequence[Entity] = _read()
        with open_change(path) as change:
            change.build(entities, name=FLAGS.name or _last(path), root=_root())
        return info(path)
    from drin_jax.config import check
    from drin_jax.extract.corpus import fetch
    from drin_jax.extract.encoding import Encoders
    from drin_jax.extract.items import check_templates
    from drin_jax.extract.stored import kb_settings

    check(config)
    check_templates(config.text)
    if FLAGS.entities:
        entities, root = _read(), _root()
    else:
        from data_pipeline.readers import load

        fetch(config)
        data, root = config.data, config.data.root
        named = {"name": data.name, "source": data.hint, "outside": data.outside}
        entities = load(data.reader, root, **named).entities
    encoders = Encoders(config)
    with open_change(path, _fill(config, encoders, entities, path)) as change:
        made_from = kb_settings(config, encoders, root if FLAGS.entities else None)
        name = FLAGS.name or config.data.name or _last(path)
        change.build(entities, name=name, root=root, made_from=made_from)
    info(path)


def _build_for_model(path: Place) -> None:
    """Make a knowledge base of --entities by the encoders of --model."""
    if FLAGS.config is not None:
        raise UserError("--config and --model do not go together; a model brings its own encoders")
    from data_pipeline.kb.change import open_change
    from drin_jax.extract.stored import kb_settings
    from drin_jax.linking.model import encoders_of
    from drin_jax.linking.places import find_model

    entities, (model, _) = _read(), find_model(FLAGS.model)
    encoders = encoders_of(model)
    fill = _fill(encoders.config, encoders, entities, path)
    with open_change(path, fill) as change:
        made_from = kb_settings(encoders.config, encoders, _root())
        change.build(entities, name=FLAGS.name or _last(path), root=_root(), made_from=made_from)
    info(path)


def add(path: Place) -> None:
    """Add --entities, encoded by the knowledge base's own encoders where it has features."""
    from data_pipeline.kb.change import open_change
    from data_pipeline.kb.knowledge_base import open_kb

    kb, entities, fill = open_kb(path), _read(), None
    if kb.tables:
        from drin_jax.extract.encoding import Encoders
        from drin_jax.extract.stored import check_encoders, config_of

        config = config_of(kb)
        encoders = Encoders(config)
        check_encoders(config, kb, encoders)
        fill = _fill(config, encoders, entities, path)
    with open_change(path, fill) as change:
        known = change.add(entities, update=FLAGS.update).generation == kb.generation
    told = "are there already" if known else "put" if FLAGS.update else "added"
    print(f"{path}: {len(entities)} entities {told}")
    info(path)


def _fill(config: ConfigDict, encoders: Any, entities: Sequence[Entity], path: Place) -> Any:
    from drin_jax.extract.preparation import filled_by
    from drin_jax.extract.stages import Stages

    # Where pictures that no encoder saw are listed.
    workdir = path if isinstance(path, Path) else Path.cwd()
    # New entities are in no data set, and so not in its file of boxes.
    return filled_by(Stages(config, "entity", entities, {}, encoders, known=False), workdir)


def _read() -> list[Entity]:
    from data_pipeline.kb import entity_files
    from data_pipeline.readers.raw_rows import unique

    if not FLAGS.entities:
        raise UserError("--entities is missing; give a file of rows, .jsonl, .csv or .parquet")
    return unique(entity_files.read(Path(FLAGS.entities), {}))


def _root() -> str:
    return str(Path(FLAGS.entities).parent)


def remove(path: Place) -> None:
    """Take the entities of --ids out."""
    from data_pipeline.kb.change import open_change
    from data_pipeline.kb.knowledge_base import open_kb

    if not FLAGS.ids:
        raise UserError("--ids is missing; give the ids of entities, as in --ids=Q1,Q2")
    open_kb(path)  # where there is none, no folder of it is made
    with open_change(path) as change:
        change.remove(FLAGS.ids)
    print(f"{path}: {len(FLAGS.ids)} entities removed")
    info(path)


def compact(path: Place) -> None:
    """Fold all segments into one, without what was removed."""
    from data_pipeline.kb.change import open_change
    from data_pipeline.kb.knowledge_base import open_kb

    open_kb(path)
    with open_change(path) as change:
        change.compact()
    info(path)


def info(path: Place) -> None:
    """Print what the knowledge base holds."""
    from data_pipeline.kb.knowledge_base import open_kb
    from drin_jax.extract.stored import weights_of

    kb = open_kb(path)
    encoders = {name: kb.made_from.get(f"encoders.{name}", name) for name in weights_of(kb)}
    features = {name: list(shape) for name, (shape, _) in kb.tables.items() if shape[-1]}
    told = {
        "name": kb.name,
        "generation": kb.generation,
        "entities": kb.entity_count,
        "removed or replaced": len(kb) - kb.entity_count,
        "segments": len(kb.segments),
        "features": features,
        "encoders": encoders,
        "bytes": kb.size,
    }
    if FLAGS.json:
        print(json.dumps(told, ensure_ascii=False))
        return
    widths = ", ".join(f"{n} {s[1]} wide" for n, s in features.items() if len(s) > 1)
    print(
        f"{path}: {kb.name}, generation {kb.generation}: {kb.entity_count:,} entities in "
        f"{len(kb.segments)} segments, {kb.size / 1e6:.1f} MB"
    )
    print(f"features: {widths or 'none, names and words alone'}")
    for name, place in encoders.items():
        print(f"encoder of {name}: {place}")


def search(path: Place) -> None:
    """Print the entities that --mention can mean, best first, by names and words."""
    from data_pipeline import output
    from data_pipeline.kb.knowledge_base import open_kb
    from data_pipeline.kb.text_index import text_index
    from data_pipeline.retrieval.union import by_union

    if not FLAGS.mention:
        raise UserError("--mention is missing; give the name to look for")
    if FLAGS.k < 1:
        raise UserError(f"--k is {FLAGS.k}; it must be at least 1")
    text = FLAGS.text or FLAGS.mention
    start = text.find(FLAGS.mention)
    place = start if start >= 0 else None
    mention = Mention("", text, FLAGS.mention, place, place, "test", "", None)
    kb = open_kb(path)
    found = by_union(kb, text_index(kb), [mention], min(FLAGS.k, len(kb)))
    rows, scores = (array[0][found.rows[0] >= 0] for array in (found.rows, found.scores))
    entities = kb.entities(rows.astype(int))
    if FLAGS.json:
        for entity, score, by in zip(entities, scores, found.evidence[0], strict=False):
            evidence = dict(zip(STAGES, by.tolist(), strict=True))
            told = {"id": entity.id, "name": entity.name, "score": float(score), **evidence}
            print(json.dumps(told, ensure_ascii=False))
        return
    if not len(rows):
        print(f"{path}: no entity is found by {FLAGS.mention!r}")
        return
    table = Table("", "id", "name", "score", "description")
    for place, (entity, score) in enumerate(zip(entities, scores, strict=True), 1):
        cells = (
            str(place),
            entity.id,
            entity.name,
            f"{score:.2f}",
            output.shortened(entity.description, SHOWN),
        )
        table.add_row(*map(Text, cells))
    output.console().print(table)


def verify(path: Place) -> None:
    """Read every byte, and see that the index is whole."""
    from data_pipeline.kb.knowledge_base import open_kb
    from data_pipeline.kb.text_index import text_index

    kb = open_kb(path)
    kb.verify()
    text_index(kb)
    print(f"{path}: whole, {kb.entity_count} entities at generation {kb.generation}")


def copy(path: Place, other: Place) -> None:
    """Make the same knowledge base elsewhere, held against its checksums on the way."""
    from data_pipeline.kb.change import open_change
    from data_pipeline.kb.knowledge_base import open_kb

    kb = open_kb(path)
    with open_change(other) as change:
        change.copy(kb)
    info(other)


ACTIONS: dict[str, Callable[..., None]] = {
    action.__name__: action for action in (build, add, remove, search, info, verify, compact, copy)
}


def main(action: str, *places: str) -> None:
    """Do what the flags ask for."""
    if action not in ACTIONS:
        raise UserError(f"{action!r} is no action; there are {', '.join(ACTIONS)}")
    if len(places) != 1 + (action == "copy"):
        wanted = "two places: from, to" if action == "copy" else "one knowledge base"
        raise UserError(f"{action} takes {wanted}; see --help")
    if FLAGS["config"].present and action != "build":
        raise UserError(f"--config is not taken by {action}; the knowledge base brings its own")
    ACTIONS[action](*(place if "://" in place else Path(place) for place in places))


def _last(place: Place) -> str:
    """What a knowledge base is called where nobody says."""
    return place.name if isinstance(place, Path) else place.partition("#")[2] or "kb"


if __name__ == "__main__":
    flags.DEFINE_string("entities", None, "File of entities: .jsonl, .csv or .parquet.")
    flags.DEFINE_string(
        "model", None, "Model whose encoders make the features, as of drin-jax link."
    )
    flags.DEFINE_string("name", None, "What reports call it; by default its folder's name.")
    flags.DEFINE_bool("update", False, "Replace entities that are there already.")
    flags.DEFINE_list("ids", [], "Ids of the entities to remove.")
    flags.DEFINE_string("mention", None, "Name to look for.")
    flags.DEFINE_string("text", None, "Sentence that the name stands in.")
    flags.DEFINE_integer("k", 10, "How many entities to show.")
    flags.DEFINE_bool("json", False, "Print JSON.")
    command.run(main, positional=("action", "kb", "other"), optional=1)
