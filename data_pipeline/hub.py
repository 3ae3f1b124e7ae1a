"""Repositories of the Hugging Face hub, downloaded by its client, and every byte checked.

A data set comes into a folder, with `ROOT/.hub.json` beside its files: what is, or is to be, there.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import HfApi, errors
from huggingface_hub.hf_api import RepoFile
from tqdm.auto import tqdm

from data_pipeline.files import hold, load_json, write_json
from data_pipeline.output import Progress
from data_pipeline.schema import UserError

SCHEME = "hub:"
MARKER = ".hub.json"
_LOCK = ".hub.lock"  # held by the one process that downloads; the system frees it with the process
_SECONDS = 10.0  # to wait for the hub's first answer
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


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

    Asks no network where `root` holds the finished download. Of a download that broke off, whole
    files stay. A file that is there already and differs is not overwritten.

    Args:
        source: as `parse` takes it.

    Raises:
        UserError: as `download`, and where `root` holds something else.
    """
    name, revision = parse(source)
    root = Path(root).expanduser()
    asked = {"repository": name, "revision": revision}
    left = _read_marker(root)
    if left and {key: left[key] for key in asked} != asked:
        was = f"{SCHEME}{left['repository']}" + f"@{left['revision']}" * bool(left["revision"])
        raise UserError(f"{source}: {root} holds {was}; give another data.root")
    if left and left["complete"]:
        here = {one: root / one for one in left["files"] if (root / one).is_file()}
        if left["files"] == {one: path.stat().st_size for one, path in here.items()}:
            return
    with explained(source, "download it elsewhere and set data.root to its folder"):
        root.mkdir(parents=True, exist_ok=True)
        with hold(root / _LOCK):
            commit, files = listed(name, "dataset", revision)
            for one in files:
                first, *_ = parts = one.split("/")
                if first in ("", ".cache", MARKER, _LOCK) or ".." in parts:
                    raise UserError(f"{source}: holds a file {one!r}, which is refused")
            for one in _damaged(name, "dataset", commit, root):
                if not left:  # not ours
                    told = f"{root / one} is there already and differs; move it away"
                    raise UserError(f"{source}: {told}")
                (root / one).unlink()
            for stale in root.glob(".cache/huggingface/download/**/*.incomplete"):
                stale.unlink()
            marker = asked | {"commit": commit, "files": files}
            write_json(root / MARKER, marker | {"complete": False})
            download(source, name, "dataset", files, revision=commit, local_dir=root)
            write_json(root / MARKER, marker | {"complete": True})


def listed(name: str, kind: str, revision: str | None = None) -> tuple[str, dict[str, int]]:
    """Commit of a repository ("dataset" or "model"), and the size of each of its files."""
    # The client's other calls have no time limit: ask for a sign of life first.
    info = HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=_SECONDS)
    tree = HfApi().list_repo_tree(name, recursive=True, revision=info.sha, repo_type=kind)
    return str(info.sha), {file.path: file.size for file in tree if isinstance(file, RepoFile)}


def download(source: str, name: str, kind: str, files: Mapping[str, int], **options: Any) -> Path:
    """Brings files (path -> size) of a repository into the client's cache, or into a folder.

    Args:
        options: of the client's `snapshot_download`; its `allow_patterns` are those that `files`
            were chosen by.

    Returns:
        where they are, each with the hash that the hub names.

    Raises:
        UserError: a file arrived damaged; it is gone again.
    """
    total = sum(files.values())
    amount = f"{len(files)} files, {total / 1e6:.1f} MB"
    with Progress(f"downloading {source}", total, unit="B", amount=amount) as bar:

        class Bar(tqdm):
            """What the client tells of its bytes; of its other bars nothing is shown."""

            def __init__(self, *args: Any, name: str = "", **options: Any) -> None:
                self._counts = options.get("unit") == "B" and "bytes" not in options["desc"]
                super().__init__(*args, **options | {"disable": True})

            def update(self, n: float | None = 1) -> None:
                if self._counts:
                    bar.advance(int(n or 0))

        found = huggingface_hub.snapshot_download(name, repo_type=kind, tqdm_class=Bar, **options)
    at, folder = Path(found), options.get("local_dir")
    damaged = _damaged(name, kind, options["revision"] if folder else at.name, folder)
    for path in damaged:
        (at / path).resolve().unlink(missing_ok=True)  # in the cache it is a link
        (at / path).unlink(missing_ok=True)
    if damaged:
        told = ", ".join(damaged[:6]) + f" and {len(damaged) - 6} more" * (len(damaged) > 6)
        raise UserError(f"{source}: {told} arrived damaged (the hash is not the hub's); run again")
    return at


def _damaged(name: str, kind: str, commit: str | None, folder: Path | None) -> list[str]:
    """Files that are there with another hash than the hub's."""
    checked = HfApi().verify_repo_checksums(name, repo_type=kind, revision=commit, local_dir=folder)
    return [one["path"] for one in checked.mismatches]


@contextlib.contextmanager
def explained(source: str, mend: str) -> Iterator[None]:
    """The client says nothing meanwhile; whatever it raises becomes a UserError of one line."""
    logging = huggingface_hub.utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the client raises many kinds (httpx, OSError, its own)
        raise UserError(f"{source}: {_reason(error, mend)}") from None
    finally:
        logging.set_verbosity(level)


def _reason(error: Exception, mend: str) -> str:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return "gated on the hub; log in (`hf auth login`)"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the hub has no such revision; check what follows the @"
    unknown = errors.RepositoryNotFoundError | errors.HFValidationError
    if isinstance(error, unknown) or status == 401:
        return (
            "the Hugging Face hub knows nothing of this name; check the name, or log in "
            "(`hf auth login`) if it is private"
        )
    if status is not None:
        return f"the Hugging Face hub answered with {status}; {mend}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be written ({error.filename or ''} {error.strerror})"
    if type(error) is OSError:  # as the client calls a wrong length
        return "the transfer broke off; run again to go on"
    return f"the Hugging Face hub cannot be reached ({type(error).__name__}); {mend}"


def _read_marker(root: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        marker: dict[str, Any] = load_json(root / MARKER)
        if {"repository", "complete", "revision", "commit", "files"} <= set(marker):
            return marker
    return None
