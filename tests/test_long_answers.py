"""A long answer comes whole, whatever it says and however the engine tells it."""

from __future__ import annotations

import asyncio

import pytest
from test_splits import events, run_over

SAID = ["Hi", *(f" {'long' * 10}{i}" for i in range(100)), ' "output_ids": [1, 2], "output_ids":[', "]", " and on", "."]


@pytest.mark.parametrize("incremental", [False, True])
def test_a_long_answer_that_quotes_the_engines_own_words_comes_whole(incremental: bool) -> None:
    done, told = asyncio.run(run_over(events(SAID, incremental=incremental), [], stop=()))
    assert done.answer == told == "".join(SAID)
    assert done.usage.completion_tokens == len(SAID)


def test_an_answer_that_goes_on_as_it_began_in_one_long_piece_comes_whole() -> None:
    said = ["Ha", "Ha" * 3000, "!"]
    assert asyncio.run(run_over(events(said, incremental=True), [], stop=()))[0].answer == "".join(said)
