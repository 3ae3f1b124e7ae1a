"""Entities from files: three forms of the same, and each mistake one line."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from data_pipeline.kb import entity_files
from data_pipeline.readers.raw_rows import unique
from data_pipeline.schema import Entity
from tests.support.fixtures import refusal

ROWS: list[dict[str, Any]] = [
    {
        "id": "007",
        "name": 'Bond, "James"\nBond',
        "aliases": ["007", "Double-O"],
        "description": "spy",
        "type": "human",
        "popularity": 9.5,
        "images": ["a.png", "b/c.png"],
    },
    {"id": "http://www.wikidata.org/entity/Q1", "name": "Ω 宇宙 🌌"},
    {"id": "a/b c:d#é", "name": ""},
    {"id": "Q9", "name": "Double-O", "description": "its name is an alias above"},
    {"id": "x" * 500, "name": "n" * 10_000, "popularity": -3},
]


def read(path: Path) -> list[Entity]:
    return unique(entity_files.read(path, {}))


def json_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> Path:
    """CSV: lists divided by "|", what a row has not an empty cell."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow({n: "|".join(v) if isinstance(v, list) else v for n, v in row.items()})
    return path


def test_three_forms_give_the_same_entities(tmp_path: Path) -> None:
    columns = [*ROWS[0], "ignored"]
    kinds = [pa.field("ignored", pa.int32()), *entity_files.COLUMNS]
    padded = [{name: row.get(name) for name in columns} for row in ROWS]
    parquet.write_table(pa.Table.from_pylist(padded, pa.schema(kinds)), tmp_path / "e.parquet")
    lines, cells = json_lines(tmp_path / "e.jsonl", ROWS), table(tmp_path / "e.CSV", ROWS, columns)
    found = read(lines)
    assert found == read(cells) == read(tmp_path / "e.parquet")
    first, second, *_ = found
    assert first == Entity(
        id="007",
        name='Bond, "James"\nBond',
        description="spy",
        image=str(tmp_path / "a.png"),
        aliases=("007", "Double-O"),
        type="human",
        popularity=9.5,
        more_images=(str(tmp_path / "b/c.png"),),
    )
    assert second == Entity("http://www.wikidata.org/entity/Q1", "Ω 宇宙 🌌", "")
    assert [one.id for one in found] == [row["id"] for row in ROWS]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_one_picture_may_be_called_image(tmp_path: Path, form: str) -> None:
    row, path = {"id": "Q1", "name": "a", "image": "p/q.png"}, tmp_path / f"e.{form}"
    if form == "csv":
        table(path, [row], list(row))
    elif form == "jsonl":
        json_lines(path, [row])
    else:
        parquet.write_table(pa.Table.from_pylist([row]), path)
    assert read(path)[0].image == str(tmp_path / "p/q.png")


def test_what_nobody_reads_refuses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Arrow takes a column's type from the first megabyte: numbers, and then a word."""
    rows = [f"Q{i},n,{'1' * 40}\n" for i in range(30_000)]
    path = tmp_path / "e.csv"
    path.write_text("id,name,serial\n" + "".join(rows) + "Q,n,unknown\n")
    assert len(read(path)) == 30_001
    assert "e.csv: not read: serial" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("e.jsonl", None, "e.jsonl is missing"),
        ("e.csv", None, "e.csv is missing"),
        ("e.parquet", None, "e.parquet is missing"),
        ("e.tsv", "id\tname", "e.tsv: is none of .jsonl, .json, .csv, .parquet"),
        ("e.jsonl", "", "e.jsonl is empty"),
        ("e.jsonl", "\n \n", "e.jsonl is empty"),
        ("e.csv", "", "e.csv: cannot be read (Empty CSV file)"),
        ("e.csv", "id,name\n", "e.csv holds not one row"),
        ("e.parquet", "", "e.parquet: cannot be read"),
        ("e.parquet", "PAR1 and no more", "e.parquet: cannot be read"),
        ("e.csv", "id,title\n1,a\n", "has no column name; it has id, title"),
        ("e.csv", "id, name\n1,a\n", "has no column name; it has id, ' name'"),
        ("e.csv", "id;name\n1;a\n", "it has id;name; columns are divided by commas"),
        ("e.csv", "qid,title\n1,a\n", "has no column id and no column name"),
        ("e.csv", "id,name,id\n1,a,2\n", "has the column id twice"),
        ("e.csv", "id,name\n1,a\n1,2,3\n", "e.csv: cannot be read"),
        ("e.csv", "id,name\n,a\n", 'row 1: "id" must be a string'),
        ("e.csv", 'id,name\n"a\nb",a\n', "row 1: \"id\" 'a\\nb' is longer than 500 characters or"),
        ("e.csv", b"id,name\n1,\xe9\n", "invalid UTF8"),
        ("e.jsonl", b'{"id": "1", "name": "\xe9"}\n', "e.jsonl:1: not UTF-8 at byte 21"),
        ("e.csv", "id,name,popularity\n1,a,nan\n", 'row 1: "popularity" must be a number'),
        ("e.csv", "id,name,popularity\n1,a,much\n", "invalid value 'much'"),
        ("e.csv", "id,name\n1,a\n2,b\n1,c\n", "row 3: entity id '1' is given twice, first in"),
    ],
)
def test_a_file_is_refused(
    tmp_path: Path, name: str, content: str | bytes | None, told: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert told in refusal(lambda: read(path))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"id": ""}, '"id" must not be empty'),
        ({"id": 7}, '"id" must be a string, got a number'),
        ({"id": "a\nb"}, "control character"),
        ({"id": "a\x00"}, "control character"),
        ({"id": "\x9b2J"}, "control character"),
        ({"id": "a\u2028b"}, "control character"),
        ({"id": "x" * 501}, "longer than 500"),
        ({"id": "\ud800"}, "half a surrogate pair"),
        ({"name": None}, '"name" must be a string, got null'),
        ({"name": "\udfff"}, '"name" holds half a surrogate pair'),
        ({"description": ["x"]}, '"description" must be a string, got a list'),
        ({"type": 3}, '"type" must be a string'),
        ({"aliases": "Jim"}, '"aliases" must be a list of strings'),
        ({"aliases": False}, '"aliases" must be a list of strings'),
        ({"aliases": ["Jim", None]}, 'each of "aliases" must be a string, got null'),
        ({"popularity": "9"}, '"popularity" must be a number'),
        ({"popularity": True}, '"popularity" must be a number'),
        ({"popularity": float("nan")}, '"popularity" must be a number'),
        ({"popularity": float("inf")}, '"popularity" must be a number'),
        ({"popularity": 10**400}, '"popularity" must be a number'),
        ({"images": "a.png"}, '"images" must be a list'),
        ({"images": ["a.png", ""]}, '"image" must not be empty'),
        ({"image": "a.png", "images": ["b.png"]}, 'give "image" or "images", not both'),
    ],
)
def test_a_row_is_refused_with_its_place(tmp_path: Path, fields: dict[str, Any], told: str) -> None:
    path = json_lines(tmp_path / "e.jsonl", [ROWS[1], {"id": "Q2", "name": "a"} | fields])
    line = refusal(lambda: read(path))
    assert told in line
    assert f"{path}:2: " in line


def test_two_rows_of_one_id_are_told_with_both_places(tmp_path: Path) -> None:
    path = json_lines(tmp_path / "e.jsonl", [*ROWS, {"id": "Q9", "name": "other"}])
    assert refusal(lambda: read(path)) == (
        f"{path}:6: entity id 'Q9' is given twice, first in {path}:4; ids must be unique"
    )


def test_a_number_column_is_no_id(tmp_path: Path) -> None:
    """In Parquet a type is meant."""
    path = tmp_path / "e.parquet"
    parquet.write_table(pa.table({"id": [7], "name": ["seven"]}), path)
    assert 'row 1: "id" must be a string, got a number' in refusal(lambda: read(path))
    parquet.write_table(pa.table({"id": ["7"], "name": ["x"], "popularity": [float("nan")]}), path)
    assert 'row 1: "popularity" must be a number' in refusal(lambda: read(path))
