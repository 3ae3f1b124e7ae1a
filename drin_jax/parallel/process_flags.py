"""The flags that say which process of a run this is, with their equivalents in the environment.

    flag            environment, the first that is set
    --coordinator   DRIN_COORDINATOR, JAX_COORDINATOR_ADDRESS
    --processes     DRIN_PROCESSES, JAX_NUM_PROCESSES, SLURM_NTASKS, OMPI_COMM_WORLD_SIZE
    --process       DRIN_PROCESS, JAX_PROCESS_ID, SLURM_PROCID, OMPI_COMM_WORLD_RANK,
                    JOB_COMPLETION_INDEX

Only a coordinator makes a run one of several processes: Slurm's variables, say, are also there in
a shell that was opened to try something out.
"""

import os
from collections.abc import Mapping

from absl import flags

from data_pipeline.schema import UserError
from drin_jax.parallel.peers import Place
from drin_jax.parallel.wire import split_address

FLAGS = flags.FLAGS
ENVIRONMENT = {
    "coordinator": ("DRIN_COORDINATOR", "JAX_COORDINATOR_ADDRESS"),
    "processes": ("DRIN_PROCESSES", "JAX_NUM_PROCESSES", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"),
    "process": (
        *("DRIN_PROCESS", "JAX_PROCESS_ID", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"),
        "JOB_COMPLETION_INDEX",
    ),
}


def define() -> None:
    """The flags of a command that several processes can run together."""
    flags.DEFINE_enum(
        "distributed",
        "auto",
        ["auto", "on", "off"],
        "One of several processes: auto (where a coordinator is named), on (refuse to run without "
        "one), off (whatever the environment says).",
    )
    flags.DEFINE_string("coordinator", None, "HOST:PORT where process 0 listens for the others.")
    flags.DEFINE_integer("processes", None, "Processes of the run.")
    flags.DEFINE_integer("process", None, "Number of this process, from 0.")
    flags.DEFINE_float("start_timeout", 300.0, "Seconds in which all processes have to be there.")


def place() -> Place | None:
    """What the flags and the environment say; None for a run of one process.

    Raises:
        UserError: they contradict themselves or leave something out.
    """
    given = {name: FLAGS[name].value for name in ENVIRONMENT}
    return find_place(FLAGS.distributed, given, FLAGS.start_timeout, os.environ)


def find_place(
    distributed: str,
    given: Mapping[str, str | int | None],
    timeout: float,
    environment: Mapping[str, str],
) -> Place | None:
    """`place` of these values of flags (None: not given) in this environment."""
    if distributed == "off":
        return None
    found: dict[str, str] = {}
    sources: dict[str, str] = {}
    for name, variables in ENVIRONMENT.items():
        if given[name] is not None:
            found[name], sources[name] = str(given[name]), f"--{name}"
        elif variable := next((v for v in variables if environment.get(v)), None):
            found[name], sources[name] = environment[variable], variable
    if "coordinator" not in found:
        flag = next((name for name in ("processes", "process") if given[name] is not None), None)
        if distributed == "on" or flag:
            raise UserError(
                f"--{flag or 'distributed=on'} needs --coordinator=HOST:PORT, where process 0 of "
                "the run listens"
            )
        return None
    for name in ("processes", "process"):
        if name not in found:
            raise UserError(
                f"{sources['coordinator']} is {found['coordinator']}, but --{name} is missing "
                f"(or one of {', '.join(ENVIRONMENT[name])}); --distributed=off runs one process"
            )
        if not found[name].isdecimal():
            raise UserError(f"{sources[name]} is {found[name]!r}; it must be a number from 0")
    processes, process = int(found["processes"]), int(found["process"])
    if not process < processes:
        raise UserError(
            f"{sources['process']} is {process}, but {sources['processes']} is {processes}; "
            f"numbers go from 0 to {processes - 1}"
            if processes
            else f"{sources['processes']} is 0; it must be at least 1"
        )
    try:
        split_address(found["coordinator"])
    except ValueError as error:
        raise UserError(
            f"{sources['coordinator']}: {error}; name the host of process 0 and a port that is "
            "free there"
        ) from None
    if timeout <= 0:
        raise UserError(f"--start_timeout is {timeout}; it must be above 0")
    return Place(found["coordinator"], processes, process, timeout)
