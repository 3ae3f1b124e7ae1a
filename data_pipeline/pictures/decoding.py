"""Pictures decoded in parallel processes, in the order they were asked for.

The processes import this module and Pillow only. One that dies on a picture (a decoder's crash, no
memory) takes nothing with it: that picture is masked, the others are decoded again.
"""

import contextlib
import dataclasses
import itertools
import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from data_pipeline.pictures import images
from data_pipeline.pictures.images import Recipe
from data_pipeline.schema import PictureFile

CHUNK = 8  # pictures a task, so that passing them around costs little
FEW = 512  # fewer are decoded here: starting processes takes longer

_log = logging.getLogger(__name__)
SPAWN = multiprocessing.get_context("spawn")  # a fork of a process with JAX's threads may hang
DAMAGED = images.STATUSES.index("masked: cut or damaged")


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """A picture, and the regions wanted of it: [k, 4] boxes in its own upright pixels."""

    path: PictureFile
    boxes: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is made of every picture.

    Attributes:
        looks: name -> recipe of an encoder's input.
        crop: recipe of the regions; None where none are wanted.
        full: whether the whole picture is handed over too, for a detector.
    """

    looks: Mapping[str, Recipe]
    crop: Recipe | None = None
    full: bool = False
    limits: images.Limits = images.Limits()


@dataclasses.dataclass(frozen=True, slots=True)
class Decoded:
    """One picture: its status in `images.STATUSES` and, where it was read, its pixels (uint8).

    `crops` [k, h, w, 3] belong to the boxes numbered in `kept` [k]; a box outside the picture has
    none. `full` is [height, width, 3].
    """

    status: int
    looks: dict[str, np.ndarray]
    crops: np.ndarray | None = None
    kept: np.ndarray | None = None
    full: np.ndarray | None = None


def decode(plan: Plan, wanted: Wanted) -> Decoded:
    """One picture, in this process."""
    image, status = images.open_picture(wanted.path, plan.limits)
    if image is None:
        return Decoded(status, {})
    for recipe in plan.looks.values():  # a thin strip grows when its short side is scaled up
        width, height = recipe.scaled(*image.size)
        pixels = width * height
        if pixels > plan.limits.max_pixels or 8 * pixels > plan.limits.max_bytes:
            return Decoded(images.TOO_LARGE, {})
    looks = {name: recipe(image) for name, recipe in plan.looks.items()}
    crops = kept = None
    if plan.crop is not None and wanted.boxes is not None:
        boxes, there = images.clipped(wanted.boxes, image.size)
        kept = np.flatnonzero(there)
        crops = images.crops(image, boxes[kept], plan.crop)
    return Decoded(status, looks, crops, kept, np.asarray(image) if plan.full else None)


def _decode_all(plan: Plan, some: Sequence[Wanted]) -> list[Decoded]:
    return [decode(plan, wanted) for wanted in some]


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=SPAWN, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Has this process end when the one that began it does, even by kill -9."""

    def wait() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class Decoder(contextlib.AbstractContextManager):
    """Decodes lists of pictures; a context manager that ends its processes.

    Args:
        plan: what is made of each picture.
        workers: processes; 0 takes one a core.
        total: pictures there will be, to tell whether processes are worth starting.
    """

    def __init__(self, plan: Plan, workers: int = 0, total: int = FEW):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
        self._plan = plan
        self._workers = workers or cores or os.cpu_count() or 1
        self._pool: ProcessPoolExecutor | None = None
        if workers > 1 or (total >= FEW and not workers):
            self._pool = _pool(self._workers)
            try:
                self._pool.submit(int).result()
            except BrokenProcessPool:  # a script that is not under `if __name__ == "__main__"`
                _log.warning("no process could be started to decode pictures: decoding them here")
                self._pool.shutdown(cancel_futures=True)
                self._pool = None

    def start(self, wanted: Sequence[Wanted]) -> Iterator[Decoded]:
        """Begins to decode; the pictures in order."""
        if self._pool is None:
            return (decode(self._plan, one) for one in wanted)
        chunks = [wanted[i : i + CHUNK] for i in range(0, len(wanted), CHUNK)]
        begun = [(chunk, self._submit(chunk)) for chunk in chunks]
        return itertools.chain.from_iterable(self._collect(*one) for one in begun)

    def _submit(self, chunk: Sequence[Wanted]) -> "Future[list[Decoded]]":
        assert self._pool is not None
        try:
            return self._pool.submit(_decode_all, self._plan, chunk)
        except BrokenProcessPool:  # an earlier picture's doing
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = _pool(self._workers)
            return self._pool.submit(_decode_all, self._plan, chunk)

    def _collect(self, chunk: Sequence[Wanted], future: "Future[list[Decoded]]") -> list[Decoded]:
        """The pictures of one chunk; where their process died each in a process of its own, that
        only the picture at work can end."""
        try:
            return future.result()
        except (BrokenProcessPool, MemoryError):
            return [self._alone(wanted) for wanted in chunk]

    def _alone(self, wanted: Wanted) -> Decoded:
        with _pool(1) as pool:
            try:
                return pool.submit(decode, self._plan, wanted).result()
            except (BrokenProcessPool, MemoryError):
                return Decoded(DAMAGED, {})

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
