"""/openapi.json: what FastAPI sees of the routes, and the bodies that they read themselves."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from drin_jax.linking.server import bodies
from drin_jax.linking.server.answers import ErrorAnswer
from drin_jax.linking.server.bounds import Bounds

REF = "#/components/schemas/{model}"
READ = (
    *(bodies.LinkBody, bodies.LinkForm, bodies.BatchBody, bodies.AnnotateBody),
    *(bodies.AnnotateForm, bodies.EntityBody, bodies.EntitiesBody),
)
MEANINGS = {
    400: "A mistake in the request.",
    401: "The token is missing or wrong.",
    403: "This service's knowledge base is not written to.",
    404: "There is no such entity, or no picture of it.",
    408: "The body did not arrive in time.",
    409: "An entity of this id is there already.",
    413: "The body is too large.",
    415: "The body's media type is not taken.",
    429: "Too many requests wait; Retry-After says when to come back.",
    503: "The service is stopping.",
    507: "The service's disk is full; nothing was changed.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer beside what was asked for."""
    return {one: {"model": ErrorAnswer, "description": MEANINGS[one]} for one in statuses}


def takes(model: type[BaseModel], form: type[BaseModel] | None = None) -> dict[str, Any]:
    """A route's body, which `reading` reads."""
    kinds = {"application/json": model} | ({"multipart/form-data": form} if form else {})
    content = {
        kind: {"schema": {"$ref": REF.format(model=one.__name__)}} for kind, one in kinds.items()
    }
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI, bounds: Bounds) -> None:
    """Have `app.openapi` tell of all bodies, and of these bounds."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            told = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            schemas = told["components"]["schemas"]
            _, read = models_json_schema([(one, "validation") for one in READ], ref_template=REF)
            schemas |= _bounded(read["$defs"], bounds)
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            for operation in (one for path in told["paths"].values() for one in path.values()):
                operation["responses"].pop("422", None)  # such mistakes are 400 here
            app.openapi_schema = told
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _bounded(schemas: dict[str, Any], bounds: Bounds) -> dict[str, Any]:
    for schema in schemas.values():
        for name in ("text", "description"):
            if name in schema["properties"]:
                schema["properties"][name]["maxLength"] = bounds.text
    schemas["BatchBody"]["properties"]["items"]["maxItems"] = bounds.items
    return schemas
