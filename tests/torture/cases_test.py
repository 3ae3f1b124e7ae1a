"""A few of the campaign's random cases."""

from pathlib import Path

from tests.torture import cases


def test_random_files_flags_and_pictures_are_taken_or_refused_in_a_line(tmp_path: Path) -> None:
    found = cases.run(3, 240, tmp_path)
    assert sum(found.values()) >= 200
    assert len(found) >= 6
