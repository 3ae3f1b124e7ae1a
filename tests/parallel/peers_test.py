"""How processes meet and what refuses them, with threads in place of processes."""

import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from data_pipeline.schema import UserError
from drin_jax.parallel import process_flags
from drin_jax.parallel.hub import Hub
from drin_jax.parallel.peers import END, Member, Place
from drin_jax.parallel.wire import Wire

NOT_GIVEN = dict.fromkeys(process_flags.ENVIRONMENT)
CARD = {"version of jax": "1", "train.batch": 16}


@pytest.fixture
def address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def meet(address: str, *places: tuple[int, int], **other: Any) -> list[Future]:
    """Processes (number, how many it was told) at once; `other` is in the card of the last."""
    with ThreadPoolExecutor(len(places)) as threads:
        return [
            threads.submit(
                Member if process else Hub,
                Place(address, processes, process, 0.5),
                CARD | (other if i + 1 == len(places) else {}),
            )
            for i, (process, processes) in enumerate(places)
        ]


def refusals(met: list[Future]) -> list[str]:
    """What each was told; every one is refused."""
    errors = [process.exception() for process in met]
    assert all(isinstance(error, UserError) for error in errors), errors
    assert all("\n" not in str(error) for error in errors)
    return [str(error) for error in errors]


def end(*processes: Hub | Member) -> None:
    with ThreadPoolExecutor(len(processes)) as threads:
        for answer in [threads.submit(process.gather, END) for process in processes]:
            assert answer.result(5) == [None] * len(processes)
    for process in processes:
        process.close()


def test_values_are_gathered_in_order_until_the_end(address: str) -> None:
    hub, *members = (process.result() for process in meet(address, (0, 3), (1, 3), (2, 3)))
    addresses = {process.jax_address for process in (hub, *members)}
    assert addresses == {f"127.0.0.1:{int(address.split(':')[1]) + 1}"}
    with ThreadPoolExecutor(3) as threads:
        for name in ("first", "second"):
            processes = (members[1], hub, members[0])
            values = [threads.submit(p.gather, name, [name, p.place.process]) for p in processes]
            expected = [[name, 0], [name, 1], [name, 2]]
            assert [value.result(5) for value in values] == [expected] * 3
    end(members[0], hub, members[1])


def test_a_latecomer_does_not_disturb_a_run(address: str) -> None:
    hub, member = (process.result() for process in meet(address, (0, 2), (1, 2)))
    assert "began without process 1" in refusals(meet(address, (1, 2)))[0]
    end(hub, member)


def test_one_that_leaves_before_the_start_may_come_again(address: str) -> None:
    host, port = address.split(":")
    with ThreadPoolExecutor(3) as threads:
        hub = threads.submit(Hub, Place(address, 3, 0, 5), CARD)
        deadline = time.monotonic() + 5
        while True:
            try:
                early = Wire(socket.create_connection((host, int(port))))
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        early.send(process=1, processes=3, host="here", pid=1, card=CARD)
        early.close()
        time.sleep(0.1)  # until that is noticed
        members = [threads.submit(Member, Place(address, 3, i, 5), CARD) for i in (1, 2)]
        end(hub.result(5), *(member.result(5) for member in members))


@pytest.mark.parametrize(
    ("places", "other", "words"),
    [
        ([(0, 3), (1, 3)], {}, "process 2 of 3 did not come to 127.0.0.1:"),
        ([(0, 2), (1, 3)], {}, "was told --processes=3, process 0 on"),
        ([(0, 3), (1, 3), (1, 3)], {}, "two processes call themselves 1: process 1 on"),
        ([(0, 2), (1, 2)], {"train.batch": 32}, "train.batch 16 -> 32; start all with the same"),
        ([(0, 2), (1, 2)], {"version of jax": "2"}, "version of jax '1' -> '2'"),
    ],
)
def test_all_hear_what_keeps_them_from_starting(
    address: str, places: list[tuple[int, int]], other: dict, words: str
) -> None:
    for told in refusals(meet(address, *places, **other)):
        assert words in told


def test_nobody_is_there(address: str) -> None:
    (told,) = refusals(meet(address, (1, 2)))
    assert f"finds no process 0 at {address} in 0.5 s" in told


def test_two_call_themselves_0(address: str) -> None:
    with socket.create_server(("127.0.0.1", int(address.split(":")[1]))):
        (told,) = refusals(meet(address, (0, 2)))
    assert f"cannot listen at {address}" in told


def test_other_programs_are_not_heard(address: str) -> None:
    hub, member = (process.result() for process in meet(address, (0, 2), (1, 2)))
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n")
        assert stranger.recv(100) == b""
    end(hub, member)


def test_flags_come_before_the_environment() -> None:
    environment = {
        "JAX_COORDINATOR_ADDRESS": "a:1",
        "SLURM_NTASKS": "4",
        "SLURM_PROCID": "3",
        "JAX_PROCESS_ID": "2",
    }
    found = process_flags.find_place("auto", NOT_GIVEN, 9.0, environment)
    assert found == Place("a:1", 4, 2, 9.0)
    given = {"coordinator": "[::1]:2", "processes": 3, "process": 0}
    assert process_flags.find_place("auto", given, 9.0, environment) == Place("[::1]:2", 3, 0, 9.0)
    assert process_flags.find_place("off", given, 9.0, environment) is None
    del environment["JAX_COORDINATOR_ADDRESS"]
    assert process_flags.find_place("auto", NOT_GIVEN, 9.0, environment) is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "--distributed=on needs --coordinator"),
        ({"process": 1}, "--process needs --coordinator"),
        ({"coordinator": "a:1"}, "--processes is missing"),
        ({"coordinator": "a:1", "processes": 2}, "--process is missing"),
        ({"coordinator": "a:1", "processes": 2, "process": 2}, "numbers go from 0 to 1"),
        ({"coordinator": "a:1", "processes": 2, "process": -1}, "must be a number from 0"),
        ({"coordinator": "a:1", "processes": 0, "process": 0}, "must be at least 1"),
        ({"coordinator": "a", "processes": 2, "process": 0}, "'a' is not HOST:PORT"),
        ({"coordinator": "a:70000", "processes": 2, "process": 0}, "is not HOST:PORT"),
    ],
)
def test_flags_that_name_no_place(given: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        process_flags.find_place("on", NOT_GIVEN | given, 1.0, {})
