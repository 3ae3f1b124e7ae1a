"""What every command does: read its flags, end in one clear line on a user's mistake.

python -m drin_jax.NAME --config=configs/X.py --workdir=DIR [--config.field=value ...]
"""

import json
import logging as python_logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from data_pipeline.files import write_json
from data_pipeline.schema import UserError

FLAGS = flags.FLAGS

# Fields that do not change what is computed, or only how far training goes: a workdir may be
# continued with other values of these.
FREE_FIELDS = (
    *("data.root", "data.store", "data.source", "data.hint", "data.verify", "data.tables"),
    *("eval.", "parallel.", "image.workers", "encoders.batch_"),
    *("train.epochs", "train.patience", "train.save_every", "train.log_every", "train.accumulate"),
)


# Fields that runs of before they were there do not have, with what they meant.
LATER_FIELDS: dict[str, Any] = {
    "data.tables": "auto",
    "train.accumulate": 1,
    "encoders.tokens": False,
    "encoders.max_tokens": 128,
    "encoders.regions": False,
    "model.recurrent_width": 0,
    "model.image_text_threshold": 0.0,
    "model.image_entity_threshold": 0.3,
}


def define_flags() -> None:
    """The two flags that every command over a config takes."""
    config_flags.DEFINE_config_file("config", None, "A file of configs/, as in configs/sample.py.")
    flags.DEFINE_string("workdir", None, "Folder for everything the run writes.")


def config_and_workdir() -> tuple[ConfigDict, Path]:
    """The parsed flags; UserError where one is missing."""
    for name in ("config", "workdir"):
        if FLAGS[name].value is None:
            raise UserError(f"--{name} is missing; see --help")
    return FLAGS.config, Path(FLAGS.workdir)


def run(main: Callable[..., int | None], positional: tuple[str, ...] = ()) -> None:
    """Parse the flags, run `main`, and exit: 0, its result, or 1 (2 for flags) after one line.

    Args:
        positional: names of the arguments that `main` takes and the command line has without "--".
    """
    logging.set_verbosity(logging.ERROR)
    # Before training takes over, a SIGTERM leaves at once; what is on disk is resumable.
    signal.signal(signal.SIGTERM, _leave)
    _hush()
    define_flags()
    app.define_help_flags()
    FLAGS.set_gnu_getopt(bool(positional))  # flags may follow them
    try:
        values = FLAGS(sys.argv)[1:]
        if values[len(positional) :]:
            unexpected = values[len(positional)]
            raise flags.Error(f"unexpected argument {unexpected!r}; flags look like --name=value")
        if len(values) < len(positional):
            raise flags.Error(f"{positional[len(values)]} is missing; see --help")
        if "config" in FLAGS and FLAGS.config is None and FLAGS["config"].present:
            raise flags.Error("--config could not be read")
    except (flags.Error, AttributeError, OSError, ValueError, TypeError, KeyError) as error:
        _fail(_flag_message(error), 2)
    except (SyntaxError, ImportError, NameError) as error:
        _fail(f"the config file does not load: {error}", 2)
    try:
        sys.exit(main(*values) or 0)
    except _Left as left:
        _end(left.number + 128)
    except UserError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except OSError as error:
        if "Failed loading config file" in str(error):  # told at the first use of the flag only
            _fail(_flag_message(error), 2)
        _fail(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "), 1)


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


class _Left(SystemExit):
    """Raised where a signal came, so that what is open is closed on the way out."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number = number


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough
    raise _Left(number)


def _fail(message: str, code: int) -> NoReturn:
    print("error: " + " ".join(message.split()), file=sys.stderr, flush=True)
    _end(code)


def _end(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: then library threads that were interrupted complain at length, or crash where
    # a compilation was.
    os._exit(code)


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
        return f"config file {path!r} cannot be read; see configs/ for those there are"
    return text


def flat(config: ConfigDict) -> dict[str, Any]:
    """The config as one level of dotted names, values as JSON has them."""
    out: dict[str, Any] = {}

    def visit(prefix: str, values: Any) -> None:
        for name, value in values.items():
            if isinstance(value, ConfigDict):
                visit(f"{prefix}{name}.", value)
            else:
                out[prefix + name] = list(value) if isinstance(value, tuple) else value

    visit("", config)
    return out


def claim_workdir(
    workdir: Path, config: ConfigDict, free: tuple[str, ...] = FREE_FIELDS, **more: Any
) -> None:
    """Make the workdir this config's, or see that it is.

    Args:
        free: beginnings of the fields that may differ.
        more: further fields that have to be the same.

    Raises:
        UserError: it was made by another config (naming the fields), or its config.json is damaged.
    """
    path = workdir / "config.json"
    new = flat(config) | more
    if path.exists():
        try:
            old = json.loads(path.read_text())
            if not isinstance(old, dict):
                raise ValueError("not an object")
            old = LATER_FIELDS | old
        except ValueError as error:
            raise UserError(f"{path}: unreadable ({error}); use another --workdir") from None
        differing = [
            f"{name} {old.get(name)!r} -> {new.get(name)!r}"
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name) and not name.startswith(free)
        ]
        if differing:
            raise UserError(
                f"{workdir} was made by another config ({'; '.join(differing[:4])}"
                f"{'; …' if len(differing) > 4 else ''}); use another --workdir or the same values"
            )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(path, new)
    except OSError as error:
        raise UserError(f"--workdir {workdir}: cannot be written ({error.strerror})") from None
