"""GET, PUT, DELETE and POST of /entities."""

import hmac
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Security
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator

from data_pipeline.schema import Entity
from drin_jax.linking.server.answers import ChangeAnswer, EntityAnswer, FoundAnswer
from drin_jax.linking.server.bodies import LONGEST_NAME, EntitiesBody, EntityBody
from drin_jax.linking.server.bounds import MOST_K
from drin_jax.linking.server.openapi import errors, takes
from drin_jax.linking.server.reading import read
from drin_jax.linking.server.service import Service
from drin_jax.linking.server.shown import check_readable, for_browsers

BEARER = HTTPBearer(auto_error=False, description="What --token-file holds.")
LONGEST_AROUND = 2000  # characters of a text in an address
Id = Annotated[str, Path(description="An entity's id."), AfterValidator(unquote)]
Shown = Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]


def entity_routes(service: Service) -> APIRouter:
    """The routes to the knowledge base's entities."""
    kb = service.linker.kb

    async def may_write(shown: Shown) -> None:
        if not service.token:
            raise HTTPException(403, "nobody may write here; start the service with --token-file")
        given = shown.credentials if shown else ""
        if not hmac.compare_digest(given.encode(), service.token.encode()):
            hint = "the token is missing or wrong; send Authorization: Bearer TOKEN"
            raise HTTPException(401, hint, {"WWW-Authenticate": "Bearer"})

    reading = APIRouter(tags=["entities"])
    writing = APIRouter(
        tags=["entities"],
        dependencies=[Depends(may_write)],
        responses=errors(400, 401, 403, 429, 507),
    )

    def found(id: str) -> Entity:
        if (entity := kb.get(id)) is None:
            raise HTTPException(404, f"there is no entity {id[:LONGEST_NAME]!r}")
        return entity

    def add(rows: list[dict[str, Any]], update: bool) -> dict[str, Any]:
        for row in rows:
            if not update and kb.get(row["id"]):
                told = f"there is an entity {row['id']!r}; nothing was added"
                raise HTTPException(409, told)
            check_readable(row["image"], row["id"])
        kb.add(rows, update=update)
        return {"entities": len(rows), "kb": kb.version}

    def put(row: dict[str, Any]) -> dict[str, Any]:
        add([row], update=True)
        return _plain(found(row["id"]))

    def remove(id: str) -> dict[str, Any]:
        found(id)
        kb.remove([id])
        return {"entities": 1, "kb": kb.version}

    @reading.get("/entities", response_model=FoundAnswer, responses=errors(400))
    def search_entities(
        name: Annotated[str, Query(min_length=1, max_length=LONGEST_NAME)],
        text: Annotated[str, Query(max_length=LONGEST_AROUND)] = "",
        k: Annotated[int, Query(ge=1, le=MOST_K)] = 10,
    ) -> JSONResponse:
        """The entities that a name can mean, best first; a text around it helps."""
        return JSONResponse({"entities": [one.to_dict() for one in kb.search(name, text, k=k)]})

    @reading.get("/entities/{id}", response_model=EntityAnswer, responses=errors(404))
    def get_entity(id: Id) -> JSONResponse:
        """An entity."""
        return JSONResponse(_plain(found(id)))

    @reading.get(
        "/entities/{id}/image",
        response_class=Response,
        responses={200: {"content": {"image/*": {}}, "description": "The picture."}, **errors(404)},
    )
    def entity_image(id: Id) -> Response:
        """An entity's picture."""
        path = found(id).image
        if path and (shown := for_browsers(path)):
            kind, data = shown
            return Response(data, media_type=kind) if data else FileResponse(path, media_type=kind)
        raise HTTPException(404, f"there is no picture of {id[:LONGEST_NAME]!r}")

    @writing.post(
        "/entities",
        response_model=ChangeAnswer,
        openapi_extra=takes(EntitiesBody),
        responses=errors(408, 409, 413, 415),
    )
    async def add_entities(request: Request) -> JSONResponse:
        """Add entities, all or none."""
        body = await read(request, EntitiesBody, service.bounds)
        rows = [row.model_dump() for row in body.entities]
        return JSONResponse(await service.write(add, rows, body.update))

    @writing.put(
        "/entities/{id}",
        response_model=EntityAnswer,
        openapi_extra=takes(EntityBody),
        responses=errors(408, 413, 415),
    )
    async def put_entity(id: Id, request: Request) -> JSONResponse:
        """Add an entity, or replace all of it."""
        body = await read(request, EntityBody, service.bounds)
        return JSONResponse(await service.write(put, {"id": id, **body.model_dump()}))

    @writing.delete("/entities/{id}", response_model=ChangeAnswer, responses=errors(404))
    async def delete_entity(id: Id) -> JSONResponse:
        """Take an entity out."""
        return JSONResponse(await service.write(remove, id))

    reading.include_router(writing)
    return reading


def _plain(entity: Entity) -> dict[str, Any]:
    return {
        "id": entity.id,
        "name": entity.name,
        "aliases": list(entity.aliases),
        "description": entity.description,
        "type": entity.type,
        "popularity": entity.popularity,
        "has_image": entity.image is not None,
    }
