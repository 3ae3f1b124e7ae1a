"""What a linker is asked, checked: a text, a mention in it, and a picture."""

import dataclasses
import http.client
import io
import os
import unicodedata
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_pipeline.schema import Mention, Span, UserError, reason
from data_pipeline.store.unkept import SPLIT

LONGEST = 1_000_000  # characters of a text
FETCH_BYTES, FETCH_SECONDS = 32_000_000, 20  # of a picture of the web
_JOINER = "\u200d"
_MODIFIERS = range(0x1F3FB, 0x1F400)  # of skin
_SELECTORS = range(0xFE00, 0xFE10)
Picture = Any  # a path, the bytes of a file, a PIL picture, or an array [h,w,3] or [h,w] uint8


@dataclasses.dataclass(frozen=True, slots=True)
class Query:
    """A mention to link.

    Attributes:
        text: that it stands in.
        span: its first and last+1 character there.
        mention: its surface form, instead of the span or beside it; the first such place in the
            text is meant, and it need not be in there at all.
        image: the picture beside the text: a path, the bytes of a file, a PIL picture, or an array
            [h,w,3] or [h,w] of uint8.
        candidates: ids of the entities that it may mean; None: any of the knowledge base.
    """

    text: str
    span: Sequence[int] | None = None
    mention: str | None = None
    image: Picture = None
    candidates: Sequence[str] | None = None

    @classmethod
    def of(cls, given: "Query | Mapping[str, Any] | str") -> "Query":
        """A query of a mapping of its fields. UserError for others."""
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise UserError(f"a query is a Query or a mapping of its fields, not {given!r:.40}")
        if unknown := sorted(map(str, given.keys() - set(cls.__slots__))):
            known = ", ".join(cls.__slots__)
            raise UserError(f"a query has no {unknown[0]!r:.40}; there are {known}")
        if "text" not in given:
            raise UserError("a query lacks its text")
        return cls(**given)


def count_of(what: str, given: Any) -> int:
    """A whole number of at least 1. UserError."""
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < 1:
        raise UserError(f"{what} is {given!r:.40}; it must be a whole number, at least 1")
    return int(given)


def number_of(what: str, given: Any) -> float:
    """A number of at least 0. UserError."""
    if isinstance(given, bool) or not isinstance(given, int | float | np.number) or not given >= 0:
        raise UserError(f"{what} is {given!r:.40}; it must be a number, at least 0")
    return float(given)


def several(what: str, given: Any) -> Iterable[Any]:
    """Several of something. UserError for one alone."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise UserError(f"{what} are {given!r:.40}; give a list of them")
    return given


def path_of(what: str, given: Any) -> str | Path:
    """A path, or what stands for one. UserError."""
    if not isinstance(given, str | os.PathLike):
        raise UserError(f"{what} is {given!r:.40}; give a path")
    return given if isinstance(given, str) else Path(given)


def mention_of(query: Query, number: int, picture: str | None) -> Mention:
    """The mention that is asked for, as a data set has it.

    Args:
        picture: what its picture is called.

    Raises:
        UserError: no mention is named, it is not where it is said to be, or the text is none.
    """
    text = _text("text", query.text)
    if not text.strip():
        raise UserError("the text is empty")
    span = _span(query.span, text)
    name = text[slice(*span)] if span else ""
    if query.mention is not None:
        asked = _text("mention", query.mention)
        if not asked.strip():
            raise UserError("the mention is empty")
        if span and asked != name:
            raise UserError(f"the mention is {asked!r:.60}, but the span holds {name!r:.60}")
        span = span or _found(asked, text)
        name = asked
    if not name.strip():
        raise UserError("no mention is named; give its span, or the mention itself")
    start, end = (None, None) if span is None else span
    return Mention(str(number), text, name, start, end, SPLIT, str(number), None, picture)


def _fetched(url: str) -> bytes:
    """What an address answers. UserError."""
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url!r:.60}: only http:// and https:// are fetched")
    try:
        with urllib.request.urlopen(url, timeout=FETCH_SECONDS) as answer:
            content: bytes = answer.read(FETCH_BYTES + 1)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(f"{url:.60}: cannot be fetched ({reason(error)})") from None
    if len(content) > FETCH_BYTES:
        raise UserError(f"{url:.60}: has more than {FETCH_BYTES:,} bytes")
    return content


def _text(what: str, text: Any) -> str:
    if not isinstance(text, str):
        raise UserError(f"the {what} is {type(text).__name__}, not a text")
    if len(text) > LONGEST:
        raise UserError(f"the {what} has {len(text):,} characters; {LONGEST:,} are read at most")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"character {error.start} of the {what} is half a surrogate pair") from None
    return text


def _span(given: Any, text: str) -> Span:
    if given is None:
        return None
    try:
        first, end = given
        whole = all(isinstance(i, int | np.integer) and not isinstance(i, bool) for i in given)
    except (TypeError, ValueError):
        raise UserError(f"the span is {given!r:.40}, not its first and last+1 character") from None
    if not whole or not 0 <= first < end <= len(text):
        raise UserError(
            f"the span {first!r:.20} to {end!r:.20} is not within the {len(text)} characters of "
            "the text"
        )
    for place in (int(first), int(end)):
        if 0 < place < len(text) and _belongs(text[place - 1], text[place]):
            raise UserError(
                f"the span {first} to {end} divides a character of several parts at {place}"
            )
    return int(first), int(end)


def _found(name: str, text: str) -> Span:
    """Where a text has a name: the first place where it is no part of a longer word, else the
    first; None where it has none, or a part of a character as it is read."""
    found, at = None, text.find(name)
    while at >= 0:
        place = at, at + len(name)
        if not any(0 < i < len(text) and _belongs(text[i - 1], text[i]) for i in place):
            found = found or place
            ends = (text[max(i - 1, 0) : i + 1] for i in place)
            if not any(len(two) == 2 and two.isalnum() for two in ends):
                return place
        at = text.find(name, at + 1)
    return found


def widened(place: tuple[int, int], text: str) -> tuple[int, int]:
    """First and last+1 code point of a place, with the whole of the characters that it divides."""
    start, end = place
    while 0 < start < len(text) and _belongs(text[start - 1], text[start]):
        start -= 1
    while 0 < end < len(text) and _belongs(text[end - 1], text[end]):
        end += 1
    return start, end


def _belongs(before: str, after: str) -> bool:
    """Whether two code points are of one character as it is read."""
    joined = _JOINER in (before, after) or ord(after) in _MODIFIERS or ord(after) in _SELECTORS
    return joined or unicodedata.category(after)[0] == "M" or (before, after) == ("\r", "\n")


def file_of(picture: Picture, urls: bool = False) -> str | bytes:
    """A picture as a path, or as what is in its file. UserError for what is none.

    Args:
        urls: http:// and https:// are fetched.
    """
    if isinstance(picture, str | Path):
        if "://" not in str(picture):
            return str(picture)
        if not urls:
            raise UserError(f"{str(picture)!r:.60}: pictures of the web are not fetched here")
        return _fetched(str(picture))
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    if isinstance(picture, np.ndarray):
        fits = picture.dtype == np.uint8 and picture.size
        if not fits or picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
            raise UserError(
                f"the picture is {picture.dtype} {list(picture.shape)}; an array has to be uint8 "
                "[h, w, 3] or [h, w]"
            )
        picture = Image.fromarray(picture)
    if isinstance(picture, Image.Image):
        file = io.BytesIO()
        try:
            picture.save(file, "PNG")
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"the picture cannot be read ({error})") from None
        return file.getvalue()
    raise UserError(
        f"the picture is {type(picture).__name__}; give a path, bytes, a PIL picture or an array"
    )
