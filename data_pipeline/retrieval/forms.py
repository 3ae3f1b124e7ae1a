"""The fullest form in which a text names what a mention means.

Many mentions are one word of a name, "Jordan", that the sentence has in full: "Michael Jordan".
"""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from data_pipeline.kb.folded_names import LETTERS, fold, word

LONGEST = 7  # words of a form
AROUND = 1000  # characters of text before and behind the mention that are looked at
# The "s" of "Jordan's" is a word of its own.
WORD = re.compile(word(rf"{LETTERS}(?:(?:[.\-]|['’](?!s\b)){LETTERS})*"))
# Between two words of one name: nothing but a space, with a full stop behind an initial.
_SPACE = re.compile(r"[^\S\n]{1,2}|[-–]")
_INITIAL = re.compile(r"[^\W\d_](?:\.[^\W\d_])*|St|Dr|Mr|Mrs|Ms|Jr|Sr")
# Words in lower case that names have inside.
INSIDE = frozenset(
    (
        *(
            "de",
            "da",
            "di",
            "del",
            "della",
            "du",
            "dos",
            "van",
            "von",
            "der",
            "den",
            "la",
            "le",
            "el",
        ),
        *("al", "bin", "ibn", "zu", "ter", "af"),
    )
)


def fullest(
    text: str, name: str, start: int | None, knows: Callable[[str], bool] = lambda form: False
) -> str:
    """The longest run of words around an occurrence of `name` in `text` that names an entity; else
    the longest run of capitalised words that has it; `name` itself where there is no longer one.

    Args:
        start: character of `text` where the mention begins; None: it is not in there.
        knows: whether an entity has this name, folded.
    """
    wanted = [fold(word) for word in WORD.findall(name)]
    if not any(wanted):
        return name
    begin = max(0, (start or 0) - AROUND)
    text = text[begin : (start or 0) + len(name) + AROUND]
    spans = [match.span() for match in WORD.finditer(text)]
    words = [text[a:b] for a, b in spans]
    folded = [fold(word) for word in words]
    gaps = [text[a[1] : b[0]] for a, b in pairwise(spans)]
    joined = [joins(word, gap) for word, gap in zip(words, gaps, strict=False)]
    known, run, n = "", "", len(wanted)
    for at in range(len(words) - n + 1):
        if folded[at : at + n] != wanted:
            continue
        first, last = _run(words, joined, at, at + n)
        found = text[spans[first][0] : spans[last - 1][1]]
        run = max(run, found, key=len)
        for low in range(max(0, at + n - LONGEST), at + 1):
            for high in range(at + n, min(len(words), low + LONGEST) + 1):
                found = text[spans[low][0] : spans[high - 1][1]]
                longer = high - low > n and len(found) > len(known)
                if longer and knows(" ".join(folded[low:high])):
                    known = found
    return known or max(name, run, key=len)


def joins(word: str, gap: str) -> bool:
    """Whether a name may go on over what stands behind this word of it."""
    gap = gap.removeprefix(".") if _INITIAL.fullmatch(word) else gap
    return _SPACE.fullmatch(gap) is not None


def _run(words: Sequence[str], joined: Sequence[bool], low: int, high: int) -> tuple[int, int]:
    """The run of capitalised words, joined by spaces, that words low to high lie in."""

    def reaches(at: int, step: int) -> bool:
        """Whether the name goes on with the word `at`, or over it."""
        gap = at if step < 0 else at - 1  # between `at` and the word it would join
        if not (0 <= at < len(words) and joined[gap]):
            return False
        return words[at][0].isupper() or (words[at].lower() in INSIDE and reaches(at + step, step))

    while high - low < LONGEST and reaches(low - 1, -1):
        low -= 1
    while high - low < LONGEST and reaches(high, 1):
        high += 1
    return low, high
