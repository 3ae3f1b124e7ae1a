"""A run of several processes, each with its own devices: one meaning, one end.

`jax.distributed` brings the processes together and moves what they exchange. Each is the child of
`watchdog.py`, which tells in one line where another is missing or lost.
"""

import contextlib
import dataclasses
import json
import os
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from absl import flags

from data_pipeline import output
from data_pipeline.schema import UserError, differing, reason
from drin_jax.parallel import watchdog

T = TypeVar("T")

SAME_VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
HEARTBEAT = 10  # seconds without a sign of life after which a process counts as lost
FOREVER = 7 * 24 * 3600 * 1000  # milliseconds that a process waits for another's preparations
LOST = "another process of the run ended or cannot be reached any more; start all again to go on"
_FAILED_EXCHANGE = re.compile("gloo|nccl|coordination|barrier", re.IGNORECASE)
FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Rank:
    """Which process of a run this is; None: what JAX finds in its surroundings (Slurm, Open MPI, a
    TPU pod). `coordinator` is "HOST:PORT" of process 0, `timeout` in seconds."""

    coordinator: str | None
    processes: int | None
    process: int | None
    timeout: float = 300.0


def define_flags() -> None:
    """The flags of a command that several processes can run together."""
    flags.DEFINE_enum(
        "distributed",
        "auto",
        ["auto", "on", "off"],
        "One of several processes: auto (where a coordinator is named), on (what is not named is "
        "found by JAX: Slurm, Open MPI, TPU pods), off (whatever the environment says).",
    )
    flags.DEFINE_string("coordinator", None, "HOST:PORT where process 0 listens for the others.")
    flags.DEFINE_integer("processes", None, "Processes of the run.", lower_bound=1)
    flags.DEFINE_integer("process", None, "Number of this process, from 0.", lower_bound=0)
    flags.DEFINE_float("start_timeout", 300.0, "Seconds in which all must be there.", 1.0)


def rank(environment: Mapping[str, str] = os.environ) -> Rank | None:
    """What the flags say, and where they say nothing DRIN_COORDINATOR, DRIN_PROCESSES and
    DRIN_PROCESS, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. None: a run of
    one process.

    Raises:
        UserError: they contradict themselves.
    """

    def value(flag: str, variable: str) -> Any:
        found = environment.get(f"DRIN_{flag.upper()}") or environment.get(variable)
        return found if FLAGS[flag].value is None else FLAGS[flag].value

    if FLAGS.distributed == "off":
        return None
    coordinator = value("coordinator", "JAX_COORDINATOR_ADDRESS")
    if coordinator is None and FLAGS.distributed == "auto":
        for flag in ("processes", "process"):
            if FLAGS[flag].value is not None:
                raise UserError(f"--{flag} needs --coordinator=HOST:PORT or --distributed=on")
        return None
    if coordinator and not re.fullmatch(r".+:\d+", coordinator):
        raise UserError(f"the coordinator {coordinator!r} is not HOST:PORT of process 0")
    numbers = [value("processes", "JAX_NUM_PROCESSES"), value("process", "JAX_PROCESS_ID")]
    try:
        processes, process = (None if number is None else int(number) for number in numbers)
    except ValueError:
        raise UserError(f"processes and process are {numbers}; they must be numbers") from None
    if processes == 1:
        return None
    return Rank(coordinator, processes, process, FLAGS.start_timeout)


@contextlib.contextmanager
def joined(rank: Rank | None, config: Mapping[str, Any]) -> Iterator[None]:
    """Be one process of a run inside this context; None: the only one. Before JAX is used.

    Args:
        config: flat names and values, equal on all processes.

    Raises:
        UserError: a process is missing or lost, or some do not mean the same run.
    """
    if rank is None:
        yield
        return
    missing = (
        f"the processes did not come together within --start_timeout={rank.timeout:g} s ({{}}); "
        "start each with its own number, and see that it reaches "
        f"{rank.coordinator or 'process 0'}"
    )
    parent = watchdog.work_as_child(missing, LOST)
    import jax

    try:
        _initialize(rank)
        os.write(parent, b"joined")
        output.SPEAKS = jax.process_index() == 0
        places = [device.process_index for device in jax.devices()]
        devices = [places.count(process) for process in range(jax.process_count())]
        if len({*devices}) > 1:  # an exchange would fail
            raise UserError(f"the processes have {devices} devices; give all the same number")
        versions = {f"version of {name}": metadata.version(name) for name in SAME_VERSIONS}
        check_equal("the run", {**versions, "platform": jax.default_backend(), **config})
        yield
    except (UserError, OSError, KeyboardInterrupt):
        raise  # and the exit is at once: the others are not waited for
    except SystemExit:
        jax.distributed.shutdown()
        raise
    except Exception as error:
        if _FAILED_EXCHANGE.search(str(error)):
            raise UserError(LOST) from error
        traceback.print_exc()
        os._exit(1)  # an ordinary exit would wait for the others
    jax.distributed.shutdown()


def _initialize(rank: Rank) -> None:
    import jax

    # It would take SIGTERM for itself; `agree_on_stop` has its place.
    jax.config.update("jax_enable_preemption_service", False)
    devices = os.environ.get("JAX_LOCAL_DEVICE_IDS", "")
    try:
        jax.distributed.initialize(
            rank.coordinator,
            rank.processes,
            rank.process,
            # None would be one device a process on Slurm, whatever was asked of srun.
            local_device_ids=[int(device) for device in devices.split(",") if device],
            initialization_timeout=int(rank.timeout),
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=HEARTBEAT,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes do not come together: {reason(error)}") from error


def gather(value: Any) -> list[Any]:
    """The values of all processes, anything JSON holds, in their order, once all are here."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.ravel(multihost_utils.process_allgather(np.int32(len(text))))
    row = np.zeros(max(sizes), np.uint8)
    row[: len(text)] = text
    rows = np.reshape(multihost_utils.process_allgather(row), (len(sizes), -1))
    return [json.loads(bytes(row[:size])) for row, size in zip(rows, sizes, strict=True)]


def check_equal(name: str, values: Mapping[str, Any]) -> None:
    """UserError where a process has other `values` than process 0, naming those that differ."""
    first, *others = gather(dict(values))
    for process, other in enumerate(others, 1):
        found = differing(first, other)
        if found:
            raise UserError(
                f"{name}: process {process} differs from process 0 ({found}); they must be the "
                "same on all processes"
            )


def check_shared(folder: Path) -> None:
    """UserError on every process where some do not see what process 0 writes into `folder`."""
    import jax

    if jax.process_count() == 1:
        return
    token = folder / f".seen-{uuid4().hex}"
    if jax.process_index() == 0:
        token.touch()
    token = folder / gather(token.name)[0]  # of process 0, and it is there
    seen = gather(token.exists())
    if jax.process_index() == 0:
        token.unlink()
    if not all(seen):
        raise UserError(
            f"process {seen.index(False)} does not see what process 0 writes into "
            f"{folder.absolute()}; put --workdir on a file system that all machines share"
        )


def first_alone(name: str, first: Callable[[], T], then: Callable[[], T]) -> T:
    """`first()` on process 0, and when that is done, for which the others wait for days if need be,
    `then()` on the others. `name` is of this waiting alone."""
    import jax
    from orbax.checkpoint import multihost as orbax_multihost

    result = first() if jax.process_index() == 0 else None
    orbax_multihost.get_barrier_sync_fn()(key=name, timeout_ms=FOREVER)
    return then() if result is None else result


def agree_on_stop(received: int | None, due: bool = True) -> int | None:
    """The signal at which all processes stop after this step, or None.

    Args:
        received: by this process, if any.
        due: whether processes agree here; the same on all. Where it is False, several go on.
    """
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return received
    if not due:
        return None
    return int(np.max(multihost_utils.process_allgather(np.int32(received or 0)))) or None
