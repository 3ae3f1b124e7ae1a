"""How much one request may ask for, and how much the service takes on at once."""

import dataclasses

from data_pipeline.schema import check_least

MOST_K = 100  # candidates of an answer
MOST_CANDIDATES = 200  # that a request may name
MOST_ITEMS = 1000  # mentions or entities of a request, whatever is configured
WHOLE_BODIES = 64  # bodies of the largest size that may be in memory at once


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What an operator may set.

    Attributes:
        text: characters of a text.
        body: bytes of a request's body.
        pixels: of a picture.
        items: mentions of a request to /link/batch.
        queue: mentions that wait for the device; more are told to come back.
        batch: mentions that go through the device together.
        wait: seconds that an idle device waits for company after the first of them.
        patience: seconds in which a request's body has to arrive.
    """

    text: int = 10_000
    body: int = 8 << 20
    pixels: int = 40_000_000
    items: int = 256
    queue: int = 1024
    batch: int = 64
    wait: float = 0.003
    patience: float = 30

    def __post_init__(self) -> None:
        for name in ("text", "body", "pixels", "items", "batch"):
            check_least(name, getattr(self, name), 1)
        check_least("wait", self.wait, 0)
        check_least("queue", self.queue, max(self.items, self.batch))
        check_least(f"{MOST_ITEMS}, the most items there can be,", MOST_ITEMS, self.items)

    @property
    def held(self) -> int:
        """Bytes of all bodies that may be in memory at once."""
        return WHOLE_BODIES * self.body
