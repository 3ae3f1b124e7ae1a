"""The page at /, the reference at /docs, and the files that they need, all from this package."""

from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import Response

HERE = Path(__file__).parent
MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
}


def files_of(folder: Path) -> dict[str, Path]:
    """The files below a folder that may be shown, by their names in addresses."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix in MEDIA and path.is_file()
    }


def page_routes(page: Path = HERE / "page", reference: Path = HERE / "reference") -> APIRouter:
    """The routes for people. Only files that are there now are served."""
    router = APIRouter(include_in_schema=False)
    pages, references = files_of(page), files_of(reference)

    def shown(files: dict[str, Path], name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "there is no such page")
        path = files[name]
        kept = {"Cache-Control": "no-cache"}
        return Response(path.read_bytes(), media_type=MEDIA[path.suffix], headers=kept)

    @router.get("/")
    def index() -> Response:
        return shown(pages, "index.html")

    @router.get("/static/{name:path}")
    def static(name: str) -> Response:
        return shown(pages, name)

    @router.get("/docs")
    def docs() -> Response:
        return shown(references, "reference.html")

    @router.get("/docs/{name}")
    def docs_file(name: str) -> Response:
        return shown(references, name)

    return router
