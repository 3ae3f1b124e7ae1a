"""What all commands have: help that is no failure, and compiled programs on disk, found again,
bounded, and never in a run's way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drin_jax import cli, command
from tests.support.commands import run
from tests.support.paths import ROOT

PROGRAM = """
from drin_jax import command
command.keep_compiled()
import jax

seen = []
jax.monitoring.register_event_listener(lambda event, **_: seen.append(event.rsplit("/", 1)[-1]))
value = jax.jit(lambda x: jax.numpy.sin(x) / 3)(2.0)
config = jax.config
print(float(value).hex(), seen.count("cache_hits"), seen.count("cache_misses"))
print(config.jax_compilation_cache_dir, config.jax_compilation_cache_max_size)
"""
WITH_JAX = PROGRAM.replace("from", "import jax\nfrom", 1)


def start(home: Path, program: str = PROGRAM, **environment: str) -> tuple[list[str], str]:
    """What the program prints in a process of its own without settings of this machine's, and its
    stderr."""
    own = {k: v for k, v in os.environ.items() if "CACHE" not in k and "PERSISTENT" not in k}
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=own | {"XDG_CACHE_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.split(), result.stderr


def test_a_second_process_loads_what_the_first_compiled(tmp_path: Path) -> None:
    (value, hits, misses, folder, size), _ = start(tmp_path)
    assert (int(hits), int(misses) > 0) == (0, True)
    assert folder.startswith(str(tmp_path / "drin_jax" / "xla"))
    assert int(size) == command.CACHE_BYTES
    assert Path(folder).stat().st_mode & 0o077 == 0
    unfinished = Path(folder) / "jit_killed-0123-cache"
    unfinished.write_bytes(b"half a prog")
    again, said = start(tmp_path, WITH_JAX)
    assert again == [value, misses, "0", folder, size]
    assert said == ""
    assert not unfinished.exists()
    off, _ = start(tmp_path, JAX_ENABLE_COMPILATION_CACHE="false")
    assert off[:3] == [value, "0", "0"]
    for program in Path(folder).glob("*-cache"):
        program.write_bytes(b"damaged")
    damaged, said = start(tmp_path)
    assert (damaged[0], damaged[2], said) == (value, misses, "")


def test_a_folder_that_is_given_is_used_as_jax_uses_it(tmp_path: Path) -> None:
    given = tmp_path / "given"
    found, _ = start(tmp_path, JAX_COMPILATION_CACHE_DIR=str(given))
    assert found[3:] == [str(given), "-1"]
    assert not (tmp_path / "drin_jax").exists()


def test_a_home_that_cannot_be_written_costs_the_cache_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found, said = start(tmp_path / "file")
    assert (found[3], said) == ("None", "")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_is_no_failure(name: str) -> None:
    module, _ = cli.COMMANDS[name]
    result = run(module, "--help")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout) > 100


def test_every_command_is_listed_with_what_it_does() -> None:
    packages = [*ROOT.glob("drin_jax/*/__main__.py"), *ROOT.glob("data_pipeline/*/__main__.py")]
    modules = {".".join(path.relative_to(ROOT).parent.parts) for path in packages}
    assert modules <= {module for module, _ in cli.COMMANDS.values()}
    result = run("drin_jax.cli", "--help")
    assert result.returncode == 0
    for name, (_, what) in cli.COMMANDS.items():
        assert f"  {name} " in result.stdout
        assert what in result.stdout
    unknown = run("drin_jax.cli", "trian")
    assert unknown.returncode == 2
    assert (
        unknown.stderr
        == f"error: no command is named 'trian'; there are {', '.join(cli.COMMANDS)}\n"
    )


def test_a_missing_extra_is_one_line(tmp_path: Path) -> None:
    """A module of that name that is not there, before the installed one."""
    (tmp_path / "apache_beam").mkdir()
    (tmp_path / "apache_beam" / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'apache_beam'\", name='apache_beam')\n"
    )
    flags = ["--config=sample", f"--workdir={tmp_path / 'run'}", f"--shards={tmp_path / 'shards'}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", "drin_jax.extract.beam", *flags]
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert found.returncode == 1
    assert found.stderr == "error: Apache Beam is missing; pip install 'drin_jax[beam]'\n"
