"""The fullest form of a mention, case by case."""

import pytest

from data_pipeline.kb.folded_names import fold
from data_pipeline.retrieval.forms import AROUND, LONGEST, fullest

KNOWN = {
    fold(name) for name in ("michael jordan", "Jordan River", "Lake of the Woods", "São Paulo")
}


def form(text: str, name: str, known: bool = True, at: int = 0) -> str:
    """The fullest form of the occurrence number `at` of `name`."""
    start = -1
    for _ in range(at + 1):
        start = text.find(name, start + 1)
    return fullest(text, name, start if start >= 0 else None, KNOWN.__contains__ if known else _no)


def _no(form: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("text", "name", "wanted"),
    [
        # Capitalised words around it, at the start, at the end, on both sides.
        ("Michael Jordan scored", "Jordan", "Michael Jordan"),
        ("It was Michael Jordan", "Jordan", "Michael Jordan"),
        ("It was Michael Jordan", "Michael", "Michael Jordan"),
        ("by Michael Jeffrey Jordan Sr", "Jeffrey", "Michael Jeffrey Jordan Sr"),
        ("Jordan", "Jordan", "Jordan"),
        ("he saw Jordan there", "Jordan", "Jordan"),
        # Small words that names have inside, never at an end.
        ("of Ludwig van Beethoven", "Beethoven", "Ludwig van Beethoven"),
        ("by Simone de la Cruz in", "Simone", "Simone de la Cruz"),
        ("Van de and Cruz", "Cruz", "Cruz"),
        ("Simone de", "Simone", "Simone"),
        # Initials and titles go on over a full stop, a sentence does not.
        ("when John F. Kennedy came", "Kennedy", "John F. Kennedy"),
        ("J. F. Kennedy came", "Kennedy", "J. F. Kennedy"),
        ("J.F. Kennedy came", "Kennedy", "J.F. Kennedy"),
        ("in St. Louis Park", "Louis", "St. Louis Park"),
        ("They met Jordan. He left", "Jordan", "Jordan"),
        ("They met Jordan, Michael said", "Jordan", "Jordan"),
        ("They met (Jordan) Michael", "Jordan", "Jordan"),
        ("They met Jordan\nMichael", "Jordan", "Jordan"),
        ("They met Jordan   Michael", "Jordan", "Jordan"),
        # Hyphens and apostrophes are of the word, the genitive is not.
        ("by Jean-Paul Sartre himself", "Jean-Paul", "Jean-Paul Sartre"),
        ("by Jean-Paul Sartre himself", "Sartre", "Jean-Paul Sartre"),
        ("when Shaquille O'Neill ran", "O'Neill", "Shaquille O'Neill"),
        ("when Shaquille O’Neill ran", "Shaquille", "Shaquille O’Neill"),
        ("Michael Jordan's Bulls", "Jordan", "Michael Jordan"),
        ("Michael Jordan’s Bulls", "Jordan", "Michael Jordan"),
        ("the U.S. Navy came", "U.S.", "U.S. Navy"),
        ("by Beyonce\u0301 Knowles", "Beyonce\u0301", "Beyonce\u0301 Knowles"),
        # The longest of several occurrences.
        ("Jordan came, as Michael Jordan left", "Jordan", "Michael Jordan"),
        # Without capitals there is no run; other cases of it count.
        ("michael jordan scored", "jordan", "jordan"),
        ("a JORDAN and Michael JORDAN", "Jordan", "Michael JORDAN"),
        # Other scripts.
        ("в Андрей Тарковский снял", "Тарковский", "Андрей Тарковский"),
        ("em São João del Rei hoje", "João", "São João del Rei"),
        ("我在東京都看到", "東京", "東京"),
        ("قال محمد علي", "محمد", "محمد"),
        # Nothing to look for.
        ("", "Jordan", "Jordan"),
        ("Michael Jordan", "", ""),
        ("Michael Jordan", "...", "..."),
        ("Michael Jordan", "\ud800", "\ud800"),
        ("no such name", "Jordan", "Jordan"),
        ("Jordanian Michael", "Jordan", "Jordan"),
    ],
)
def test_the_run_of_capitalised_words(text: str, name: str, wanted: str) -> None:
    assert form(text, name, known=False) == wanted


@pytest.mark.parametrize(
    ("text", "name", "wanted"),
    [
        ("michael jordan scored", "jordan", "michael jordan"),
        ("michael jordan scored", "michael", "michael jordan"),
        ("When Michael Jordan Scored", "Jordan", "Michael Jordan"),
        ("on the lake of the woods", "woods", "lake of the woods"),
        ("on the lake of, the woods", "woods", "lake of, the woods"),
        ("in sao paulo", "paulo", "sao paulo"),
        ("Jordan river. And Michael Jordan", "Jordan", "Michael Jordan"),
        ("Big Jordan", "Jordan", "Big Jordan"),
    ],
)
def test_a_known_name_goes_before(text: str, name: str, wanted: str) -> None:
    assert form(text, name) == wanted


def test_only_the_neighbourhood_of_the_mention_counts() -> None:
    far = " and so on" * (AROUND // 5)
    text = f"Jordan came{far} Michael Jordan"
    assert form(text, "Jordan") == "Jordan"
    assert form(text, "Jordan", at=1) == "Michael Jordan"
    assert fullest("Michael Jordan", "Jordan", None) == "Michael Jordan"  # from its beginning


def test_a_form_has_so_many_words_at_most() -> None:
    words = [f"Word{i}" for i in range(40)]
    for name in ("Word0", "Word20", "Word39", "Word3 Word4"):
        found = form(" ".join(words), name, known=False).split()
        assert len(found) == LONGEST
        assert set(name.split()) <= set(found)
    long = " ".join(words)
    assert form(long, long) == long


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Jordan " * 150_000, "Jordan"),
        ("jordan" * 170_000, "jordan"),
        ("J." * 500_000, "J"),
        ("-" * 1_000_000, "-"),
        ("'" * 500_000 + "Jordan" + "’s" * 250_000, "Jordan"),
        ("Jordan " * 150_000, "Jordan " * 140_000),
        ("é\u0301" * 500_000, "é"),
        (" " * 500_000 + "Jordan" + " " * 500_000, "Jordan"),
    ],
)
def test_texts_of_a_megabyte_take_no_time(text: str, name: str) -> None:
    """For names are asked of an index, a look at each is 2 µs there."""
    asked = 0

    def knows(form: str) -> bool:
        nonlocal asked
        asked += 1
        return False

    for start in (text.find(name), len(text) - len(name), None):
        assert fullest(text, name, start, knows)
    assert asked < 3 * 2 * AROUND * LONGEST**2


def test_it_is_a_function_of_text_and_names() -> None:
    text = "Michael Jordan by the Jordan River. Jordan"
    first = [form(text, "Jordan", at=i) for i in (0, 1, 2)]
    assert [form(text, "Jordan", at=i) for i in (2, 1, 0)] == first[::-1]
