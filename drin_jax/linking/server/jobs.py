"""What the linker is asked to do for one caller, and how several are done at once."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.schema import UserError
from drin_jax.linking.linker import Linker
from drin_jax.linking.result import LinkResult

LOG = logging.getLogger(__name__)
Told = dict[str, Any] | Exception


@dataclasses.dataclass(frozen=True)
class LinkJob:
    """A mention to link; `query` as `Linker.link_many` takes it."""

    query: Mapping[str, Any]
    k: int
    explain: bool


@dataclasses.dataclass(frozen=True)
class AnnotateJob:
    """A text whose mentions are to be found and linked."""

    text: str
    image: bytes | None
    k: int
    explain: bool


def link_all(linker: Linker, size: int, jobs: Sequence[LinkJob]) -> list[Told]:
    """The answer to each job, or its exception; the device takes `size` mentions at a time. Where
    something fails that nobody expected, halves are tried, so that it fails alone."""
    try:
        most = max(job.k for job in jobs)
        queries = [job.query for job in jobs]
        results = linker.link_many(queries, batch=size, k=most, errors=True)
        return [_told(result, job) for result, job in zip(results, jobs, strict=True)]
    except Exception as error:
        if len(jobs) == 1:
            return [error]
        LOG.warning("%d mentions failed together; their halves are tried", len(jobs), exc_info=True)
        half = len(jobs) // 2
        return link_all(linker, size, jobs[:half]) + link_all(linker, size, jobs[half:])


def annotate_all(linker: Linker, jobs: Sequence[AnnotateJob]) -> list[Told]:
    """The answer to each job, or its exception."""
    return [_annotated(linker, job) for job in jobs]


def _told(result: LinkResult | UserError, job: LinkJob) -> Told:
    if isinstance(result, UserError):
        return result
    cut = dataclasses.replace(result, candidates=result.candidates[: job.k])
    return cut.to_dict(job.explain)


def _annotated(linker: Linker, job: AnnotateJob) -> Told:
    try:
        found = linker.annotate(job.text, image=job.image, k=job.k)
        return {"text": job.text, "mentions": [one.to_dict(job.explain) for one in found]}
    except Exception as error:
        return error
