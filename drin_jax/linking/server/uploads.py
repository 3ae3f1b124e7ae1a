"""Pictures that strangers send: looked at before anything decodes them."""

import binascii
import io
import warnings

from PIL import Image

FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")


def from_base64(text: str) -> bytes:
    """The bytes that base64 stands for; ValueError for anything else, as a path or an address."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise ValueError("is not base64 of a picture; paths and addresses are not read") from None


def checked(picture: bytes, most: int) -> bytes:
    """The same bytes; ValueError unless they begin as a raster picture of at most `most` pixels
    that shows one frame. Of the file, only the header is read."""
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(picture), formats=known) as image:
                (width, height), kind = image.size, image.format
                moves = kind != "MPO" and getattr(image, "is_animated", False)
    except Image.DecompressionBombError:
        raise ValueError(f"has more than {most:,} pixels") from None
    except Exception:  # plugins raise whatever the damage makes them meet first
        raise ValueError(f"is not a picture; it has to be one of {', '.join(known)}") from None
    if width * height > most:
        raise ValueError(f"has {width} x {height} pixels; at most {most:,} are taken")
    if moves:
        raise ValueError("is animated; send one frame")
    return picture
