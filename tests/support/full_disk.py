"""A disk without room."""

import contextlib
import resource
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def full_beyond(size: int) -> Iterator[None]:
    """Files of this process may not grow past so many bytes: a write fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
