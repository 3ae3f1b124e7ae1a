"""What every command does: read its flags, end in one clear line on a user's mistake.

drin-jax NAME --config=CARD|FILE --workdir=DIR [--config.field=value ...]
"""

import hashlib
import logging as python_logging
import os
import platform
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from data_pipeline import exits
from data_pipeline.schema import UserError
from drin_jax.config import FIELDS, card_names, find_card, flat

FLAGS = flags.FLAGS
CACHE_BYTES = 2_000_000_000


def config_and_workdir() -> tuple[ConfigDict, Path]:
    """The parsed flags; UserError where one is missing, or a place is not on a file system."""
    for name in ("config", "workdir"):
        if not FLAGS[name].value:
            raise UserError(f"--{name} is missing; see --help")
    data = FLAGS.config.get("data", {})
    places = {f"data.{place}": data.get(place) for place in ("root", "store", "kb")}
    places["--workdir"] = FLAGS.workdir
    for name, place in places.items():
        if "://" in (place or "") and not _database(name, place):
            raise UserError(
                f"{name} {place}: only folders of this machine's file systems are written and "
                "read; mount the bucket (gcsfuse, mountpoint-s3) and give the folder"
            )
    if lacking := sorted(FIELDS.keys() - flat(FLAGS.config).keys()):
        raise UserError(
            f"the config has no {lacking[0]}; make it of a card, and override single fields, as in "
            "--config.train.epochs=3, no whole groups"
        )
    return FLAGS.config, Path(FLAGS.workdir)


def _database(name: str, place: str) -> bool:
    """Whether this is a knowledge base that a database keeps."""
    from data_pipeline.kb.knowledge_base import DATABASES

    return name == "data.kb" and place.partition("://")[0] in DATABASES


def run(
    main: Callable[..., int | None], positional: tuple[str, ...] = (), optional: int = 0
) -> None:
    """Parse the flags, run `main`, and exit: 0, its result, or 1 (2 for flags) after one line.

    Args:
        positional: names of the arguments that `main` takes and the command line has without "--".
        optional: so many of the last of them may be left out.
    """
    exits.run(lambda: _run(main, positional, optional))


def _run(
    main: Callable[..., int | None], positional: tuple[str, ...], optional: int = 0
) -> int | None:
    logging.set_verbosity(logging.FATAL)  # an error that matters is an exception
    _hush()
    values = _parsed(positional, optional)
    keep_compiled()
    try:
        return main(*values)
    except OSError as error:
        if "Failed loading config file" not in str(error):  # told at the first use of the flag only
            raise
        exits.fail(_flag_message(error))
        return 2


def keep_compiled() -> None:
    """Have JAX keep compiled programs on disk for the next start; best before it is imported.

    Only settings of JAX's that the environment leaves open are set. The folder is apart for every
    kind of CPU, as machines that share a home may not run each other's instructions, and its
    owner's alone, as whoever writes it decides what runs here.
    """
    # Of some CPUs the runtime complains at length with each program that is loaded; an error that
    # matters is an exception.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # A full disk or a damaged file costs a compilation, not a line for each program.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    _set("jax_persistent_cache_min_compile_time_secs", 0.0)  # a command has dozens of small ones
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    features = getattr(np._core._multiarray_umath, "__cpu_features__", {})  # type: ignore[attr-defined]
    found = " ".join(sorted(name for name, there in features.items() if there))
    kind = f"{platform.machine()}-{hashlib.sha256(found.encode()).hexdigest()[:12]}"
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(cache) / "drin_jax" / "xla" / kind
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A killed process may leave half a program, which JAX would never write again. Of a whole
        # one it writes the time afterwards.
        for program in folder.glob("*-cache"):
            time = program.with_name(program.name.removesuffix("cache") + "atime")
            if not time.exists():
                program.unlink(missing_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: nobody's home
        return
    if os.access(folder, os.W_OK):
        _set("jax_compilation_cache_dir", str(folder))
        _set("jax_compilation_cache_max_size", CACHE_BYTES)


def _set(name: str, value: Any) -> None:
    if name.upper() not in os.environ:
        os.environ[name.upper()] = str(value)
        if "jax" in sys.modules:
            sys.modules["jax"].config.update(name, value)


def _parsed(positional: tuple[str, ...], optional: int = 0) -> list[str]:
    """The positional arguments, after all flags were read."""
    try:
        arguments = _with_paths(sys.argv)
        config_flags.DEFINE_config_file(
            "config", None, "A card's name, as sample, or a file.", sys_argv=arguments
        )
        flags.DEFINE_string("workdir", None, "Folder for everything the run writes.")
        app.define_help_flags()
        FLAGS.set_gnu_getopt(bool(positional))  # flags may follow them
        values = FLAGS(arguments)[1:]
        if values[len(positional) :]:
            unexpected = values[len(positional)]
            raise flags.Error(f"unexpected argument {unexpected!r}; flags look like --name=value")
        if len(values) < len(positional) - optional:
            raise flags.Error(f"{positional[len(values)]} is missing; see --help")
        if FLAGS.config is None and FLAGS["config"].present:
            raise flags.Error("--config could not be read")
        return values
    except SystemExit as left:  # absl printed the help, and calls that a failure
        sys.exit(0 if left.code == 1 else left.code)
    except BrokenPipeError:
        raise
    except (flags.Error, UserError, AttributeError, OSError, ValueError, TypeError) as error:
        _wrong(_flag_message(error))
    except LookupError as error:  # KeyError, or an index of what has none
        _wrong(_flag_message(error))
    except (RecursionError, MemoryError):  # of Python's own parser
        _wrong("a flag's value is nested too deeply")
    except (SyntaxError, ImportError, NameError) as error:
        _wrong(f"the config file does not load: {error}")


def _with_paths(arguments: list[str]) -> list[str]:
    """The command line with the path of a card for its name."""
    out = list(arguments)
    for i, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in ("--config", "-config") and equals:
            out[i] = f"{flag}={find_card(value)}"
        elif arguments[i - 1] in ("--config", "-config"):
            out[i] = find_card(argument)
    return out


def _hush() -> None:
    # Of a checkpoint's reads one may fail and end the event loop of the others. What tensorstore's
    # threads and asyncio then print of each would stand around the one line that tells the failure.
    python_logging.getLogger("asyncio").setLevel(python_logging.CRITICAL)
    hook = sys.unraisablehook

    def tell(unraisable: "sys.UnraisableHookArgs") -> None:
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            hook(unraisable)

    sys.unraisablehook = tell


def _wrong(message: str) -> NoReturn:
    exits.fail(message)
    sys.exit(2)


def _flag_message(error: Exception) -> str:
    text = str(error)
    if isinstance(error, AttributeError):
        text = text.strip("'\"").replace("\\'", "'").replace("\\n", " ")
        return f"no such config field: {text}"
    if "Error whilst parsing config file" in text:  # with the whole traceback of what it raised
        last = text.strip().splitlines()[-1]
        return f"{text.split(':', 1)[0]}: {last.split(': ', 1)[-1]}"
    if isinstance(error, OSError) or "Failed loading config file" in text:
        path = next((a.split("=", 1)[1] for a in sys.argv if a.startswith("--config=")), "")
        return f"config file {path!r} cannot be read; by name there are {', '.join(card_names())}"
    return text
