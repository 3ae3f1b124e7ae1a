"""What all routes share: the linker, who may use it how much, and the threads that work it."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import HTTPException, Request

from drin_jax.linking.linker import Linker
from drin_jax.linking.server.batcher import Batcher, Full
from drin_jax.linking.server.bounds import Bounds
from drin_jax.linking.server.jobs import AnnotateJob, LinkJob, Told, annotate_all, link_all
from drin_jax.linking.server.metrics import Metrics

MOST_WRITES = 64  # changes of the knowledge base that may wait
MOST_TEXTS = 64  # texts that may wait to be annotated
GONE = 499  # nginx's status for a caller that hung up; nobody reads it but the metrics


class Busy(HTTPException):
    """429, with when to come back."""

    def __init__(self) -> None:
        super().__init__(429, "too many requests; come back later", {"Retry-After": "1"})


class Service:
    """A linker that many callers share.

    Args:
        token: what callers have to show to change the knowledge base; "": nobody may.
    """

    def __init__(self, linker: Linker, bounds: Bounds, token: str = ""):
        self.linker, self.bounds, self.token = linker, bounds, token
        self.stopping = False
        self.metrics = Metrics(lambda: len(self._linking) + len(self._annotating), linker.kb.info)
        link, told = functools.partial(link_all, linker, bounds.batch), self.metrics.batches.observe
        # Two: of one batch answers are made while the next is encoded.
        self._linking = Batcher(link, bounds.batch, bounds.wait, bounds.queue, told, threads=2)
        # A long text holds many mentions. The linker takes those in turn with other callers'.
        self._annotating = Batcher(functools.partial(annotate_all, linker), 1, 0, MOST_TEXTS)
        self._writer = ThreadPoolExecutor(1, "writer")
        self._writes = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Works while it is open; what was taken until then is finished at its end."""
        self._linking.start()
        self._annotating.start()
        yield
        self.stopping = True
        await self._linking.close()
        await self._annotating.close()
        await asyncio.to_thread(self._writer.shutdown)

    async def link(self, request: Request, jobs: Sequence[LinkJob]) -> list[Told]:
        """The answers to all jobs, in their order; exceptions stand in their places."""
        return await self._ask(self._linking, request, jobs)

    async def annotate(self, request: Request, job: AnnotateJob) -> Told:
        """The answer, or its exception."""
        return (await self._ask(self._annotating, request, [job]))[0]

    async def _ask(self, batcher: Batcher, request: Request, jobs: Sequence[Any]) -> list[Told]:
        """A caller that hangs up leaves the queue."""
        try:
            futures = batcher.put(jobs)
        except Full:
            raise Busy from None
        answers: asyncio.Future[Any] = asyncio.gather(*futures, return_exceptions=True)
        gone: asyncio.Future[Any] = asyncio.create_task(_hung_up(request))
        try:
            await asyncio.wait([answers, gone], return_when=asyncio.FIRST_COMPLETED)
            if not answers.done():
                raise HTTPException(GONE, "the caller has gone")
            return answers.result()
        finally:
            gone.cancel()
            for future in futures:
                future.cancel()

    async def write(self, change: Callable[..., Any], *args: Any) -> Any:
        """The result of `change(*args)`, which changes the knowledge base: one after the other."""
        if self._writes >= MOST_WRITES:
            raise Busy
        self._writes += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._writer, change, *args)
        finally:
            self._writes -= 1


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
