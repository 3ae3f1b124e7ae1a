"""POST /link, /link/batch and /annotate."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from data_pipeline.schema import UserError
from drin_jax.linking.server.answers import AnnotateAnswer, BatchAnswer, LinkAnswer
from drin_jax.linking.server.bodies import (
    AnnotateBody,
    AnnotateForm,
    BatchBody,
    LinkBody,
    LinkForm,
    LinkItem,
)
from drin_jax.linking.server.jobs import AnnotateJob, LinkJob
from drin_jax.linking.server.openapi import errors, takes
from drin_jax.linking.server.reading import read
from drin_jax.linking.server.service import Service


def link_routes(service: Service) -> APIRouter:
    """The routes that link."""
    router = APIRouter(tags=["linking"], responses=errors(400, 408, 413, 415, 429))

    @router.post("/link", response_model=LinkAnswer, openapi_extra=takes(LinkBody, LinkForm))
    async def link(request: Request) -> JSONResponse:
        """What a mention in a text means. Give its span, or its mention as a string, or both."""
        body = await read(request, LinkBody, service.bounds, LinkForm)
        job = LinkJob(_query(body) | {"image": body.image}, body.k, body.explain)
        (answer,) = await service.link(request, [job])
        if isinstance(answer, Exception):
            raise answer
        service.metrics.linked([answer])
        return JSONResponse(answer)

    @router.post("/link/batch", response_model=BatchAnswer, openapi_extra=takes(BatchBody))
    async def link_batch(request: Request) -> JSONResponse:
        """What each of several mentions means, in their order; a mistake in one refuses all."""
        body = await read(request, BatchBody, service.bounds)
        jobs = [
            LinkJob(
                _query(item),
                body.k if item.k is None else item.k,
                body.explain if item.explain is None else item.explain,
            )
            for item in body.items
        ]
        answers = await service.link(request, jobs) if jobs else []
        results: list[dict[str, Any]] = []
        for number, answer in enumerate(answers):
            if isinstance(answer, UserError):
                raise UserError(f"items[{number}]: {answer}")
            if isinstance(answer, Exception):
                raise answer
            results.append(answer)
        service.metrics.linked(results)
        return JSONResponse({"results": results})

    @router.post(
        "/annotate", response_model=AnnotateAnswer, openapi_extra=takes(AnnotateBody, AnnotateForm)
    )
    async def annotate(request: Request) -> JSONResponse:
        """The mentions that a text holds, and what each of them means."""
        body = await read(request, AnnotateBody, service.bounds, AnnotateForm)
        job = AnnotateJob(body.text, body.image, body.k, body.explain)
        answer = await service.annotate(request, job)
        if isinstance(answer, Exception):
            raise answer
        service.metrics.linked(answer["mentions"])
        return JSONResponse(answer)

    return router


def _query(item: LinkBody | LinkItem) -> dict[str, Any]:
    return {
        "text": item.text,
        "span": tuple(item.span) if item.span else None,
        "mention": item.mention,
        "candidates": item.candidates,
    }
