"""Which process of a run this is, and what keeps processes from starting one together."""

import pytest
from absl import flags

from data_pipeline.schema import UserError
from drin_jax.parallel import multihost
from drin_jax.parallel.multihost import Rank
from tests.support.commands import assert_one_clear_line, start
from tests.support.processes import finish, free_port


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch):
    """Sets flags as a command line does."""
    values = flags.FlagValues()
    monkeypatch.setattr(multihost.flags, "FLAGS", values)
    monkeypatch.setattr(multihost, "FLAGS", values)
    with monkeypatch.context() as patch:
        patch.setattr(flags, "DEFINE_enum", _into(flags.DEFINE_enum, values))
        patch.setattr(flags, "DEFINE_string", _into(flags.DEFINE_string, values))
        patch.setattr(flags, "DEFINE_integer", _into(flags.DEFINE_integer, values))
        patch.setattr(flags, "DEFINE_float", _into(flags.DEFINE_float, values))
        multihost.define_flags()
    return lambda *arguments: values(["main", *arguments])


def _into(define, values: flags.FlagValues):
    return lambda *args, **more: define(*args, flag_values=values, **more)


def test_flags_come_before_the_environment(given) -> None:
    environment = {
        "JAX_COORDINATOR_ADDRESS": "a:1",
        "JAX_PROCESS_ID": "2",
        "DRIN_PROCESS": "3",
        "DRIN_PROCESSES": "4",
    }
    given("--start_timeout=9")
    assert multihost.rank(environment) == Rank("a:1", 4, 3, 9.0)
    assert multihost.rank(environment | {"DRIN_PROCESSES": "1"}) is None
    assert multihost.rank({}) is None
    given("--coordinator=[::1]:2", "--processes=3", "--process=0")
    assert multihost.rank(environment) == Rank("[::1]:2", 3, 0, 9.0)
    given("--distributed=off")
    assert multihost.rank(environment) is None


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--process=1"], {}, "--process needs --coordinator"),
        (["--coordinator=a"], {}, "'a' is not HOST:PORT"),
        (["--coordinator=a:1"], {"DRIN_PROCESS": "x"}, "they must be numbers"),
    ],
)
def test_flags_that_name_no_process(given, arguments, environment, words: str) -> None:
    given(*arguments)
    with pytest.raises(UserError, match=words):
        multihost.rank(environment)


def started(process: int, port: int, *more: str):
    place = f"--coordinator=127.0.0.1:{port}", "--processes=2", f"--process={process}"
    return start("drin_jax.main", "--config=configs/common.py", "--workdir=unused", *place, *more)


def test_a_process_that_never_comes_is_told_in_one_line() -> None:
    alone = [started(process, free_port(), "--start_timeout=2") for process in (0, 1)]
    for result in finish(alone):
        assert_one_clear_line(result, "did not come together within --start_timeout=2 s")


def test_processes_that_mean_different_runs_hear_in_what() -> None:
    port = free_port()
    together = [started(process, port, f"--config.seed={process}") for process in (0, 1)]
    for result in finish(together):
        assert_one_clear_line(result, "process 1 differs from process 0 (seed 0 -> 1)")
