"""Link mentions of your own text and pictures to the entities of a knowledge base.

    drin-jax link --text="Snow lay on the mill of Alfield." --mention=Alfield [--image=FILE]
    drin-jax link --text="Snow lay on the mill of Alfield." --span=24:31 --model=PLACE --kb=KB
    drin-jax link --text="Snow lay on the mill of Alfield." --json   every mention that is found
    drin-jax link --input=FILE.jsonl --output=FILE.jsonl  many
    drin-jax link --model=WORKDIR --save=FOLDER           the model as one folder, to be passed on

PLACE is the workdir of a finished run, a folder of --save or of drin_jax.export, OWNER/NAME on the
Hugging Face hub, or "sample", the embedded sample's. KB, in place of the model's own, is a folder,
postgresql://…, or a file of entities (JSON lines, CSV or Parquet), which are encoded once.

A line of --input is {"text", and "span": [13, 20] or "mention", and where there is one "image", a
path from the file's folder, "candidates": [id, …] and "id"}; more is not read. One of --output is
the answer to it with its "id" and a checksum of the "question", or an "error" instead. Killed and
started again it goes on behind what --output holds of the same questions; what failed stays failed
there.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from rich.table import Table
from rich.text import Text

from data_pipeline import output
from data_pipeline.files import hold_file
from data_pipeline.readers import raw_files
from data_pipeline.schema import UserError
from drin_jax import command

if TYPE_CHECKING:  # jax loads only when there is work
    from drin_jax.linking.linker import Linker
    from drin_jax.linking.result import LinkResult

FLAGS = flags.FLAGS
SHOWN = 60  # characters of a description in a table
ONE = ("text", "span", "mention", "image")  # flags of a single text
READ = ("id", "text", "span", "mention", "image", "candidates")  # of a line of --input
ANSWERED = {"id", "question", "model", "kb"}  # of a line of --output
BEGINNING = b'{"id": '  # of an answer


def main() -> None:
    """Do what the flags ask for."""
    if FLAGS["config"].present or FLAGS.workdir:
        raise UserError("--config and --workdir are not taken here; give the workdir as --model")
    many = FLAGS.input or FLAGS.output
    if sum(map(bool, (many, FLAGS.text is not None, FLAGS.save))) != 1:
        raise UserError("give one of --text, --input with --output, or --save; see --help")
    if many and not (FLAGS.input and FLAGS.output):
        raise UserError("--input and --output go together")
    if many and (given := [name for name in ONE if FLAGS[name].value is not None]):
        raise UserError(f"--{given[0]} is of a single text; with --input it stands in the file")
    span = _span()
    if many:
        source, target = Path(FLAGS.input), Path(FLAGS.output)
        count, unread = 0, dict[str, None]()
        for row in _rows(source):
            count += 1
            unread |= dict.fromkeys(name for name in row if name not in READ)
        if target.exists() and target.samefile(source):
            raise UserError(f"--output {target}: is --input itself; give another file")
        _resumed(target, source)  # what is wrong there is told before anything is loaded
        return _many(_linker(), source, target, count, [*unread])
    linker = _linker()
    if FLAGS.save:
        linker.save_pretrained(FLAGS.save)
        print(f"written: {FLAGS.save}")
    elif span is None and FLAGS.mention is None:
        found = linker.annotate(FLAGS.text, FLAGS.image, FLAGS.k)
        _show(found)
    else:
        _show([linker.link(FLAGS.text, span, FLAGS.mention, FLAGS.image, FLAGS.k)])
    return None


def _linker() -> "Linker":
    from drin_jax.linking.linker import Linker

    return Linker.from_pretrained(FLAGS.model, kb=FLAGS.kb, ner=FLAGS.ner)


def _span() -> tuple[int, int] | None:
    if FLAGS.span is None:
        return None
    first, colon, last = FLAGS.span.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and len(FLAGS.span) < 20):
        raise UserError(f"--span is {FLAGS.span!r:.40}; write it as 13:20")
    return int(first), int(last)


def _show(found: "list[LinkResult] | tuple[LinkResult, ...]") -> None:
    """The answers, as JSON lines or tables."""
    out = output.console()
    for one in found:
        if FLAGS.json:
            print(json.dumps(one.to_dict(explain=FLAGS.explain), ensure_ascii=False))
            continue
        place = f" ({one.span[0]}:{one.span[1]})" if one.span else ""
        said = "is nobody of the knowledge base" if one.is_nil else "is"
        title = f"{one.mention!r}{place} {said}".removesuffix(" is")
        table = Table("", "probability", "name", "id", "description", title=Text(title))
        for c in one.candidates:
            cells = (str(c.rank), f"{100 * c.probability:.1f} %", c.name, c.id)
            table.add_row(*map(Text, (*cells, output.shortened(c.description, SHOWN))))
        when = f"the answer from {100 * one.nil_threshold:.0f} % on"
        told = when if one.nil_threshold <= 1 else "never the answer of this model"
        nil = ("–", f"{100 * one.nil_probability:.1f} %", "none of them", "", told)
        table.add_row(*map(Text, nil), style="bold" if one.is_nil else "")
        out.print(table)
        if FLAGS.explain:
            out.print(Text(one.explain()))
    if not found and not FLAGS.json:
        print("no mention of an entity was found; name one with --mention or --span")


def _rows(source: Path) -> Iterator[dict[str, Any]]:
    """The lines of --input, each with an id: where it has none, its number."""
    for i, (_, row) in enumerate(raw_files.json_lines(source, {}, ())):
        yield {"id": i, **row}


def _question(row: Mapping[str, Any]) -> str:
    """A checksum of what a line asks; answers hold it, so that an edited question is another."""
    asked = json.dumps({name: row.get(name) for name in READ})
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def _query(row: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    query = {name: row[name] for name in READ[1:] if row.get(name) is not None}
    if isinstance(query.get("image"), str):
        query["image"] = str(folder / query["image"])
    return query


@dataclasses.dataclass(frozen=True)
class Done:
    """What an output holds already: whole answers, errors among them, their bytes, and which model
    and knowledge base gave the first of them."""

    answers: int = 0
    errors: int = 0
    bytes: int = 0
    by: str = ""


def _resumed(target: Path, source: Path) -> Done:
    """What is there of the answers to these lines; half a line at the end, which a killed run
    leaves, does not count. UserError where it is anything else, which is left as it is."""
    done, errors, end, by = 0, 0, 0, ""
    if not target.exists():
        return Done()
    rows = _rows(source)
    with target.open("rb") as file:
        for line in file:
            whole = line.endswith(b"\n")
            try:
                answer = json.loads(line) if whole else None
            except ValueError:
                answer = None
            if not isinstance(answer, dict) or not answer.keys() >= ANSWERED:
                if not whole and (done or line.startswith(BEGINNING) or BEGINNING.startswith(line)):
                    break
                raise UserError(f"--output {target}: line {done + 1} is no answer of ours")
            row = next(rows, None)
            if row is None or answer["question"] != _question(row):
                wanted = "ends before" if row is None else f"has {row['id']!r:.60}"
                same = row is not None and row["id"] == answer["id"]
                raise UserError(
                    f"--output {target}: line {done + 1} answers {answer['id']!r:.60}, but --input "
                    f"{'asks something else' if same else wanted} there; give another file, or "
                    "delete it"
                )
            done, end, errors = done + 1, end + len(line), errors + ("error" in answer)
            by = by or f"{answer['model']} {answer['kb']}"
    return Done(done, errors, end, by)


def _many(linker: "Linker", source: Path, target: Path, count: int, unread: Sequence[str]) -> None:
    """Link what is left of a file, which had `count` lines and may grow."""
    # Half a surrogate pair is written as JSON escapes it.
    with target.open("a", buffering=1, encoding="utf-8", errors="backslashreplace") as file:
        hold_file(file)
        done = _resumed(target, source)
        if done.by and done.by != f"{linker.model} {linker.kb.version}":
            raise UserError(
                f"--output {target}: holds answers of another model or knowledge base; give "
                "another file, or delete it"
            )
        if done.answers:
            print(f"{target}: {done.answers} answers are there already", file=sys.stderr)
        if unread:
            output.say(f"{source}: not read: {', '.join(unread[:9])}")
        file.truncate(done.bytes)
        waiting: collections.deque[dict[str, Any]] = collections.deque()

        def queries() -> Iterator[Mapping[str, Any]]:
            for row in itertools.islice(_rows(source), done.answers, None):
                waiting.append({"id": row["id"], "question": _question(row)})
                yield _query(row, source.parent)

        answers, failed, left = done.answers, done.errors, max(count - done.answers, 1)
        for found in linker.link_many(queries(), FLAGS.batch, FLAGS.k, total=left, errors=True):
            answer, answers = waiting.popleft(), answers + 1
            if isinstance(found, UserError):
                failed += 1
                answer |= {"error": str(found)}
            else:
                answer |= found.to_dict(explain=FLAGS.explain)
            answer |= {"model": linker.model, "kb": linker.kb.version}
            file.write(json.dumps(answer, ensure_ascii=False) + "\n")
    print(f"{target}: {answers} answers" + f", {failed} of them are errors" * bool(failed))


if __name__ == "__main__":
    flags.DEFINE_string("model", "sample", "Model: a workdir, a folder, OWNER/NAME, or sample.")
    flags.DEFINE_string("kb", None, "Knowledge base in place of the model's own, or its file.")
    flags.DEFINE_string("ner", None, "Finds mentions too: spacy:PIPELINE or gliner:OWNER/NAME.")
    flags.DEFINE_string("text", None, "Text that the mention stands in.")
    flags.DEFINE_string("span", None, "First and last+1 character of the mention, as 24:31.")
    flags.DEFINE_string("mention", None, "The mention, instead of its span.")
    flags.DEFINE_string("image", None, "Picture beside the text.")
    flags.DEFINE_integer("k", 5, "Candidates to show.", 1)
    flags.DEFINE_bool("json", False, "Print JSON lines.")
    flags.DEFINE_bool("explain", False, "Say why the candidates are ranked so.")
    flags.DEFINE_string("input", None, "File of JSON lines to link.")
    flags.DEFINE_string("output", None, "File of JSON lines for the answers.")
    flags.DEFINE_integer("batch", 64, "Mentions of --input linked at once.", 1)
    flags.DEFINE_string("save", None, "Folder to write the model to.")
    command.run(main)
