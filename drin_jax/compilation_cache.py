"""Compiled programs on disk: the second start of a command loads what the first one compiled.

The folder is `$JAX_COMPILATION_CACHE_DIR`, used as JAX uses it, or else
`${XDG_CACHE_HOME:-~/.cache}/drin_jax/xla/KIND_OF_CPU`, of at most 2 GB, least recently used first
to go. `JAX_ENABLE_COMPILATION_CACHE=false` switches it off. Where the folder cannot be written, or
this CPU cannot load what it compiled, programs are compiled as ever. Whoever can write the folder
decides what runs here, so it is made for its owner alone.
"""

import hashlib
import os
import platform
import sys
import tempfile
import warnings
from pathlib import Path

import filelock
import jax
import jax.numpy as jnp
import jaxlib
from jax.experimental import serialize_executable

MAX_BYTES = 2_000_000_000
MIN_SECONDS = 0.0  # small programs count too: a command compiles dozens of them
LOCK, LOCK_SECONDS = ".lockfile", 10  # JAX's own lock, and how long it waits for it
MISMATCH = "XLA:CPU AOT"  # in the complaint of a CPU that does not know its own features


def switch_on() -> Path | None:
    """Keep what this process compiles from here on. Call it once there is work, after
    `jax.distributed.initialize` and before the first compilation.

    Returns:
        The folder; None where it is off, in a bucket, or cannot be used.
    """
    if not jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
        return None
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)
    # A full disk or a damaged file costs a compilation, not a line for each program.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    given = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if given and "://" in given:
        return None
    folder = Path(given) if given else _own_folder()
    usable = folder is not None and _prepared(folder, ours=not given) and _loads(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder) if usable else None)
    if usable and not given and "JAX_COMPILATION_CACHE_MAX_SIZE" not in os.environ:
        jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    return folder if usable else None


def _own_folder() -> Path | None:
    """Apart for every kind of CPU: a home may be shared by machines that cannot run each other's
    instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        features = platform.processor()
    kind = hashlib.sha256(features.encode()).hexdigest()[:12]
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # nobody's home
        return None
    return Path(cache) / "drin_jax" / "xla" / f"{platform.machine()}-{kind}"


def _prepared(folder: Path, ours: bool) -> bool:
    """Whether the folder is there and can be written. In our own, programs go that a killed process
    left unfinished: JAX writes a program's time after the program."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not ours:
            return os.access(folder, os.W_OK)
        with filelock.FileLock(folder / LOCK, timeout=LOCK_SECONDS):
            for program in folder.glob("*-cache"):
                if not program.with_name(program.name.removesuffix("cache") + "atime").exists():
                    program.unlink()
    except (OSError, NotImplementedError):  # a lock that is not given in time is an OSError too
        return False
    return True


def _loads(folder: Path) -> bool:
    """Whether programs load without complaint. Some CPUs refuse their own (features by which LLVM
    tunes are held against those of the hardware), with long lines for each: so it is tried once for
    a folder and version, and the answer is kept beside the programs."""
    if jax.default_backend() != "cpu":
        return True
    answer = folder / f"loads-{jaxlib.__version__}"
    try:
        return answer.read_text() == "yes"
    except OSError:
        loads = _load_quietly()
    try:
        answer.write_text("yes" if loads else "no")
    except OSError:
        return False
    return loads


def _load_quietly() -> bool:
    """Compile, write and load a program of one product, watching what the runtime says."""
    compiled = jax.jit(lambda x: x @ x).lower(jnp.ones((8, 8))).compile()
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with tempfile.TemporaryFile() as said:
            os.dup2(said.fileno(), 2)
            try:
                serialize_executable.deserialize_and_load(*serialize_executable.serialize(compiled))
            finally:
                os.dup2(stderr, 2)
            said.seek(0)
            text = said.read()
    except Exception:  # whatever a runtime raises here, it means no
        return False
    finally:
        os.close(stderr)
    return MISMATCH.encode() not in text
