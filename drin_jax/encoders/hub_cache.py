"""What the Hugging Face client's cache holds, compared with the hashes the hub gave.

The client itself compares lengths only, but for what comes by its Xet protocol.
"""

import hashlib
from pathlib import Path


def remove_damaged(snapshot: Path) -> list[str]:
    """Files of a downloaded snapshot whose bytes are not the hub's; they are gone afterwards.

    A snapshot's file is a link to `blobs/HASH`: the SHA-256 of a large file, git's SHA-1 of a small
    one. A cache without links (Windows, HF_HUB_DISABLE_SYMLINKS) does not keep the hashes: there
    nothing is compared.
    """
    damaged = []
    for path in sorted(snapshot.rglob("*")):
        if not (path.is_symlink() and path.is_file()):
            continue
        blob = path.parent / path.readlink()
        if not _whole(blob):
            damaged.append(path.relative_to(snapshot).as_posix())
            for part in (blob.resolve(), blob, path):  # a blob may be a link itself
                part.unlink(missing_ok=True)
    return damaged


def _whole(blob: Path) -> bool:
    """Whether a blob's bytes have the hash that it is named by."""
    if len(blob.name) == 64:
        digest = hashlib.sha256()
    elif len(blob.name) == 40:
        digest = hashlib.sha1(b"blob %d\0" % blob.stat().st_size)
    else:
        return True  # named by another server's sum
    with blob.open("rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest() == blob.name
