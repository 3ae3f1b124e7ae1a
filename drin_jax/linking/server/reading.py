"""A request's body, as JSON or as a form, into one of `bodies`."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError
from pydantic_core import from_json
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile

from data_pipeline.schema import UserError
from drin_jax.linking.server.bodies import AnnotateForm, Body, from_form
from drin_jax.linking.server.bounds import Bounds

SMALL = 1 << 16  # bytes that are parsed on the spot
FIELD_BYTES = 4  # of a character, at most

Some = TypeVar("Some", bound=Body)


async def read(
    request: Request, model: type[Some], bounds: Bounds, form: type[AnnotateForm] | None = None
) -> Some:
    """The body. UserError where it is not what `model` describes, HTTPException for another media
    type.

    Args:
        form: what multipart/form-data may hold; None: it is not taken.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind == b"application/json":
        data = await request.body()
        return await _parsed(lambda: model.model_validate(_json(data), context=bounds), len(data))
    if form and kind == b"multipart/form-data":
        if options.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8"):
            raise HTTPException(415, "a form has to be in UTF-8")
        fields, size = await _fields(request, form, bounds)
        return await _parsed(lambda: _from_fields(fields, model, form, bounds), size)
    wanted = "application/json" + (" or multipart/form-data" if form else "")
    raise HTTPException(415, f"the content type has to be {wanted}")


def _json(data: bytes) -> Any:
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise UserError(f"the body is no JSON: {error}") from None


async def _fields(
    request: Request, form: type[AnnotateForm], bounds: Bounds
) -> tuple[dict[str, str | bytes], int]:
    """The form's fields, and how many bytes its picture has."""
    most = {"max_files": 1, "max_fields": len(form.model_fields)}
    most["max_part_size"] = FIELD_BYTES * bounds.text + SMALL
    fields: dict[str, str | bytes] = {}
    try:
        async with request.form(**most) as given:
            for name, value in given.multi_items():
                if name in fields:
                    raise UserError(f"{name[:40]!r} is there twice")
                if isinstance(value, UploadFile) != (name == "image"):
                    raise UserError(f"{name[:40]!r} is no field of this kind; only image is a file")
                content = await value.read() if isinstance(value, UploadFile) else value
                if content or name == "text":  # browsers send what was left out as empty
                    fields[name] = content
    except FormParserError as error:  # which older versions of starlette let through
        raise UserError(f"the body is no form: {error}") from None
    return fields, len(fields.get("image", b""))


def _from_fields(
    fields: Mapping[str, Any], model: type[Some], form: type[AnnotateForm], bounds: Bounds
) -> Some:
    if unknown := fields.keys() - form.model_fields.keys():
        raise UserError(
            f"{min(unknown)[:40]!r} is no field; there are {', '.join(form.model_fields)}"
        )
    return model.model_validate(from_form(form.model_validate(fields)), context=bounds)


async def _parsed(parse: Callable[[], Some], size: int) -> Some:
    try:
        return parse() if size < SMALL else await run_in_threadpool(parse)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise UserError(first_mistake(found)) from None


def first_mistake(errors: Any) -> str:
    """What pydantic found first, in a line: where it is, and what."""
    first = errors[0]
    place = ""
    for step in first["loc"]:
        place += f"[{step}]" if isinstance(step, int) else f".{step}" if place else str(step)
    if first["type"] in ("model_type", "model_attributes_type"):
        return f"{place or 'the body'} has to be a JSON object"
    if first["type"] == "value_error":
        return f"{place} {first['ctx']['error']}".strip()
    return f"{place}: {first['msg']}" if place else first["msg"]
