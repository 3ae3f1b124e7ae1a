"""Pictures of the knowledge base: those that come in, and how browsers can show them."""

import io

from PIL import Image

from data_pipeline.pictures import images
from data_pipeline.schema import UserError

MEDIA = {
    **{"JPEG": "image/jpeg", "MPO": "image/jpeg", "PNG": "image/png", "GIF": "image/gif"},
    **{"WEBP": "image/webp", "AVIF": "image/avif"},
}


def check_readable(picture: bytes | None, id: str) -> None:
    """UserError for an entity's picture that no encoder could look at."""
    if picture is None:
        return
    image, status = images.open_picture(picture)
    if image is None:
        told = images.STATUSES[status].removeprefix("masked: ")
        raise UserError(f"the picture of {id!r} cannot be taken: {told}")


def for_browsers(path: str) -> tuple[str, bytes] | None:
    """The media type of a picture's file and b"" where browsers can show the file itself, else of
    another encoding and its bytes; None where there is no picture."""
    try:
        with Image.open(path) as file:
            kind = MEDIA.get(str(file.format))
    except Exception:  # plugins raise whatever the damage makes them meet first
        return None
    if kind:
        return kind, b""
    image, _ = images.open_picture(path)
    if image is None:
        return None
    data = io.BytesIO()
    image.save(data, "PNG")
    return "image/png", data.getvalue()
