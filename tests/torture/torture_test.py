"""The campaign's short form: fixed seeds, a few of each (`make torture` tries them all)."""

import random

import pytest

from tests.torture.faults import COMPILER, Fault, Tried
from tests.torture.scenes import World

pytestmark = pytest.mark.skipif(
    COMPILER is None, reason="the library that makes writes fail needs a C compiler, cc"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    return Tried(tmp_path_factory.mktemp("tried"))


def test_a_training_loses_no_line_at_any_boundary(world: World, tried: Tried) -> None:
    """Killed, and asked to end, as metrics are written and as checkpoints appear; what goes on from
    there has every line of the run that nothing disturbed, bit for bit."""
    scene = world.scenes["train"]
    kills, terms = (tried.boundaries(scene, [kind]) for kind in ("kill", "term"))
    rng = random.Random(0)
    chosen = rng.sample(kills, 2) + rng.sample(terms[:-9], 1)  # the last come after the training
    ended = [tried.once(scene, fault) for fault in chosen]
    assert ended == ["killed", "killed", "stopped"]


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("short", ("once",)),
        ("extract", ("full", "kill")),
        ("export", ("once", "kill")),
        ("kb compact", ("once", "full", "kill")),
    ],
)
def test_a_write_that_fails_is_told_and_gone_on_from(
    world: World, tried: Tried, name: str, faults: tuple[str, ...]
) -> None:
    scene, rng = world.scenes[name], random.Random(2)
    _, operations, _ = tried.twin(scene)
    ended = {tried.once(scene, Fault(kind, rng.randint(1, operations))) for kind in faults}
    at = operations
    while not ended & {"told", "killed"} and at > 1:  # a busy machine's twin does more than others
        at //= 2
        ended.add(tried.once(scene, Fault("kill", at)))
    assert ended & {"told", "killed"}


def test_a_fault_that_is_not_mended_is_noticed(world: World, tried: Tried) -> None:
    """The comparison itself: a twin that is not one."""
    scene = world.scenes["validate"]
    result, *rest = tried.twin(scene)
    tried._twins[scene.name] = ([*result, "more"], *rest)
    with pytest.raises(AssertionError, match="another result"):
        tried.once(scene, Fault("kill", seconds=0.01))
