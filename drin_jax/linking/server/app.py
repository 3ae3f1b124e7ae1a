"""The service as an ASGI application."""

import contextlib
import errno
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from data_pipeline.schema import UserError
from drin_jax import __version__
from drin_jax.linking.server.entity_routes import entity_routes
from drin_jax.linking.server.gate import Gate
from drin_jax.linking.server.link_routes import link_routes
from drin_jax.linking.server.openapi import describe
from drin_jax.linking.server.page_routes import page_routes
from drin_jax.linking.server.reading import first_mistake
from drin_jax.linking.server.service import Service
from drin_jax.linking.server.status_routes import status_routes

# What the system says where there is no room: for a file, on the disk, for this user.
FULL = (errno.EFBIG, errno.ENOSPC, errno.EDQUOT)
ABOUT = "Which entity of a knowledge base does a mention in a text, with a picture, mean?"


def create_app(service: Service) -> FastAPI:
    """The application; it works while its lifespan lasts."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="drin_jax",
        version=__version__,
        description=ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    for routes in (link_routes(service), entity_routes(service), status_routes(service)):
        app.include_router(routes)
    app.include_router(page_routes())
    describe(app, service.bounds)
    app.add_middleware(Gate, bounds=service.bounds, metrics=service.metrics)

    @app.exception_handler(UserError)
    async def mistake(request: Request, error: UserError) -> JSONResponse:
        full = isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL
        return JSONResponse({"error": str(error)}, 507 if full else 400)

    @app.exception_handler(RequestValidationError)
    async def wrong_parameter(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": first_mistake(error.errors())}, 400)

    @app.exception_handler(AnyHTTPException)
    async def refused(request: Request, error: AnyHTTPException) -> JSONResponse:
        told: Any = {404: "there is no such address", 405: f"{request.method} is not taken here"}
        default = error.detail in ("Not Found", "Method Not Allowed")
        detail = told.get(error.status_code, error.detail) if default else error.detail
        return JSONResponse({"error": detail}, error.status_code, error.headers)

    return app
