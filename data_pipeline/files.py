"""Files that appear whole: written under another name first, and renamed when they are on disk."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from data_pipeline.schema import UserError


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """`path` as `write(file)` leaves it: under another name first, so that it appears whole.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # a full disk wants the room back
            temporary.unlink()
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error


def write_tensors(
    path: Path, arrays: Mapping[str, Any], metadata: dict[str, str] | None = None
) -> None:
    """A whole safetensors file of arrays."""
    from safetensors.numpy import save

    content = save(dict(arrays), metadata)
    write_whole(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    """A whole UTF-8 file."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: Any) -> None:
    """A whole JSON file."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1))


def load_json(path: Path) -> Any:
    """The content of a UTF-8 JSON file. ValueError for anything else; OSError."""
    try:
        return json.loads(path.read_text("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path, mend: str, missing: str = "", form: type = dict) -> Any:
    """What a JSON file holds, a `form`.

    Args:
        mend: what to do about damage.
        missing: what it means that there is no such file.

    Raises:
        FileNotFoundError, NotADirectoryError: there is none, and `missing` is empty.
        UserError: it cannot be read, is no JSON or holds something else.
    """
    try:
        content = load_json(path)
        if not isinstance(content, form):
            raise ValueError(f"holds no {form.__name__}")
    except (FileNotFoundError, NotADirectoryError):
        if not missing:
            raise
        raise UserError(f"{path}: {missing}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: unreadable ({error}); {mend}") from None
    return content


def hold(path: Path) -> TextIO:
    """The lock file `path`, held until it is closed or this process ends, however it ends.

    Raises:
        UserError: another process holds it; says which.
    """
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = " ".join(file.read().split()) or "another process"
        file.close()
        raise UserError(f"{path.parent}: in use by {holder}; wait for it, or stop it") from error
    except OSError:  # a file system without locks
        return file
    file.truncate(0)
    file.write(f"{this_process()}\n")
    file.flush()
    return file


@contextlib.contextmanager
def draft(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder`, which one process alone fills and renames to it; what is not
    renamed is gone at the end, and what a killed one left at the beginning.

    Raises:
        UserError: another process fills it.
        OSError: the place cannot be written.
    """
    folder = folder.absolute()
    partial, lock = (folder.with_name(f"{folder.name}.{end}") for end in ("partial", "lock"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with hold(lock) as file:
        if not (lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.stat())):
            raise UserError(f"{folder}: another process has just made it; run again")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            lock.unlink()


def hold_file(file: TextIO) -> None:
    """Lock an open file until it is closed. UserError where another process has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{file.name}: another process writes it; wait for it, or stop it"
        ) from None
    except OSError:  # a file system without locks
        pass


def this_process() -> str:
    """Who holds a lock, for others to read."""
    command = sys.orig_argv[2] if sys.orig_argv[1:2] == ["-m"] else Path(sys.argv[0]).name
    return f"process {os.getpid()} on {socket.gethostname()} ({command})"


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(tree: Any) -> Any:
    """What JSON makes of it: lists for tuples, numbers for NumPy scalars."""
    return json.loads(json.dumps(tree, default=lambda scalar: scalar.item()))


def sync_folder(folder: Path) -> None:
    """Names that appeared in `folder` survive a power cut from here on. UserError: a full disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        os.close(handle)


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in `folder` by its name there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in paths}


def own_checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of a folder's manifest itself, but for this number, its "checksum"."""
    fields = {name: value for name, value in content.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def is_inside(name: str) -> bool:
    """Whether a manifest may name such a file: below its own folder."""
    outside = Path(name).is_absolute() or ".." in Path(name).parts
    return not outside and name.isprintable()  # half a surrogate and NUL are in no file's name


def check_files(folder: Path, digests: Mapping[str, str], mend: str) -> None:
    """UserError where a file of a folder is missing or other than its manifest says."""
    for name, digest in digests.items():
        path = folder / name
        try:
            found = sha256(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); {mend}") from None
        if found != digest:
            raise UserError(f"{path}: damaged, its checksum is not the manifest's; {mend}")
