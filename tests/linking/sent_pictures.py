"""Pictures as callers send them."""

import base64
import io
from typing import Any

from PIL import Image


def picture(kind: str = "PNG", size: tuple[int, int] = (16, 16), **options: Any) -> bytes:
    """A file of this format."""
    image = Image.linear_gradient("L").resize(size).convert("RGB")
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
