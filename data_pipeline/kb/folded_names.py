"""Names as they are compared: folded, without parentheses, and as initials."""

import re
import unicodedata
from collections.abc import Iterable

LONGEST = 200  # characters of a name that count
# Marks that a letter is the same without: of Latin, Greek, Cyrillic, Hebrew, Arabic and Syriac, and
# selectors. In other scripts they are vowels, or make another letter.
_POINTS = (
    *(
        (0x300, 0x370),
        (0x483, 0x48A),
        (0x591, 0x5C8),
        (0x610, 0x61B),
        (0x64B, 0x660),
        (0x670, 0x671),
    ),
    *((0x6D6, 0x6EE), (0x711, 0x712), (0x730, 0x74B), (0x180B, 0x1810), (0x1AB0, 0x1B00)),
    *((0x1DC0, 0x1E00), (0x20D0, 0x2100), (0xFB1E, 0xFB1F), (0xFE00, 0xFE10), (0xFE20, 0xFE30)),
    *((0x1E944, 0x1E94B), (0xE0100, 0xE01F0)),
)
_WITH_MARKS = (
    *((0x300, 0x3100), (0xA66F, 0xAC00), (0xFB1E, 0xFB1F), (0xFE00, 0xFE30), (0x10000, 0x12000)),
    *((0x16A00, 0x1EA00), (0xE0100, 0xE01F0)),
)


def _marks(ranges: Iterable[tuple[int, int]]) -> str:
    found = (chr(code) for begin, end in ranges for code in range(begin, end))
    return "".join(one for one in found if unicodedata.category(one)[0] == "M")


_JOINERS = "\u200c\u200d"
LETTERS = rf"[^\W_]+(?:[{_marks(_WITH_MARKS)}{_JOINERS}]+[^\W_]*)*"  # of a word, and their marks


def word(letters: str) -> str:
    """A pattern of words of such letters, and of signs that belong to them: C++, C#; not the second
    sign of #Alfield#."""
    return rf"(?:(?<!#){letters}(?:[+#]++(?![^\W\d_]))?|{letters})"


_WORD = re.compile(word(LETTERS))
_DROPPED = re.compile(f"[{_marks(_POINTS)}{_JOINERS}]+")
_SMALL = frozenset(
    (
        *("of", "the", "and", "for", "in", "on", "at", "a", "an", "de", "la", "le", "du", "des"),
        *("der", "die", "das", "und", "y", "e"),
    )
)


def fold(text: str) -> str:
    """A name as it is compared: without accents, in lower case, all but letters and digits as one
    space; what has none of these as it is."""
    if not text.isascii():
        text = _DROPPED.sub("", unicodedata.normalize("NFKD", text))
    text = text.casefold()
    if words := _WORD.findall(text):
        return " ".join(words)
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def bare(name: str) -> str:
    """A title without what stands in parentheses at its end, or as it is where nothing is left."""
    head, _, behind = name.rstrip().rpartition("(")
    return head.rstrip() or name if behind and behind.find(")") == len(behind) - 1 else name


def forms(name: str, aliases: Iterable[str] = ()) -> list[str]:
    """What an entity is found by, folded."""
    found = (fold(form[:LONGEST]) for one in (name, *aliases) for form in (one, bare(one)))
    return [form for form in dict.fromkeys(found) if form]


def initials(form: str) -> list[str]:
    """What a folded name of several words goes by: "jfk", without "of" and the like too, and
    "j kennedy"."""
    words = form.split(" ")
    if len(words) == 1:
        return []
    large = [word for word in words if word not in _SMALL]
    letters = ("".join(word[0] for word in some) for some in (words, large))
    return list(dict.fromkeys([*letters, f"{words[0][0]} {words[-1]}"]))


def shortened(form: str) -> str:
    """A folded name as `initials` has it: "u s a" is "usa", "j f kennedy" is "j kennedy"."""
    words = form.split(" ")
    if len(words) > 2 and all(len(word) == 1 for word in words[:-1]) and len(words[-1]) > 1:
        return f"{words[0]} {words[-1]}"
    return "".join(words) if all(len(word) == 1 for word in words) else form
