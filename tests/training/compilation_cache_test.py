"""Compiled programs on disk: found again, right, bounded, and never in a run's way."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jaxlib
import pytest

from drin_jax import compilation_cache

PROGRAM = """
import jax
from drin_jax import compilation_cache

seen = []
jax.monitoring.register_event_listener(lambda event, **_: seen.append(event.rsplit("/", 1)[-1]))
folder = compilation_cache.switch_on()
value = jax.jit(lambda x: jax.numpy.sin(x) / 3)(2.0)
print(float(value).hex(), seen.count("cache_hits"), seen.count("cache_misses"), folder)
"""


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch):
    """No setting of this machine's, and this process's put back."""
    for name in [
        name for name in os.environ if "COMPILATION_CACHE" in name or "PERSISTENT" in name
    ]:
        monkeypatch.delenv(name)
    names = [
        *("jax_enable_compilation_cache", "jax_compilation_cache_dir"),
        *("jax_compilation_cache_max_size", "jax_persistent_cache_min_compile_time_secs"),
    ]
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def run(home: Path, **environment: str) -> tuple[list[str], str]:
    """What PROGRAM prints in a process of its own, and its stderr."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"XDG_CACHE_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.split(), result.stderr


def test_a_second_process_loads_what_the_first_compiled(tmp_path):
    value, hits, misses, folder = run(tmp_path)[0]
    assert (int(hits), int(misses) > 0) == (0, True)
    assert folder.startswith(str(tmp_path / "drin_jax" / "xla"))
    assert Path(folder).stat().st_mode & 0o077 == 0
    unfinished = Path(folder) / "jit_killed-0123-cache"
    unfinished.write_bytes(b"half a prog")
    again, said = run(tmp_path)
    assert again == [value, misses, "0", folder]
    assert said == ""
    assert not unfinished.exists()
    off, _ = run(tmp_path, JAX_ENABLE_COMPILATION_CACHE="false")
    assert off == [value, "0", "0", "None"]


def test_a_folder_that_is_given_is_used_as_jax_uses_it(tmp_path, monkeypatch):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "given"))
    size = jax.config.jax_compilation_cache_max_size
    foreign = tmp_path / "given" / "another_program-cache"
    foreign.parent.mkdir()
    foreign.touch()
    assert compilation_cache.switch_on() == tmp_path / "given"
    assert foreign.exists()
    assert jax.config.jax_compilation_cache_max_size == size
    jax.config.update("jax_compilation_cache_dir", "gs://bucket/cache")
    assert compilation_cache.switch_on() is None
    assert jax.config.jax_compilation_cache_dir == "gs://bucket/cache"


def test_the_folder_is_bounded_and_apart_for_each_kind_of_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = compilation_cache.switch_on()
    assert folder is not None
    assert jax.config.jax_compilation_cache_max_size == compilation_cache.MAX_BYTES
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "flags : fpu avx9\n")
    other = compilation_cache._own_folder()
    assert other is not None
    assert other.parent == folder.parent
    assert other != folder


def test_a_home_that_cannot_be_written_costs_the_cache_alone(tmp_path, monkeypatch, capfd):
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(in_the_way))
    assert compilation_cache.switch_on() is None
    assert jax.config.jax_compilation_cache_dir is None
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("fault", ["complains", "refuses"])
def test_a_cpu_that_does_not_load_its_own_programs_compiles_them(
    tmp_path, monkeypatch, capfd, fault
):
    def load(*_):
        if fault == "refuses":
            raise RuntimeError("machine features")
        os.write(2, b"E1123 cpu_aot_loader.cc:1] Loading XLA:CPU AOT result. Target machine ...\n")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compilation_cache.serialize_executable, "deserialize_and_load", load)
    assert compilation_cache.switch_on() is None
    assert jax.config.jax_compilation_cache_dir is None
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compilation_cache.switch_on() is None  # remembered for this version
    assert capfd.readouterr() == ("", "")
    answer = compilation_cache._own_folder() / f"loads-{jaxlib.__version__}"
    answer.unlink()
    assert compilation_cache.switch_on() == answer.parent
