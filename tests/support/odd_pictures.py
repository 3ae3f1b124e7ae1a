"""Files that a picture folder of the wild may hold, for tests."""

import io
import multiprocessing
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_pipeline.pictures.decoding import Wanted


def photo(width: int = 40, height: int = 24, seed: int = 0) -> Image.Image:
    """A picture whose four corners differ, smooth enough for JPEG."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (4, 5, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BILINEAR)


def jpeg(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95, **options)
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to hold this many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def write_all(folder: Path) -> dict[str, str]:
    """Writes one file of each kind; file name -> the status it must get."""
    folder.mkdir(parents=True, exist_ok=True)
    image = photo()
    converted = "read: colours converted (CMYK, palette, transparent, grey or 16 bits a channel)"
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = np.linspace(300, 60_000, 24 * 40).reshape(24, 40).astype(np.uint16)
    half = image.convert("RGBA")
    half.putalpha(128)
    image.save(folder / "plain.png")
    (folder / "upright.jpg").write_bytes(jpeg(image))
    (folder / "turned.jpg").write_bytes(jpeg(image, exif=turned))
    (folder / "cmyk.jpg").write_bytes(jpeg(image.convert("CMYK")))
    (folder / "cmyk_turned.jpg").write_bytes(jpeg(image.convert("CMYK"), exif=turned))
    image.quantize(16).save(folder / "palette.png")
    image.convert("L").save(folder / "grey.png")
    Image.fromarray(deep).save(folder / "deep.png")
    half.save(folder / "transparent.png")
    image.save(folder / "moving.gif", save_all=True, append_images=[photo(seed=1), photo(seed=2)])
    image.save(folder / "moving.webp", save_all=True, append_images=[photo(seed=1)])
    whole = jpeg(photo(300, 200))
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    damaged = bytearray((folder / "plain.png").read_bytes())
    damaged[60:80] = bytes(20)
    (folder / "damaged.png").write_bytes(bytes(damaged))
    (folder / "page.jpg").write_text("<html>404 Not Found</html>")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (folder / "postscript.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (folder / "bomb.png").write_bytes(bomb(30_000, 30_000))
    photo(1, 1).save(folder / "pixel.png")
    photo(500, 3).save(folder / "hair.png")
    Image.new("RGB", (40, 24), "white").save(folder / "blank.png")
    Image.new("RGBA", (40, 24), (9, 200, 9, 0)).save(folder / "invisible.png")
    (folder / "folder.jpg").mkdir(exist_ok=True)
    return {
        "plain.png": "read",
        "upright.jpg": "read",
        "turned.jpg": "read: turned upright by its EXIF entry",
        "cmyk.jpg": converted,
        "cmyk_turned.jpg": "read: both converted and turned",
        "palette.png": converted,
        "grey.png": converted,
        "deep.png": converted,
        "transparent.png": converted,
        "moving.gif": "read: first frame of an animation",
        "moving.webp": "read: first frame of an animation",
        "cut.jpg": "masked: cut or damaged",
        "damaged.png": "masked: cut or damaged",
        "page.jpg": "masked: not a picture",
        "empty.jpg": "masked: not a picture",
        "drawing.svg": "masked: not a picture",
        "postscript.png": "masked: not a picture",
        "bomb.png": "masked: too large",
        "pixel.png": "masked: too small",
        "hair.png": "masked: too small",
        "blank.png": "masked: one colour all over",
        "invisible.png": "masked: one colour all over",
        "folder.jpg": "masked: no such file",
        "not there.jpg": "masked: no such file",
    }


class KillsItsProcess(Wanted):
    """Its path, asked for in the process that decodes, ends that process."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name == "path" and multiprocessing.parent_process() is not None:
            os._exit(9)
        return super().__getattribute__(name)
