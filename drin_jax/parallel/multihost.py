"""A run of several processes, each with its own devices: one meaning, one end.

A run of one process calls the same functions, which then do nothing. JAX moves arrays between the
processes (on CPUs through gloo, its default); what the hosts have to agree on goes through
`drin_jax.parallel.peers`, which costs a fraction of a millisecond and no wait for a device.
"""

import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from data_pipeline import progress
from data_pipeline.schema import UserError
from drin_jax.parallel.hub import Hub
from drin_jax.parallel.peers import END, Member, Place

T = TypeVar("T")

SAME_VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
NEWS = 5.0  # seconds after which an error that another process caused is known to be so

_peers: Hub | Member | None = None


def join(place: Place | None, config: Mapping[str, Any]) -> None:
    """Become one process of a run; None: the only one. Before anything else uses JAX.

    Args:
        config: flat names and values, equal on all processes.

    Raises:
        UserError: a process is missing, or some do not mean the same run.
    """
    global _peers
    if place is None or place.processes == 1:
        return
    card = {f"version of {name}": metadata.version(name) for name in SAME_VERSIONS} | dict(config)
    peers = Hub(place, card) if place.process == 0 else Member(place, card)
    _peers = peers
    progress.SPEAKS = lead()
    import jax

    # It would take SIGTERM for itself; `agree_on_stop` has its place.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            peers.jax_address,
            num_processes=place.processes,
            process_id=place.process,
            # Else it would take one device a process on Slurm, whatever was asked of srun.
            cluster_detection_method="deactivate",
            initialization_timeout=int(max(60, place.timeout)),
            coordinator_bind_address=peers.bind_address or None,
        )
        devices = jax.local_devices()
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"JAX does not start at {peers.jax_address}: {reason[0][:300]}") from error
    check_equal("devices", f"{len(devices)} devices ({devices[0].platform})")


def count() -> int:
    """Processes of the run."""
    return _peers.place.processes if _peers else 1


def lead() -> bool:
    """Whether this is the process that writes and speaks for all: number 0."""
    return _peers is None or _peers.place.process == 0


def gather(name: str, value: Any = None) -> list[Any]:
    """The values of all processes, in their order, once all are here.

    Args:
        name: what is waited for, as users read it; the same on all.
        value: anything JSON holds.
    """
    return _peers.gather(name, value) if _peers else [value]


def barrier(name: str) -> None:
    """Wait until all processes are here, for hours if need be; a process that ends, ends all."""
    gather(name)


def once(name: str, first: Callable[[], T], then: Callable[[], T]) -> T:
    """`first()` on process 0, and when it is done, `then()` on the others.

    A failure of `first` ends all processes with its line.
    """
    result = first() if lead() else None
    barrier(name)
    return then() if result is None and not lead() else result  # type: ignore[return-value]


def check_equal(name: str, value: Any) -> None:
    """UserError where the processes have not all the same `value`."""
    values = gather(name, value)
    for process, other in enumerate(values):
        if other != values[0]:
            raise UserError(
                f"{name}: process 0 has {values[0]}, process {process} has {other}; they must be "
                "the same on all processes"
            )


def check_shared(folder: Path) -> None:
    """UserError on every process where some do not see what process 0 writes into `folder`."""
    if _peers is None:
        return
    token = gather("a name for a file", f".seen-{uuid4().hex}")[0]
    if lead():
        (folder / token).touch()
    barrier("a file of process 0")
    seen = gather("who sees that file", [(folder / token).exists(), _peers.host])
    if lead():
        (folder / token).unlink()
    for process, (there, host) in enumerate(seen):
        if not there:
            raise UserError(
                f"process {process} on {host} does not see what process 0 on {seen[0][1]} writes "
                f"into {folder.absolute()}; put --workdir on a file system that all machines share"
            )


def agree_on_stop(received: int | None, due: bool = True) -> int | None:
    """The signal at which all processes stop after this step, or None.

    Args:
        received: by this process, if any.
        due: whether processes agree here; the same on all. Where it is False, several go on.
    """
    if _peers is None:
        return received
    if not due:
        return None
    return next((signal for signal in gather("a step", received) if signal), None)


def await_news() -> None:
    """After an error that nobody foresaw: where it is the loss of another process that surfaced
    here, this process ends in these seconds, with that process's line."""
    if _peers:
        time.sleep(NEWS)


def leave(line: str, code: int) -> None:
    """Tell the others that this process ends before the run does; they end with it.

    Args:
        line: why.
        code: the exit code for all.
    """
    if _peers:
        _peers.leave(line, code)


def part() -> None:
    """The good end: wait for the others, then part from them."""
    global _peers
    if _peers is None:
        return
    barrier(END)
    jax = sys.modules["jax"]
    jax.distributed.shutdown()
    _peers.close()
    _peers = None
