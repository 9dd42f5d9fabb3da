"""Texts of clips become one: what two clips have both heard is told once, and nothing else is taken out."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma3n_sgl.joining import Joiner, go_on, seam

WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=4), min_size=1, max_size=40)
CUTS = st.lists(st.integers(1, 7), max_size=40)


def joined(parts: list[tuple[str, bool]], cuts: list[int] | None = None) -> tuple[str, list[str]]:
    """The whole and each part's own text, from parts (text, whether the next one repeats its end), fed in pieces."""
    told: list[str] = []
    own: list[str] = []
    joiner, repeats = Joiner(told.append), False
    for text, runs_on in parts:
        joiner.begin(repeats=repeats, runs_on=runs_on, done=own.append)
        rest = text
        for size in cuts or []:
            joiner.add(rest[:size])
            rest = rest[size:]
        joiner.add(rest)
        joiner.end()
        repeats = runs_on
    joiner.close()
    return "".join(told), own


@given(st.lists(WORDS, min_size=1, max_size=5), CUTS)
def test_without_overlap_the_whole_is_all_parts_in_order_however_they_came(parts: list[list[str]], cuts: list[int]) -> None:
    whole, own = joined([(f" {' '.join(words)}\n", False) for words in parts], cuts)
    assert own == [" ".join(words) for words in parts]
    assert whole == " ".join(own)


@given(st.integers(4, 60), st.integers(1, 12), st.integers(0, 100), CUTS)
def test_words_heard_twice_are_told_once(count: int, shared: int, seed: int, cuts: list[int]) -> None:
    """Also where a word was cut at either end, and heard as something else."""
    words = [f"w{i}" for i in range(count)]
    middle = count // 2
    before, after = words[: middle + shared // 2 + 1], words[max(0, middle - (shared - 1) // 2) :]
    first = " ".join(before) + (" stray" if seed % 2 else "")
    second = ("Bit, " if seed % 3 else "") + " ".join(after)
    whole, own = joined([(first, True), (second, False)], cuts)
    assert whole == " ".join(words) == " ".join(own)


@pytest.mark.parametrize(
    ("before", "after", "whole"),
    [
        ("and then we went home.", "We went home, and slept.", "and then we went home, and slept."),
        ("it costs 1.5 mil", "1.5 million euros", "it costs 1.5 million euros"),
        ("今天天气很好我们", "很好我们去公园", "今天天气很好我们去公园"),
        ("nothing in common", "at all here", "nothing in common at all here"),
        ("all of it is the same", "is the same", "all of it is the same"),
        ("", "begins here", "begins here"),
        ("ends here", "", "ends here"),
        ("the end of the", "of the world", "the end of the world"),
        ("six five seven oh seven oh", "seven oh four", "six five seven oh seven oh four"),
        ("no no no", "no no she said", "no no no she said"),
    ],
)
def test_a_seam_does_not_show(before: str, after: str, whole: str) -> None:
    assert joined([(before, True), (after, False)])[0] == whole


def test_a_run_far_from_the_border_is_no_seam() -> None:
    """What is said again by chance stays."""
    assert seam("yes we can do that some other day perhaps", "yes we can") == (len("yes we can do that some other day perhaps"), 0)


def test_text_is_told_as_it_comes_but_for_what_may_be_heard_again() -> None:
    told: list[str] = []
    joiner = Joiner(told.append)
    joiner.begin(repeats=False, runs_on=False, done=lambda text: None)
    joiner.add("one tw")
    assert told == ["one tw"]
    joiner.end()
    joiner.begin(repeats=False, runs_on=True, done=lambda text: None)
    joiner.add(" ".join(map(str, range(40))))
    assert told[1:] == [" " + " ".join(map(str, range(24)))], "16 words may be heard again"


def test_where_a_part_breaks_off_something_stands_for_the_rest_and_the_next_begins_anew() -> None:
    told: list[str] = []
    own: list[tuple[str, str]] = []
    joiner = Joiner(told.append)
    joiner.begin(repeats=False, runs_on=True, done=partial(lambda a, b: own.append((a, b)), "first"))
    joiner.add("one two three")
    joiner.end()
    joiner.begin(repeats=True, runs_on=False, done=partial(lambda a, b: own.append((a, b)), "second"))
    joiner.add("two th")
    joiner.fail("[lost]")
    joiner.begin(repeats=True, runs_on=False, done=partial(lambda a, b: own.append((a, b)), "third"))
    joiner.add("four")
    joiner.end()
    assert "".join(told) == "one two three [lost] four"
    assert own == [("first", "one two three"), ("second", "[lost]"), ("third", "four")]


def test_chinese_parts_stand_without_a_space_between() -> None:
    assert joined([("今天天气很好。", False), ("我们去公园。", False), ("OK", False)])[0] == "今天天气很好。我们去公园。 OK"


@given(WORDS, st.integers(0, 200))
def test_a_second_try_goes_on_where_the_first_broke_off(words: list[str], at: int) -> None:
    text = " ".join(words)
    assert text[:at] + go_on(text[:at], text) == text


def test_a_second_try_that_says_something_else_goes_on_after_as_many_words() -> None:
    assert go_on("one too", "One, two, three") == ", three"
    assert go_on("one two three", "one") == ""
    assert go_on("", "one") == "one"
