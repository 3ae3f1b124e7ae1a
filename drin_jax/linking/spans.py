"""Where in a raw text mentions may stand.

Without any model: names and aliases of the knowledge base, last words of them, and runs of
capitalised words; whoever links them tells which mean nobody. Beside that, any recogniser of named
entities: `Recogniser`, spaCy's or GLiNER's by name (extra `ner`).
"""

import itertools
import operator
import re
from collections.abc import Callable, Collection, Iterable, Sequence

from data_pipeline.kb.folded_names import bare, fold
from data_pipeline.kb.knowledge_base import KnowledgeBase
from data_pipeline.retrieval.forms import INSIDE, LONGEST, WORD, joins
from data_pipeline.schema import UserError, reason
from drin_jax.linking.query import several

Place = tuple[int, int]  # first and last+1 character
Knows = Callable[[str], bool]
Recogniser = Callable[[str], list[Place]]
MOST = 512  # mentions of a text
# Scripts that put no spaces between words: Thai and its kin, Han and kana.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff\U000e0100-\U000e01ef]{2,}"
)
_LETTERS = 24  # code points of a name in there, at most
_ENDS = re.compile(r"[.!?:;\n\"“”(\[]")  # what a sentence or a part of it begins behind
_INSIDE = INSIDE | {"of", "the"}  # words in lower case that a name has inside
# Words that begin sentences, and are nobody's name where they do.
_COMMON = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "those",
        "it",
        "its",
        "he",
        "she",
        "they",
        "we",
        "you",
        "i",
        "his",
        "her",
        "their",
        "our",
        "my",
        "in",
        "on",
        "at",
        "by",
        "to",
        "from",
        "for",
        "with",
        "of",
        "as",
        "and",
        "or",
        "but",
        "if",
        "when",
        "while",
        "after",
        "before",
        "since",
        "during",
        "not",
        "no",
        "so",
        "there",
        "here",
        "what",
        "who",
        "which",
        "how",
        "why",
        "where",
        "was",
        "were",
        "is",
        "are",
        "be",
        "been",
        "has",
        "have",
        "had",
        "do",
        "does",
        "did",
        "will",
        "would",
        "can",
        "could",
        "may",
        "might",
        "must",
        "shall",
        "should",
        "one",
        "two",
        "first",
        "second",
        "new",
        "many",
        "some",
        "all",
        "most",
        "more",
    ]
)


def find(text: str, knows: Knows, last_words: Collection[str]) -> list[Place]:
    """Where names may stand, in order; some overlap.

    Args:
        knows: whether an entity has this name or alias, folded.
        last_words: of them, folded.
    """
    words = [(match.start(), match.end()) for match in WORD.finditer(text)]
    forms = [text[a:b] for a, b in words]
    folded = [fold(form) for form in forms]
    gaps = [text[a[1] : b[0]] for a, b in itertools.pairwise(words)]
    joined = [joins(form, gap) for form, gap in zip(forms, gaps, strict=False)]
    found = {*_known(words, forms, folded, joined, knows)}
    found |= {*_runs(text, words, forms, folded, joined, last_words)}
    found |= {*_between_letters(text, last_words)}
    return sorted(found)[:MOST]


def _between_letters(text: str, last_words: Collection[str]) -> Iterable[Place]:
    """Names of one word where nothing stands between words, the longest that begin at a letter."""
    for run in _UNSPACED.finditer(text):
        i, last = run.span()
        while i < last:
            ends = range(min(last, i + _LETTERS), i + 1, -1)
            end = next((j for j in ends if fold(text[i:j]) in last_words), i + 1)
            if end > i + 1:
                yield i, end
            i = end


def _known(
    words: Sequence[Place],
    forms: Sequence[str],
    folded: Sequence[str],
    joined: Sequence[bool],
    knows: Knows,
) -> Iterable[Place]:
    """Names and aliases of the knowledge base, the longest that begin at a word."""
    for i in range(len(words)):
        longest = i + 1
        while longest < len(words) and longest - i < LONGEST and joined[longest - 1]:
            longest += 1
        for end in range(longest, i, -1):
            some = forms[i:end]
            if not any(map(_stands_out, some)) or (end == i + 1 and folded[i] in _COMMON):
                continue
            if knows(" ".join(folded[i:end])):
                yield words[i][0], words[end - 1][1]
                break


def _runs(
    text: str,
    words: Sequence[Place],
    forms: Sequence[str],
    folded: Sequence[str],
    joined: Sequence[bool],
    last_words: Collection[str],
) -> Iterable[Place]:
    """Runs of capitalised words. A word that only begins a sentence is none, unless a name ends
    with it."""
    i = 0
    while i < len(words):
        if not forms[i][0].isupper():
            i += 1
            continue
        end = _end_of_run(i, forms, folded, joined)
        begins = i == 0 or _ENDS.search(text[words[i - 1][1] : words[i][0]]) is not None
        first = i + 1 if begins and folded[i] in _COMMON and end > i + 1 else i
        known = folded[first] in last_words
        if end - first > 1 or (folded[first] not in _COMMON and (known or not begins)):
            yield words[first][0], words[end - 1][1]
            yield from _parts(first, end, words, folded)
        i = end


def _parts(first: int, end: int, words: Sequence[Place], folded: Sequence[str]) -> Iterable[Place]:
    """What stands between the small words of a run."""
    begin = first
    for i in range(first, end + 1):
        if i == end or folded[i] in _INSIDE:
            if i > begin and (begin, i) != (first, end):
                yield words[begin][0], words[i - 1][1]
            begin = i + 1


def _end_of_run(i: int, forms: Sequence[str], folded: Sequence[str], joined: Sequence[bool]) -> int:
    """The end of the run of capitalised words that begins at word i, small words inside."""
    end = i + 1
    while True:
        after = end
        while after < len(forms) and joined[after - 1] and folded[after] in _INSIDE:
            after += 1
        if after >= len(forms) or after - i >= LONGEST:
            return end
        if not joined[after - 1] or not forms[after][0].isupper():
            return end
        end = after + 1


def _stands_out(form: str) -> bool:
    """Whether a word is written as names are: with a capital, or in letters that have none."""
    return form != form.lower() or form[0].isdigit() or form.lower() == form.upper()


def last_words(kb: KnowledgeBase) -> frozenset[str]:
    """The folded last words of all names and aliases."""
    names = itertools.chain(
        kb.column("name").to_pylist(),
        itertools.chain.from_iterable(kb.column("aliases").to_pylist()),
    )
    return frozenset(form.rpartition(" ")[2] for name in names if (form := fold(bare(name))))


def apart(places: Sequence[Place], worth: Sequence[float]) -> list[int]:
    """Which of some places to keep so that no two overlap: those worth more, then the longer."""
    order = sorted(
        range(len(places)),
        key=lambda i: (-worth[i], places[i][0] - places[i][1], places[i][0]),
    )
    kept: list[int] = []
    for i in order:
        a, b = places[i]
        if all(b <= places[j][0] or places[j][1] <= a for j in kept):
            kept.append(i)
    return sorted(kept, key=lambda i: places[i])


def named(ner: Recogniser, text: str) -> Iterable[Place]:
    """What a recogniser finds in a text. UserError where that is no place there."""
    for found in several("the places of ner", ner(text)):
        try:
            start, end = map(operator.index, found)
        except (TypeError, ValueError):
            raise UserError(
                f"ner found {found!r:.40}; it must give first and last+1 characters"
            ) from None
        if text[max(start, 0) : end].strip():
            yield max(start, 0), min(end, len(text))


def recogniser(name: str) -> Recogniser:
    """A recogniser by name: "spacy:PIPELINE", or "gliner:HUB ID" with "#label,label" behind it.

    Raises:
        UserError: an unknown kind, or what it needs is not there.
    """
    kind, _, what = name.partition(":")
    makers = {"spacy": _spacy, "gliner": _gliner}
    if kind not in makers or not what:
        raise UserError(f"ner is {name!r:.60}; give spacy:PIPELINE, or gliner:OWNER/NAME")
    try:
        return makers[kind](what)
    except ImportError as error:
        raise UserError(f'{name}: {reason(error)}; pip install "drin_jax[ner]"') from None
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: cannot be loaded ({reason(error)})") from None


def _spacy(name: str) -> Recogniser:
    import spacy

    pipeline = spacy.load(name)
    return lambda text: [(one.start_char, one.end_char) for one in pipeline(text).ents]


def _gliner(name: str) -> Recogniser:
    import gliner

    place, _, labels = name.partition("#")
    model = gliner.GLiNER.from_pretrained(place)
    wanted = (
        labels.split(",") if labels else ["person", "organization", "location", "event", "work"]
    )
    return lambda text: [(one["start"], one["end"]) for one in model.predict_entities(text, wanted)]
