"""A data set repository of the Hugging Face hub, downloaded: resumable, and every byte checked.

`huggingface_hub` finds the repository and moves the bytes. Its own `snapshot_download` throws a
half-received file away when the process dies and compares lengths only, so the bookkeeping is ours:
a file grows under the name of its content's hash and takes its place when the hash is right.

    ROOT/.hub.json           what is, or is to be, here: repository, commit, files and sizes
    ROOT/.hub/HASH….part     a file on its way
    ROOT/.hub/lock           held (flock) by the one process that downloads
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path, PurePosixPath
from typing import Any

import huggingface_hub
from huggingface_hub import errors
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers
from rich import progress
from rich.console import Console

from data_pipeline.files import write_json
from data_pipeline.schema import UserError

SCHEME = "hub:"
MARKER = ".hub.json"
PARTS = ".hub"
_SECONDS = 10.0  # to wait for the hub's first answer
_THREADS = 4  # files on their way at once
_CHUNK = 1 << 20
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclasses.dataclass(frozen=True)
class _File:
    """A file of the repository: `hash` is SHA-256 of the content, or git's SHA-1 of the blob."""

    path: str
    size: int
    hash: str

    def digest(self) -> Any:
        """An empty hash of the kind that `hash` is."""
        if len(self.hash) == 64:
            return hashlib.sha256()
        return hashlib.sha1(f"blob {self.size}\0".encode())


def parse(source: str) -> tuple[str, str | None]:
    """Repository and revision of "hub:OWNER/NAME" or "hub:OWNER/NAME@REVISION".

    Raises:
        UserError: not of this form.
    """
    name, at, revision = source.removeprefix(SCHEME).partition("@")
    if not source.startswith(SCHEME) or not _NAME.fullmatch(name) or bool(at) != bool(revision):
        raise UserError(f"{source!r}: write hub:OWNER/NAME or hub:OWNER/NAME@REVISION")
    return name, revision or None


def fetch(source: str, root: str | Path) -> None:
    """Downloads the data set repository `source` into the folder `root`.

    Asks no network where `root` holds the finished download. A download that broke off goes on at
    the commit where it began. Files that are there already are kept if they are the same.

    Args:
        source: as `parse` takes it.

    Raises:
        UserError: one line where the source is malformed, unknown, gated or not to be reached, a
            transfer breaks off or arrives damaged, or `root` holds something else.
    """
    name, revision = parse(source)
    root = Path(root).expanduser()
    asked = {"repository": name, "revision": revision}
    left = _read_marker(root)
    if left is not None and {key: left.get(key) for key in asked} != asked:
        was = f"{SCHEME}{left.get('repository')}" + f"@{left['revision']}" * bool(left["revision"])
        raise UserError(f"{source}: {root} holds {was}; give another data.root")
    if left is not None and left["complete"] and _whole(root, left["files"]):
        return
    try:
        (root / PARTS).mkdir(parents=True, exist_ok=True)
        with (root / PARTS / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{source}: another process is downloading it; wait") from None
            with _quiet():
                _fetch(source, root, asked, _read_marker(root))
    except UserError:
        raise
    except Exception as error:  # the hub's client raises many kinds (httpx, requests, OSError)
        if isinstance(error, OSError) and error.errno is not None:
            told = f"{source}: {root} cannot be written ({error.strerror})"
            raise UserError(told) from None
        raise _explained(source, error) from None


def _read_marker(root: Path) -> dict[str, Any] | None:
    try:
        marker = json.loads((root / MARKER).read_text("utf-8"))
        return marker if {"complete", "revision", "commit", "files"} <= set(marker) else None
    except (OSError, ValueError, TypeError):
        return None


def _whole(root: Path, files: dict[str, int]) -> bool:
    return all(
        (root / path).is_file() and (root / path).stat().st_size == size
        for path, size in files.items()
    )


def _explained(source: str, error: Exception) -> UserError:
    mend = "download it elsewhere and set data.root to its folder"
    if isinstance(error, errors.GatedRepoError):
        return UserError(f"{source}: gated on the hub; log in (`hf auth login`)")
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"{source}: the hub has no such revision; check what follows the @")
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    unknown = isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError)
    if unknown or status == 401:
        return UserError(
            f"{source}: no data set that the Hugging Face hub knows; check the name, or log in "
            "(`hf auth login`) if it is private"
        )
    told = f"cannot be reached ({type(error).__name__})"
    if status is not None:
        told = f"answered with {status}"
    return UserError(f"{source}: the Hugging Face hub {told}; {mend}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Our own bar and our own line on what fails: the client's are off for the while."""
    hub = huggingface_hub.utils
    bars, level = not hub.are_progress_bars_disabled(), hub.logging.get_verbosity()
    hub.disable_progress_bars()
    hub.logging.set_verbosity(hub.logging.CRITICAL)
    try:
        yield
    finally:
        hub.logging.set_verbosity(level)
        if bars:
            hub.enable_progress_bars()


def _fetch(source: str, root: Path, asked: dict[str, Any], left: dict[str, Any] | None) -> None:
    api, name = huggingface_hub.HfApi(), asked["repository"]
    # The client's other calls have no time limit: ask for a sign of life first.
    at = left["commit"] if left else asked["revision"]
    commit = api.dataset_info(name, revision=at, timeout=_SECONDS).sha
    tree = api.list_repo_tree(name, recursive=True, revision=commit, repo_type="dataset")
    files = []
    for entry in tree:
        if isinstance(entry, huggingface_hub.hf_api.RepoFile) and entry.path != ".gitattributes":
            path = PurePosixPath(entry.path)
            if path.is_absolute() or ".." in path.parts or path.parts[0] in (MARKER, PARTS):
                raise UserError(f"{source}: holds a file {entry.path!r}, which is refused")
            content = entry.lfs.sha256 if entry.lfs else entry.blob_id
            files.append(_File(entry.path, entry.size, content))
    if not files:
        raise UserError(f"{source}: holds no files; check the name")
    marker = asked | {"commit": commit, "files": {file.path: file.size for file in files}}
    write_json(root / MARKER, marker | {"complete": False})
    url = {
        file.path: huggingface_hub.hf_hub_url(name, file.path, repo_type="dataset", revision=commit)
        for file in files
    }
    _download(source, root, files, url, replace=left is not None)
    write_json(root / MARKER, marker | {"complete": True})
    for part in (root / PARTS).glob("*.part"):
        part.unlink()


def _download(
    source: str, root: Path, files: list[_File], url: dict[str, str], replace: bool
) -> None:
    total, stop = sum(file.size for file in files), threading.Event()
    console = Console(stderr=True)
    title = f"downloading {source}"
    if not console.is_terminal:
        told = f"{title}: {len(files)} files, {total / 1e6:.1f} MB"
        print(told, file=sys.stderr, flush=True)
    columns = (*progress.Progress.get_default_columns()[:2], progress.DownloadColumn())
    rate = (progress.TransferSpeedColumn(), progress.TimeRemainingColumn())
    with (
        progress.Progress(*columns, *rate, console=console, disable=not console.is_terminal) as bar,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        task = bar.add_task(title, total=total)

        def advance(size: int) -> None:
            if stop.is_set():
                raise InterruptedError("another file failed")
            bar.advance(task, size)

        running = [
            pool.submit(_one, source, root, file, url[file.path], replace, advance)
            for file in files
        ]
        try:
            for future in wait(running, return_when=FIRST_EXCEPTION).done:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _one(
    source: str, root: Path, file: _File, url: str, replace: bool, advance: Callable[[int], None]
) -> None:
    """Makes one file whole. UserError if it breaks off, comes damaged, or stands in the way."""
    target = root / file.path
    if target.exists():
        if target.stat().st_size == file.size and _hash(target, file) == file.hash:
            advance(file.size)
            return
        if not replace:
            raise UserError(f"{source}: {target} is there already and differs; move it away")
    part = root / PARTS / f"{file.hash}-{file.path.replace('/', '_')[-80:]}.part"
    done = part.stat().st_size if part.exists() else 0
    if done > file.size:
        part.unlink()
        done = 0
    advance(done)
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}  # lengths are of plain bytes
    try:
        with _Counted(part, advance) as out:
            http_get(url, out, resume_size=done, headers=headers, expected_size=file.size)
    except (InterruptedError, errors.HfHubHTTPError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk
        raise UserError(
            f"{source}: the transfer of {file.path} broke off ({type(error).__name__}); run again "
            "to go on"
        ) from None
    if _hash(part, file) != file.hash:
        part.unlink()
        raise UserError(
            f"{source}: {file.path} arrived damaged (its hash is not the hub's); run again"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, target)


class _Counted(io.FileIO):
    """A file to append to that tells how much is written."""

    def __init__(self, path: Path, advance: Callable[[int], None]):
        super().__init__(path, "ab+")
        self._advance = advance

    def write(self, content: Any) -> int:
        written = super().write(content)
        self._advance(written)
        return written


def _hash(path: Path, file: _File) -> str:
    digest = file.digest()
    with path.open("rb") as content:
        while piece := content.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()
