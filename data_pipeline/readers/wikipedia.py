"""Wikipedia's titles and WikiDiverse's picture names, out of addresses as annotators left them."""

import hashlib
import re
import unicodedata
from urllib.parse import unquote

# Where WikiDiverse's pictures lie, the mentions' and the entities'; the first folder that is there.
MENTION_PICTURES = ("wikinewsImgs", "wikidiverse_images", "images", "mention_image")
ENTITY_PICTURES = ("entity_images", "wikipediaImgs", "images", *MENTION_PICTURES)

# The extensions that its published recipe for picture names knows; of others the name stays whole.
_EXTENSIONS = (".jpg", ".JPG", ".png", ".PNG", ".svg", ".SVG", ".jpeg", ".JPEG")
_TITLE_ARGUMENT = re.compile(r"[?&]title=([^&#]+)")
_QUERY = re.compile(r"\?\w+=.*$", re.DOTALL)


def title(address: str) -> str:
    """The title that an address or a title as in a URL names, in one spelling; "" if none.

    Takes what follows "/wiki/" (slashes belong to titles: "AC/DC"), or a "title" argument, or the
    last part; so a prefix that does not belong there ("nhttps://…") does no harm. Drops fragment
    and query, decodes percent signs (twice encoded too), turns underscores to spaces, and writes
    the first letter large, as Wikipedia does.
    """
    address = address.strip()
    argument = _TITLE_ARGUMENT.search(address) if "title=" in address else None
    if argument:
        named = argument[1]
    elif "/wiki/" in address:
        named = address.split("/wiki/", 1)[1].rstrip("/")
    elif "://" in address:
        named = address.rstrip("/").rsplit("/", 1)[-1]
    else:
        named = address
    named = named.split("#", 1)[0]
    named = _QUERY.sub("", named) if "?" in named else named
    for _ in range(3):
        named = unquote(named) if "%" in named else named
    if not named.isascii():
        named = unicodedata.normalize("NFC", named)
    named = named.split("#", 1)[0]
    named = " ".join(named.replace("_", " ").split())
    return named[:1].upper() + named[1:]


def picture(address: str) -> str:
    """The file of a picture's address: MD5 of its last part, and the extension; svg became png.

    As WikiDiverse's page gives it; where the extension is none of its eight (gif), the whole last
    part follows the MD5.
    """
    last = address.strip().split("/")[-1]
    cut = max(last.rfind(extension) for extension in _EXTENSIONS)
    name = hashlib.md5(last.encode(), usedforsecurity=False).hexdigest() + last[max(cut, 0) :]
    return name.replace(".svg", ".png").replace(".SVG", ".png")
