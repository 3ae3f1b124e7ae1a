"""Names as they are compared: folded, without parentheses, and as initials."""

import re
import unicodedata
from collections.abc import Iterable

LONGEST = 200  # characters of a name that count
_WORD = re.compile(r"[^\W_]+")
_SMALL = frozenset(
    (
        *("of", "the", "and", "for", "in", "on", "at", "a", "an", "de", "la", "le", "du", "des"),
        *("der", "die", "das", "und", "y", "e"),
    )
)


def fold(text: str) -> str:
    """A name as it is compared: without accents and other marks, in lower case, all but letters and
    digits as one space."""
    if not text.isascii():
        split = unicodedata.normalize("NFKD", text)
        text = "".join(one for one in split if unicodedata.category(one)[0] != "M")
    return " ".join(_WORD.findall(text.casefold()))


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
