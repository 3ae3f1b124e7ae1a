"""Splits: what may not be on two sides is not, and nothing else moves."""

import dataclasses
import random

import pytest

from data_pipeline import splits
from data_pipeline.schema import Mention, UserError


def mention(id: str, split: str, sample: str, text: str = "", image: str | None = None) -> Mention:
    text = text or f"text of {sample}"
    return Mention(id, text, "name", None, None, split, sample, gold=None, image=image)


def ids(mentions: list[Mention], split: str) -> set[str]:
    return {one.id for one in mentions if one.split == split}


OVERLAPPING = [
    mention("alone", "train", "1"),
    mention("sample", "train", "9"),
    mention("text", "train", "2", text="the same"),
    mention("picture", "train", "3", text="other", image="p.jpg"),
    mention("beside picture", "train", "3", text="free of overlap itself"),
    mention("with valid", "train", "4", text="in valid"),
    mention("valid with test", "valid", "5", text="the same"),
    mention("valid", "valid", "6", text="in valid"),
    mention("test", "test", "9", image="p.jpg"),
    mention("test text", "test", "10", text="the same"),
    mention("test alone", "test", "11"),
]


def test_disjoint_drops_whole_samples_and_counts_them() -> None:
    kept, counts = splits.assign(OVERLAPPING, mode="disjoint", valid_fraction=0.5)
    assert ids(kept, "train") == {"alone"}
    assert ids(kept, "valid") == {"valid"}
    assert ids(kept, "test") == {"test", "test text", "test alone"}
    assert counts == {"dropped_shared_with_test": 5, "dropped_shared_with_valid": 1}


def test_published_keeps_all_where_it_was() -> None:
    kept, counts = splits.assign(OVERLAPPING, mode="published", valid_fraction=0.5)
    assert [(one.id, one.split) for one in kept] == [(one.id, one.split) for one in OVERLAPPING]
    assert counts == {}


def test_clean_is_judged_before_anything_is_dropped() -> None:
    for mode in splits.MODES:
        kept, _ = splits.assign(OVERLAPPING, mode=mode, valid_fraction=0.0)
        assert {one.id for one in kept if one.split == "test" and one.clean} == {"test alone"}
    assert {one.id for one in splits.mark_clean(OVERLAPPING) if one.clean} == {
        "alone",
        "beside picture",
        "test alone",
    }


def test_blank_texts_are_not_shared() -> None:
    blank = [mention("a", "train", "1", text=" "), mention("b", "test", "2", text=" ")]
    kept, _ = splits.assign(blank, mode="disjoint", valid_fraction=0.0)
    assert [one.clean for one in kept] == [True, True]


def training(n: int) -> list[Mention]:
    return [mention(f"m{i}", "train", f"s{i // 2}") for i in range(n)]


def test_held_out_share_is_near_the_fraction_and_whole_samples_move() -> None:
    held = splits.hold_out(training(4000), 0.1)
    moved = [one for one in held if one.split == "valid"]
    assert 300 < len(moved) < 500  # 400 expected, standard deviation 27
    assert all(a.split == b.split for a, b in zip(held[::2], held[1::2], strict=True))
    assert not any(one.split == "valid" for one in splits.hold_out(training(100), 0.0))


def test_held_out_depends_on_the_sample_alone() -> None:
    mentions = training(400)
    expected = ids(splits.hold_out(mentions, 0.2), "valid")
    shuffled = random.Random(0).sample(mentions, len(mentions))
    assert ids(splits.hold_out(shuffled, 0.2), "valid") == expected
    half = ids(splits.hold_out(mentions[:200], 0.2), "valid")
    assert half == {one for one in expected if int(one[1:]) < 200}
    assert expected < ids(splits.hold_out(mentions, 0.4), "valid")
    # These four stay, on no machine and in no later version.
    four = [mention(f"m{i}", "train", f"s{i}", f"text {i}") for i in range(4)]
    assert ids(splits.hold_out(four, 0.5), "valid") == {"m3"}


def test_held_out_keeps_shared_content_together_through_others() -> None:
    chain = [
        mention(f"m{link}-{step}", "train", f"s{link}-{step}", text, image)
        for link in range(100)
        for step, (text, image) in enumerate(
            [(f"t{link}", None), (f"t{link}", f"p{link}"), ("", f"p{link}")]
        )
    ]
    held = splits.hold_out(chain, 0.5)
    assert all(len({one.split for one in held[i : i + 3]}) == 1 for i in range(0, 300, 3))
    assert 20 < len(ids(held, "valid")) / 3 < 80
    backwards = splits.hold_out(chain[::-1], 0.5)
    assert backwards == held[::-1]
    assert all(one.clean for one in splits.mark_clean(held))


def test_held_out_is_the_same_in_both_modes() -> None:
    mentions = training(400)
    mentions += [mention(f"t{i}", "test", f"s{i}") for i in range(0, 200, 5)]
    disjoint, counts = splits.assign(mentions, mode="disjoint", valid_fraction=0.3)
    published, _ = splits.assign(mentions, mode="published", valid_fraction=0.3)
    assert counts["dropped_shared_with_test"] == 80
    sides = {one.id: one.split for one in published}
    assert all(sides[one.id] == one.split for one in disjoint)


def test_a_published_valid_split_stays() -> None:
    mentions = [*training(200), mention("v", "valid", "v")]
    kept, _ = splits.assign(mentions, mode="disjoint", valid_fraction=0.5)
    assert ids(kept, "valid") == {"v"}
    assert kept == [dataclasses.replace(one, clean=True) for one in mentions]


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match=r"data\.valid_fraction"):
        splits.assign([], mode="disjoint", valid_fraction=fraction)
    with pytest.raises(UserError, match="known are disjoint, published"):
        splits.assign([], mode="joint", valid_fraction=0.1)
