"""What an export holds: the names of its files, its inputs, and `export.json`.

`export.json` is written last and holds the SHA-256 of every other file and of itself, so that what
is cut, changed or missing is told before anything is run.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from data_pipeline import schema
from data_pipeline.files import sha256
from data_pipeline.schema import UserError

FORMAT, VERSION = "drin_jax export", 1
MANIFEST, CONFIG, PARAMS, ARTEFACT = "export.json", "config.json", "params", "scorer.jaxexport"
PLATFORMS = ("cpu", "cuda", "tpu")
UNREAD = ("gold", "mask")  # of a batch: what training and evaluation know, and scores do not need

Size = Any  # an int, or a symbol of jax.export

AGAIN = "export the run again with python -m drin_jax.export"


def inputs(
    b: Size, r: Size, t: int, v: int, needs: Collection[str], s: Size, q: Size
) -> dict[str, tuple[tuple[Size, ...], str]]:
    """Shapes and dtypes of the arrays that a scorer takes; sizes may be symbols."""
    shapes = schema.batch_shapes(b, r, t, v, needs, s, q)
    return {name: shape for name, shape in shapes.items() if name not in UNREAD}


def read(folder: Path) -> dict[str, Any]:
    """`export.json`, every file that it names being as it says.

    Raises:
        UserError: no export, of another version, or damaged.
    """
    content = peek(folder)
    if content is None:
        what = f"holds no {MANIFEST} of ours" if folder.is_dir() else "is no folder"
        raise UserError(
            f"{folder} {what}, so it is no export; give the --out of python -m drin_jax.export"
        )
    if content.get("version") != VERSION:
        raise UserError(
            f"{folder / MANIFEST}: is of version {content.get('version')}, made by drin_jax "
            f"{content.get('drin_jax')}; this program reads version {VERSION}; {AGAIN} of one of "
            "the two"
        )
    if content.get("checksum") != own_checksum(content):
        raise UserError(f"{folder / MANIFEST}: damaged, it is not as it was written; {AGAIN}")
    for name, digest in content["files"].items():
        path = folder / name
        try:
            found = sha256(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); {AGAIN}") from None
        if found != digest:
            raise UserError(f"{path}: damaged, its checksum is not that of {MANIFEST}; {AGAIN}")
    return content


def peek(folder: Path) -> dict[str, Any] | None:
    """`export.json` as it is, of any version; None where the folder is no export.

    Raises:
        UserError: there is such a file and it cannot be read.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); {AGAIN}") from None
    return content if isinstance(content, dict) and content.get("format") == FORMAT else None


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in `folder` by its name there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in paths}


def own_checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest itself, but for this number."""
    fields = {name: value for name, value in content.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
