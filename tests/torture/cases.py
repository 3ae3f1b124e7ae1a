"""Random cases of what users and strangers hand to the program: data sets, stores, exports, flags,
pictures and a workdir's files, spoilt by hypothesis. Each must be taken or refused in one line,
soon and within little memory."""

import contextlib
import copy
import dataclasses
import datetime
import decimal
import functools
import io
import json
import reprlib
import resource
import shutil
import signal
import sys
import traceback
import types
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
import jax
import numpy as np
import pyarrow as pa
from absl import flags
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from jax import export as jax_export
from PIL import Image
from pyarrow import parquet

from configs import common
from data_pipeline import readers
from data_pipeline.files import checksums, own_checksum, sha256
from data_pipeline.kb import entity_files, rows
from data_pipeline.kb.knowledge_base import KB_JSON, ROWS, open_kb
from data_pipeline.kb.text_index import TextIndex
from data_pipeline.pictures import images
from data_pipeline.pictures.decoding import Plan, Wanted, decode
from data_pipeline.readers import raw_rows
from data_pipeline.schema import STORE_JSON, STRING_TABLES, UserError
from data_pipeline.store.reader import Store
from data_pipeline.validate.examination import examine
from drin_jax import command, export
from drin_jax.config import check, flat
from drin_jax.experiments import results
from drin_jax.export import artefact, scorer
from drin_jax.extract import stored
from drin_jax.kb import __main__ as kb_command
from drin_jax.training import metric_log
from drin_jax.workdir import CONFIG, REPORT, open_run, read_config
from tests.data_pipeline import kgmel_reader_test as kgmel
from tests.data_pipeline import more_readers_test as more
from tests.data_pipeline import wikidiverse_reader_test as wikidiverse
from tests.support import bases, given_world, odd_pictures
from tests.support.fixtures import tiny_store

STATE = "index/text.json"
SECONDS, BYTES = 10, 1_000_000_000  # of one case, at most
Trial = Callable[[Any], None]
Subject = tuple[st.SearchStrategy, Trial]

# ---- how things are spoilt ---------------------------------------------------------------------

ODD = (
    *("null", "true", "false", "0", "-1", "-0.0", "2", "1.5", "1e400", "-1e400", "NaN", "Infinity"),
    *("1" * 400, "1" * 5000, "9223372036854775808", "4294967295", "1e308", "01", "nul", "'x'"),
    *('""', '" "', '"\\ud800"', '"\\udcff"', '"\\u0000"', '"a\\nb"', '"a\\r"', '"\\u2028"', '"😀"'),
    *('"../../../etc/passwd"', '"/dev/zero"', '"."', '"é"', '"nil"', '"%ed%a0%80"', '"float32"'),
    *("[]", "{}", "[[]]", "[null]", '["a"]', "[1, 2]", '{"a": 1, "a": 2}', '{"": null}', "[1e400]"),
    *("[" * 100_000 + "]" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000, "[" * 900 + "]" * 900),
    *('"' + "x" * 100_000 + '"', '"' + "/x" * 3000 + '"', "[" + "0," * 50_000 + "0]"),
)
VALUES = (
    st.sampled_from(ODD)
    | st.sampled_from(('"\\ud800"', '"a\\u0000"', "1e400", '"a\\nb"'))
    | st.text(max_size=12).map(json.dumps)
    | st.integers().map(str)
    | st.floats().map(json.dumps)
)
PIECES = st.binary(min_size=1, max_size=6) | st.sampled_from(
    (
        *(b"\xef\xbb\xbf", b"\r\n", b"\0", b"\n", b"\xff", b"\xed\xa0\x80", b"\\u"),
        *(b"\xf0\x9f\x98\x80", b'"', b"{", b"[", b",", bytes(64), b"\xff" * 8),
        b"\x7f\xff\xff\xff",
    )
)
PLACES = st.integers(0, 300) | st.integers(0, 1 << 20)
HOW = st.sampled_from(("set", "set", "copy", "copy", "delete", "twice", "rename"))
TREE_EDITS = st.lists(st.tuples(PLACES, HOW, VALUES), min_size=1, max_size=3)
BYTE_EDITS = st.lists(
    st.tuples(PLACES, st.sampled_from(("write", "cut", "insert", "remove")), PIECES),
    min_size=1,
    max_size=4,
)
Edits = list[tuple[int, str, Any]]


def spoilt_tree(tree: Any, edits: Edits) -> tuple[Any, Callable[[Any], str]]:
    """A copy of a JSON tree with some nodes changed, and what writes it and its parts as JSON."""
    tree, raws = copy.deepcopy(tree), []
    for place, how, raw in edits:
        nodes = list(_nodes(tree))
        if not nodes:
            break
        parent, key = nodes[-1 - place % len(nodes)]  # leaves rather than all
        if how == "delete":
            del parent[key]
        elif how == "copy":
            other, where = nodes[(place * 7919 + len(raw)) % len(nodes)]
            parent[key] = copy.deepcopy(other[where])
        elif how == "twice" and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif how == "twice":
            parent[f"{key}<<again>>"] = parent[key]
        elif how == "rename" and isinstance(parent, dict):
            parent[f"<<{len(raws)}>>"] = parent.pop(key)
            raws.append(raw if raw.startswith('"') else '"odd"')
        else:
            parent[key] = f"<<{len(raws)}>>"
            raws.append(raw)

    def written(part: Any) -> str:
        text = json.dumps(part, ensure_ascii=False).replace("<<again>>", "")
        for number, raw in enumerate(raws):
            text = text.replace(f'"<<{number}>>"', raw)
        return text

    return tree, written


def _nodes(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(parent, key) of everything below `tree`."""
    items: Any = ()
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(items):
        yield tree, key
        yield from _nodes(value)


def spoilt_bytes(content: bytes, edits: Edits) -> bytes:
    """Some bytes overwritten, cut off, inserted or removed."""
    for place, how, piece in edits:
        at = place % (len(content) + 1)
        at = len(content) - at if place % 2 else at
        end = {"write": at + len(piece), "insert": at, "remove": at + len(piece)}.get(how)
        kept = b"" if how in ("cut", "remove") else piece
        content = content[:at] + kept + (b"" if end is None else content[end:])
    return content


def _write(folder: Path, files: dict[str, Any], edits: Edits, more_edits: Edits) -> None:
    """Files of JSON, of JSON lines (*.jsonl) or of text, spoilt as trees and one as bytes."""
    tree, written = spoilt_tree(files, edits)
    for number, name in enumerate(files):
        (folder / name).unlink(missing_ok=True)
        if name not in tree:
            continue
        content = tree[name]
        lines = content if name.endswith(".jsonl") and isinstance(content, list) else [content]
        plain = name.endswith(".tsv") and isinstance(content, str)
        text = content if plain else "\n".join(map(written, lines))
        raw = text.encode(errors="surrogatepass")
        mine = [edit for edit in more_edits if edit[0] % len(files) == number]
        (folder / name).write_bytes(spoilt_bytes(raw, mine))


SPOILT_FILES = st.tuples(TREE_EDITS, st.just([]) | st.just([]) | BYTE_EDITS)

# ---- what is tried -----------------------------------------------------------------------------


def _data_sets() -> dict[str, dict[str, Any]]:
    """Reader -> file name -> content of a small data set that it takes."""
    entities, mentions = given_world.rows()
    chosen = [mentions[i] for i in (0, 1, 2, -20, -1)]
    photo: dict[str, Any] = {"id": "m", "image": "photo.png", "name": "Name", "kind": "person"}
    photo["sample"] = "s"
    rows = [more.mention_row(cands=["Q9"]), more.mention_row(answer=["nil"], mentions=["Zo%C3%AB"])]
    kb = [more.entity_row("Q9"), more.entity_row("Q10")]
    tables = {"qid2ne.json": more.NAMES, "qid2abs.json": more.TEXTS}
    brief = {"Lion": "a cat", "Detroit_Lions": ""}
    lists = {"train": [wikidiverse.row()] * 2, "valid": [wikidiverse.row(gold="nil")]}
    described = {"key": "1", "mention": "Lions", "sentence": "The Lions.", "gold": "Lion"}
    described |= {"mention_image": "a.png", "candidates": [{"name": "Lion", "description": "cat"}]}
    samples = {"7": {"sentence": "Otto met Hugh", "mentions": ["Otto", "Hugh"]}}
    samples["7"] |= {"answer": ["Q9", "Q10"]}
    return {
        "jsonl": {"entities.jsonl": entities[:3], "mentions.jsonl": [chosen[0] | photo, *chosen]},
        "wikidiverse": {
            **{f"{s}_w_10cands.json": lists.get(s, lists["train"]) for s in (*lists, "test")},
            "entity2brief_train.json": brief,
            "wikipedia_entity2imgs.tsv": "Lion@@@@http://x/a.png[AND]http://x/b.png\n",
        },
        "candidates": {"candidates_train.json": [described], "candidates_test.json": [described]},
        "richpedia": {"train.json": more.TRAIN, "x_test.json": more.TRAIN, **tables},
        "mimic": {"a_train.json": rows, "a_test.json": rows, "kb_entity.json": kb},
        "kgmel": {
            "WikiDiverse.json": [kgmel.sentence(i) for i in range(4)],
            "splits.json": kgmel.SPLIT,
            "qid2abs.json": {"Q145": "a state"},
        },
        "wikimel": {
            "Wikidata-MEL.json": samples,
            "test_keys.json": ["7-1"],
            "candidates-answer.tsv": "7-0\tQ9\tQ10\n",
            **tables,
        },
    }


def _read(reader: str, root: Path, files: dict[str, Any], drawn: tuple[Edits, Edits]) -> None:
    _write(root, files, *drawn)
    corpus = readers.load(reader, root, name="x")
    used = readers.used(corpus, split="disjoint", valid_fraction=0.1)
    list(readers.refusals(used))
    examine(corpus, used)
    for item in (*corpus.mentions, *corpus.entities):  # a store takes no other text
        json.dumps(dataclasses.asdict(item) | {"image": None}, ensure_ascii=False).encode()


def json_lines(folder: Path) -> Subject:
    """Data sets in our own form."""
    odd_pictures.photo().save(folder / "photo.png")
    files = _data_sets()["jsonl"]
    return SPOILT_FILES, functools.partial(_read, "jsonl", folder, files)


def other_readers(folder: Path) -> Subject:
    """Data sets in each public form."""
    sets = {name: files for name, files in _data_sets().items() if name != "jsonl"}
    for name in sets:
        (folder / name).mkdir()

    def trial(drawn: tuple[str, tuple[Edits, Edits]]) -> None:
        reader, edits = drawn
        _read(reader, folder / reader, sets[reader], edits)

    return st.tuples(st.sampled_from(sorted(sets)), SPOILT_FILES), trial


DESCR = ("'<f4'", "'>f4'", "'|O'", "'<f8'", "[('a', '<f4')]", "'<U9'", "'|V0'", "None", "'<i8'")
SHAPE = ("(24, 8)", "(-1, 8)", "()", "(10**9,)", "(99999999999999999999, 8)", "(True, 8)", "(2.5,)")
HEADER = st.tuples(
    st.sampled_from(DESCR), st.sampled_from(("True", "False")), st.sampled_from(SHAPE)
)
Drawn = tuple[int, tuple[str, Any], bool]


@contextlib.contextmanager
def _kept(folder: Path, whole: dict[str, bytes], *names: str) -> Iterator[None]:
    """Files of these names are afterwards as they were."""
    try:
        yield
    finally:
        for name in names:
            (folder / name).write_bytes(whole[name])


def stores(folder: Path) -> Subject:
    """Feature stores: store.json, or an array's bytes or header; `mended`: with its checksum."""
    path = folder / "store"
    tiny_store(path)
    meta = json.loads((path / STORE_JSON).read_text())
    whole = {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
    arrays = sorted(name for name in whole if name.endswith(".npy"))

    def opened() -> None:
        store = Store.open(path)
        store.fingerprint()
        for name in STRING_TABLES:
            with contextlib.suppress(UserError):
                store.strings(name)
        store.verify()

    def trial(drawn: Drawn) -> None:
        number, (kind, edits), mended = drawn
        name = arrays[number % len(arrays)]
        with _kept(path, whole, name, STORE_JSON):
            if kind == "json":
                _write(path, {STORE_JSON: meta}, *edits)
                return opened()
            content = spoilt_bytes(whole[name], edits) if kind == "bytes" else _headed(*edits)
            (path / name).write_bytes(content)
            if mended:
                array = name.removesuffix(".npy")
                changed = {"bytes": len(content), "crc32": zlib.crc32(content)}
                entry = {array: meta["arrays"][array] | changed}
                (path / STORE_JSON).write_text(
                    json.dumps(meta | {"arrays": meta["arrays"] | entry})
                )
            opened()
            assert mended or content == whole[name], f"{name} changed, and verify took it"

    kinds = _kinds(json=SPOILT_FILES, bytes=BYTE_EDITS, header=HEADER)
    return st.tuples(st.integers(0, len(arrays) - 1), kinds, st.booleans()), trial


def _kinds(**strategies: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(st.tuples(st.just(kind), drawn) for kind, drawn in strategies.items())


def _headed(descr: str, fortran: str, shape: str) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(768)


def exports(folder: Path) -> Subject:
    """Exports: export.json or a file's bytes; `mended`: with all checksums."""
    out = _export(folder / "out")
    paths = sorted(path for path in out.rglob("*") if path.is_file())
    whole = {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}
    manifest = json.loads(whole[scorer.MANIFEST])
    names = list(whole)

    def trial(drawn: Drawn) -> None:
        number, (kind, edits), mended = drawn
        name = scorer.MANIFEST if kind == "json" else names[number % len(names)]
        with _kept(out, whole, name, scorer.MANIFEST):
            if kind == "json":
                _write(out, {scorer.MANIFEST: manifest}, *edits)
            else:
                (out / name).write_bytes(spoilt_bytes(whole[name], edits))
            if mended:
                mend(name)
            export.load(out)
            found = (out / name).read_bytes()
            same = name == scorer.MANIFEST and json.loads(found) == manifest
            assert mended or same or found == whole[name], f"{name} changed, and was loaded"

    def mend(name: str) -> None:
        with contextlib.suppress(OSError, ValueError, RecursionError, AttributeError):
            content = json.loads((out / scorer.MANIFEST).read_text())
            if name != scorer.MANIFEST:
                content["files"][name] = sha256(out / name)
            content["checksum"] = own_checksum(content)
            (out / scorer.MANIFEST).write_text(json.dumps(content))

    kinds = _kinds(json=SPOILT_FILES, bytes=BYTE_EDITS)
    return st.tuples(st.integers(0, len(names) - 1), kinds, st.booleans()), trial


def _export(out: Path) -> Path:
    """An export of a function of one parameter, as `drin_jax.export.artefact.write` leaves one."""
    weight = jax.numpy.ones(2)

    def score(params: Any, arrays: Any) -> Any:
        return arrays["edges"][:, 0] * params["weight"][0]

    b, r = jax_export.symbolic_shape("b, r")
    edges = jax.ShapeDtypeStruct((b, 4, r), "float32")
    like = {"weight": jax.ShapeDtypeStruct((2,), "float32")}
    traced = jax_export.export(jax.jit(score), platforms=["cpu"])(like, {"edges": edges})
    out.mkdir(parents=True)
    (out / scorer.ARTEFACT).write_bytes(traced.serialize())
    (out / scorer.CONFIG).write_text(json.dumps(flat(common.get_config())))
    artefact._save(out / scorer.PARAMS, {"weight": weight})
    content: dict[str, Any] = {
        **{"format": scorer.FORMAT, "version": scorer.VERSION, "drin_jax": "0", "jax": "0"},
        **{"calling_convention": traced.calling_convention_version, "platforms": ["cpu"]},
        **{"model": "drin", "dtype": "float32", "system": "DRIN", "step": 1, "r": 4, "needs": []},
        **{"gold_slot": False, "widths": {"text_width": 2, "image_width": 0, "width": 2}},
        "inputs": {"edges": {"shape": ["b", 4, "r"], "dtype": "float32"}},
        "parameters": {"weight": {"shape": [2], "dtype": "float32"}},
        "files": checksums(out),
    }
    content["checksum"] = own_checksum(content)
    (out / scorer.MANIFEST).write_text(json.dumps(content))
    return out


def knowledge_bases(folder: Path) -> Subject:
    """Knowledge bases: kb.json, the index's text.json, or a file's bytes or header; `mended`: with
    its checksum. Opened, read, searched, and changed."""
    path = folder / "kb"
    bases.build(path, [bases.entity(f"Q{i}", f"Name {i}", "a thing", "N") for i in range(9)], True)
    bases.remove(path, "Q1", "Q4")
    bases.add(path, [bases.entity("Q2", "Replaced"), bases.entity("R")], True, update=True)
    meta = json.loads((path / KB_JSON).read_text())
    fields = {n: v for n, v in flat(common.get_config()).items() if n in stored._OF_ENTITIES}
    meta["made_from"] = fields | {
        "encoders.text": str(folder / "none"),
        stored.WEIGHTS: {"text": "0"},
    }
    (path / KB_JSON).write_text(json.dumps(meta))
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    whole = {file.relative_to(path).as_posix(): file.read_bytes() for file in files}
    names = [name for name in whole if "lock" not in name and name != KB_JSON]
    counted = [name for name in names if not name.startswith("index")]  # the index is a cache
    state = json.loads(whole[STATE])
    (folder / "more.jsonl").write_text('{"id": "new", "name": "New"}')
    given = {"json": False, "mention": "Name 3", "text": "a thing", "k": 3, "update": False}
    asked = types.SimpleNamespace(**given, entities=str(folder / "more.jsonl"))

    def used(damaged: bool) -> None:
        kb = open_kb(path)
        entities, index = list(kb), TextIndex(kb)
        assert len(entities) == len(kb.ids)
        kb.find(["Q1", "none"])
        for name in kb.tables:
            np.asarray(kb.array(name)[::-1])
        found, index_of = index.names("Name 3", 3)[0].tolist(), kb.ids.index
        index.words("a thing", 3)
        index.knows("n")
        assert damaged or index_of("Q3") in found, f"found {found}"
        with mock.patch.object(kb_command, "FLAGS", asked), mock.patch("sys.stdout", io.StringIO()):
            for call in (kb_command.info, kb_command.search, kb_command.add):
                try:
                    call(path)
                except UserError as error:
                    _one_line(error)
        compacted = bases.compact(path)
        compacted.verify()

    def trial(drawn: Drawn) -> None:
        number, (kind, edits), mended = drawn
        name = {"json": KB_JSON, "state": STATE}.get(kind, names[number % len(names)])
        try:
            if kind in ("json", "state"):
                tree = meta if kind == "json" else state
                _write((path / name).parent, {Path(name).name: tree}, *edits)
            else:
                content = spoilt_bytes(whole[name], edits) if kind == "bytes" else _headed(*edits)
                (path / name).write_bytes(content)
                if mended and name in counted:
                    mend(name, content)
            damaged = kind == "json" or (mended and name in counted)
            same = kind in ("json", "state") or (path / name).read_bytes() == whole[name]
            used(damaged)
            assert damaged or same or name not in counted, f"{name} changed, and was taken"
        finally:
            shutil.rmtree(path)
            for name, content in whole.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(content)

    def mend(name: str, content: bytes) -> None:
        place, _, file = name.partition("/")
        changed = copy.deepcopy(meta)
        segment = changed["segments"][int(place) - 1]
        specs = {f"{name}.npy": spec for name, spec in segment["arrays"].items()}
        specs[ROWS] = segment["rows_file"]
        specs[file] |= {"bytes": len(content), "crc32": zlib.crc32(content)}
        (path / KB_JSON).write_text(json.dumps(changed))

    kinds = _kinds(json=SPOILT_FILES, state=SPOILT_FILES, bytes=BYTE_EDITS, header=HEADER)
    return st.tuples(st.integers(0, len(names) - 1), kinds, st.booleans()), trial


COLUMN_NAMES = (*rows.COLUMNS.names, "image", "nobody's", "ID", "")
CELLS = (
    *("", "x", "007", "a|b|", "|", '"', '""', "a\nb", "a\r", "\0", "\ud800", "é", "😀", ",", "nan"),
    *("1e999", "-1", "inf", "NULL", "0x1", "1" * 400, "x" * 600, "x" * 100_000, "../../x", "1,2"),
)
PARQUET = (
    *([1, 2], [1.5, float("nan")], [True, None], [None, None], ["x", "y"], ["x", None], ["x", "x"]),
    *([b"x", b"\xff"], [["a"], None], [[None], []], [[1], [2]], [{"a": 1}, {}], [[["a"]], []]),
    *([decimal.Decimal("1.5"), None], [datetime.datetime(1, 1, 1), None], ["", "a\nb"]),
    *([10**18, -1], [1e300, -1e300], [["x" * 10_000], ["é"]], [datetime.timedelta(1), None]),
)


def entity_tables(folder: Path) -> Subject:
    """Files of entities: JSON lines, CSV and Parquet, spoilt as rows, as columns and as bytes."""
    whole = [{"id": "Q1", "name": "One", "aliases": ["N"], "images": ["a.png", "b.png"]}]
    whole += [{"id": "Q2", "name": "Two", "description": "d", "type": "t", "popularity": 1.5}]
    whole += [{"id": "Q3", "name": "Three", "image": "c.png"}]
    text = 'id,name,aliases,popularity,images\nQ1,One,N|M,1.5,a.png\nQ2,"T""o\nx",,,\n'
    held = io.BytesIO()
    table = pa.Table.from_pylist([{**row, "aliases": row.get("aliases", [])} for row in whole])
    parquet.write_table(table, held)

    def read(file: Path) -> None:
        table = rows.table(raw_rows.unique(entity_files.read(file, {})), str(folder))
        assert rows.digest(table)
        rows.put(io.BytesIO(), table)

    def trial(drawn: tuple[str, Any]) -> None:
        kind, edits = drawn
        if kind == "json":
            _write(folder, {"e.jsonl": whole}, *edits)
            return read(folder / "e.jsonl")
        if kind in ("cells", "csv"):
            said = "\n".join(map(",".join, edits)) if kind == "cells" else text
            content = said.encode(errors="surrogatepass")
            (folder / "e.csv").write_bytes(spoilt_bytes(content, edits if kind == "csv" else []))
            return read(folder / "e.csv")
        if kind == "bytes":
            (folder / "e.parquet").write_bytes(spoilt_bytes(held.getvalue(), edits))
        else:
            named, columns = zip(*edits, strict=True)
            odd = pa.table([pa.array(column) for column in columns], names=list(named))
            parquet.write_table(odd, folder / "e.parquet")
        read(folder / "e.parquet")

    needed = (
        st.tuples(st.just("id"), st.sampled_from(PARQUET)),
        st.tuples(st.just("name"), st.sampled_from(PARQUET)),
    )
    more = st.lists(st.tuples(st.sampled_from(COLUMN_NAMES), st.sampled_from(PARQUET)), max_size=3)
    columns = st.builds(lambda *parts: [*parts[:2], *parts[2]], *needed, more)
    cells = st.lists(st.lists(st.sampled_from(CELLS), min_size=1, max_size=5), max_size=4)
    tables = cells.map(lambda lines: [["id", "name", "aliases", "popularity", "images"], *lines])
    kinds = _kinds(
        json=SPOILT_FILES, cells=tables, csv=BYTE_EDITS, bytes=BYTE_EDITS, columns=columns
    )
    return kinds, trial


TEXTS = (
    *("", "None", "True", "0", "-1", "nan", "inf", "-inf", "1e999", "9" * 5000, "1" * 400, "0x10"),
    *("(", "(" * 5000, "()", "(1,)", "(1,2", "[1,2]", "('tt',)", "('tt','xx')", "((1,),)", "{}"),
    *("{'a': 1}", "'", '"', "\n", "a\nb", "\0", "\udcff", "hits@0", "hits@٣", "hits@²", "hits@"),
    *("hits@" + "9" * 5000, "float32", "auto", "vectors", "a://b", "-" * 70, "1_000", "٣", "+5"),
    *(
        "lambda: 1",
        "__import__('os')",
        "[" * 300 + "]" * 300,
        "1+1",
        "-" * 5000 + "1",
        "x" * 100_000,
    ),
    *("(True,)", "(1.0,)", "(" + "9" * 400 + ",)", "('\\ud800',)", "b'x'", "('\\n',)", "...", "1j"),
)


LISTS = ("graph.relations", "eval.ks", "eval.select_by")


def overrides(folder: Path) -> Subject:
    """Flags of the config, read and checked as a command does."""
    names = list(flat(common.get_config()))
    groups = [*{name.split(".")[0] for name in names}, "", "nosuch", "lock", "items", "_fields"]
    odd = ("", ".x", "[0]", "[9]", "[", "s", "\udcff", "\n")
    named = (
        st.sampled_from(names)
        | st.sampled_from(LISTS)
        | st.builds(str.__add__, st.sampled_from([*groups, *names]), st.sampled_from(odd))
    )
    values = (
        st.sampled_from(TEXTS)
        | st.text(max_size=12)
        | st.integers().map(str)
        | st.floats().map(str)
    )

    def trial(drawn: list[tuple[str, str]]) -> None:
        own = [f"--config.{name}={value}" for name, value in drawn]
        arguments = ["drin-jax", "--config=common", f"--workdir={folder}", *own]
        known, told = set(flags.FLAGS), io.StringIO()
        try:
            with mock.patch.object(sys, "argv", arguments), contextlib.redirect_stderr(told):
                command._parsed(())
            config, _ = command.config_and_workdir()
            check(config)
        except SystemExit as left:
            lines = [line[:7] for line in told.getvalue().splitlines()]
            if (left.code, lines) != (2, ["error: "]):
                raise AssertionError(f"exit {left.code}: {lines}") from None
            return
        finally:
            for name in set(flags.FLAGS) - known:
                if name.startswith(("config", "workdir")):
                    delattr(flags.FLAGS, name)
        json.dumps(flat(config), ensure_ascii=False).encode()  # config.json

    return st.lists(st.tuples(named, values), min_size=1, max_size=3), trial


KINDS = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "AVIF", "PPM")


def pictures(folder: Path) -> Subject:
    """Pictures of every format, in several modes, animated where they may be."""
    Image.init()
    whole: list[bytes] = []
    for kind in KINDS:
        for mode in ("RGB", "L", "P", "RGBA", "CMYK", "I;16", "1"):
            photo, out = odd_pictures.photo().convert(mode), io.BytesIO()
            more = {"save_all": True, "append_images": [photo]} if mode == "P" else {}
            with contextlib.suppress(OSError, KeyError, ValueError):
                photo.save(out, kind, **more)
                whole.append(out.getvalue())
    whole.append(odd_pictures.jpeg(odd_pictures.photo(), progressive=True, exif=b"Exif\0\0MM\0*"))
    path, plan = folder / "picture", Plan({"look": images.plain(16)})

    def trial(drawn: tuple[int, Edits]) -> None:
        number, edits = drawn
        path.write_bytes(spoilt_bytes(whole[number], edits))
        decoded = decode(plan, Wanted(str(path)))
        assert decoded.status in range(len(images.STATUSES))
        assert (decoded.status < images.READ) == bool(decoded.looks)

    return st.tuples(st.integers(0, len(whole) - 1), BYTE_EDITS), trial


def workdirs(folder: Path) -> Subject:
    """What runs and suites leave in a workdir, read back."""
    files = {
        CONFIG: flat(common.get_config()),
        REPORT: {"system": "DRIN", "step": 3, "splits": {"test": {"subsets": {}}}},
        results.SUITE_JSON: {
            **{"suite": "x", "title": "x", "against": "drin", "config": {}, "split": "test"},
            **{"rows": [{"row": "drin", "title": "DRIN"}], "published": [], "command": "x"},
        },
        "baselines.json": {"test": {"subsets": {"all": {}}}},
        "environment.json": {"python": "3"},
        results.RUN_JSON: {"system": "DRIN", "splits": {"test": {}}, "gold_in_graph": False},
        "metrics.jsonl": [{"step": 1, "loss": 0.5}, {"step": 1, "valid_score": 0.25}] * 2,
    }
    own = folder / "runs" / "drin" / "seed0"
    own.mkdir(parents=True)
    np.save(own / "ranks_test.npy", np.ones(3, np.float32))

    def trial(drawn: tuple[Edits, Edits]) -> None:
        _write(folder, files, *drawn)
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(folder / results.RUN_JSON, own)
        calls: list[Callable[[], Any]] = [
            lambda: read_config(folder),
            lambda: open_run(folder),
            lambda: results.load(folder),
            lambda: metric_log._whole_lines(folder / metric_log.METRICS),
            lambda: metric_log.curves(folder),
            *(lambda name=name: results.read_json(folder / name, {}) for name in files),
        ]
        for call in calls:
            try:
                call()
            except UserError as error:
                _one_line(error)

    return SPOILT_FILES, trial


# ---- the run -----------------------------------------------------------------------------------

# Subject -> its share of the cases.
SUBJECTS: dict[Callable[[Path], Subject], int] = {
    json_lines: 4,
    other_readers: 5,
    stores: 3,
    exports: 2,
    overrides: 3,
    pictures: 4,
    workdirs: 2,
    knowledge_bases: 1,
    entity_tables: 2,
}


class Hung(BaseException):
    """A case took too long; nothing that catches errors catches this."""


def _hung(*_: Any) -> None:
    raise Hung(f"still not done after {SECONDS} s")


def _one_line(error: UserError) -> None:
    told = str(error)
    assert told.strip(), "a UserError without a word"
    assert not {"\n", "\r"} & {*told}, f"more than a line: {told!r:.300}"


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _attempt(name: str, trial: Trial, drawn: Any) -> None:
    before = _peak()
    older = signal.signal(signal.SIGALRM, _hung)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            trial(drawn)
    except UserError as error:
        _one_line(error)
    except (Exception, Hung) as error:
        short = reprlib.Repr()
        short.maxstring = short.maxother = 120
        last = "".join(traceback.format_exception(error)[-4:])
        raise AssertionError(f"{name} of {short.repr(drawn)}:\n{last[-2000:]}") from None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, older)
    assert _peak() - before < BYTES, f"{name} of {drawn!r:.300} took {_peak() - before} bytes"


def run(seed: int, count: int, folder: Path) -> dict[str, int]:
    """Try `count` cases, shared out over the subjects; the same ones for the same seed.

    Returns:
        subject -> how many were tried.
    Raises:
        AssertionError: what was neither taken nor refused as it should be; hypothesis ends there.
    """
    counts: dict[str, int] = {}
    total, begun, ended = sum(SUBJECTS.values()), 0, 0
    for subject, share in SUBJECTS.items():
        name, begun, ended = subject.__name__, ended, ended + share
        own = count * ended // total - count * begun // total
        (folder / name).mkdir(parents=True)
        counts[name] = 0
        if own:
            _tried(seed, own, name, *subject(folder / name), counts)
    return counts


def _tried(
    seed: int,
    count: int,
    name: str,
    strategy: st.SearchStrategy,
    trial: Trial,
    counts: dict[str, int],
) -> None:
    @hypothesis.seed(seed)
    @settings(
        derandomize=False,
        database=None,
        max_examples=count,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(strategy)
    def inner(drawn: Any) -> None:
        counts[name] += 1
        _attempt(name, trial, drawn)

    inner()
