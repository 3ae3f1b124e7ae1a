"""Jobs of many callers, done together by a few threads."""

import asyncio
import collections
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Work = Callable[[Sequence[Any]], Sequence[Any]]
LOG = logging.getLogger(__name__)


class Full(Exception):
    """There is no room in the queue."""


class Batcher:
    """Collects jobs and hands them to `work` in batches, each in a thread of its own.

    What queued up while all threads worked is taken at once. After an idle time the first job waits
    `wait` seconds at most for others to join it.

    Args:
        work: takes some jobs, and gives for each, in their order, its answer or its exception.
        size: jobs of a batch at most.
        wait: seconds.
        room: jobs that may wait; `put` raises Full beyond.
        threads: batches at once at most.
        told: is called with the size of each batch.
    """

    def __init__(
        self,
        work: Work,
        size: int,
        wait: float,
        room: int,
        told: Callable[[float], None] = lambda size: None,
        threads: int = 1,
    ):
        self._work, self._size, self._wait, self._room, self._told = work, size, wait, room, told
        self._queue: collections.OrderedDict[asyncio.Future[Any], Any] = collections.OrderedDict()
        self._running: set[asyncio.Future[Any]] = set()
        self._arrived = asyncio.Event()
        self._threads, self._pool = threads, ThreadPoolExecutor(threads, "linker")
        self._loops: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        """How many jobs wait."""
        return len(self._queue)

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        self._loops = [asyncio.create_task(self._serve()) for _ in range(self._threads)]

    def put(self, jobs: Sequence[Any]) -> list["asyncio.Future[Any]"]:
        """Queue all of these jobs, or none and raise Full. A future that is cancelled takes its job
        out of the queue."""
        if len(self._queue) + len(jobs) > self._room:
            raise Full
        futures = [asyncio.get_running_loop().create_future() for _ in jobs]
        for future, job in zip(futures, jobs, strict=True):
            self._queue[future] = job
            future.add_done_callback(lambda done: self._queue.pop(done, None))
        self._arrived.set()
        return futures

    async def close(self) -> None:
        """Finish what runs and what is queued, and end."""
        await asyncio.gather(*self._running, *self._queue, return_exceptions=True)
        for loop in self._loops:
            loop.cancel()
        await asyncio.to_thread(self._pool.shutdown)

    async def _serve(self) -> None:
        while True:
            if not self._queue:
                await self._next()
                await self._company()
            size = min(len(self._queue), self._size)
            batch = [self._queue.popitem(last=False) for _ in range(size)]
            if batch:
                await self._run(batch)

    async def _run(self, batch: list[tuple["asyncio.Future[Any]", Any]]) -> None:
        self._told(len(batch))
        mine = {future for future, _ in batch}
        self._running |= mine
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._pool, self._work, [job for _, job in batch])
        except Exception as error:
            LOG.exception("a batch failed")
            answers = [error] * len(batch)
        self._running -= mine
        for (future, _), answer in zip(batch, answers, strict=True):
            if future.done():  # its caller has gone
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    async def _next(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    async def _company(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._wait):
                while len(self._queue) < self._size:
                    await self._next()
