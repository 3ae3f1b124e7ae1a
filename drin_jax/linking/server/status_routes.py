"""GET /kb, /health and /metrics."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from drin_jax.linking.server.answers import BaseAnswer, HealthAnswer
from drin_jax.linking.server.openapi import errors
from drin_jax.linking.server.service import Service


def status_routes(service: Service) -> APIRouter:
    """The routes that tell how the service is."""
    linker = service.linker
    router = APIRouter(tags=["service"])

    @router.get("/kb", response_model=BaseAnswer)
    def kb() -> JSONResponse:
        """The knowledge base, and whether it is written to here."""
        told = {name: value for name, value in linker.kb.info().items() if name != "path"}
        examples = linker.examples()
        return JSONResponse({**told, "writable": bool(service.token), "examples": examples})

    @router.get("/health", response_model=HealthAnswer, responses=errors(503))
    async def health() -> JSONResponse:
        """200 while requests are taken, 503 once the service stops."""
        if service.stopping:
            return JSONResponse({"error": "the service is stopping"}, 503)
        told = {"status": "ok", "model": linker.model, "kb": linker.kb.version}
        return JSONResponse(told)

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "Prometheus's text form."}},
    )
    def metrics() -> Response:
        """Counters, for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    return router
