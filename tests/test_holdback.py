"""Control tokens and stop strings never leave, however the text is cut into chunks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma3n_sgl.holdback import CONTROL_TOKEN, ZERO_WIDTH_SPACE, Holdback, neutralise

TOKENIZER = Path(__file__).parent.parent / "gemma3n_sgl/engine/demo/tokenizer.json"
SPECIAL = [token["content"] for token in json.loads(TOKENIZER.read_text())["added_tokens"] if token["special"]]

texts = st.text(alphabet=st.sampled_from("<>[]ab _u\n@") | st.characters(), max_size=30)
pieces = st.sampled_from([*SPECIAL[:8], "<start_of_turn>", "<end_of_turn>", "<image_soft_token>", "<", "STOP", "ST"])
tricky = st.lists(pieces | texts, max_size=6).map("".join)


def cut(text: str, sizes: list[int]) -> list[str]:
    chunks = []
    for size in sizes:
        chunks.append(text[:size])
        text = text[size:]
    return [*chunks, text]


def relayed(chunks: list[str], stops: tuple[str, ...] = ()) -> str:
    safe = Holdback(stops)
    return "".join([*map(safe.feed, chunks), safe.flush()])


def test_there_are_special_tokens_to_try():
    assert {"<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<image_soft_token>", "<audio_soft_token>"} <= set(SPECIAL)
    assert len(SPECIAL) > 300


def test_every_special_token_of_the_tokenizer_is_made_harmless():
    for token in (*SPECIAL, "<2mass>", "[@BOS@]", "[toxicity]"):
        made = neutralise(f"before {token} after")
        assert token not in made
        assert made.replace(ZERO_WIDTH_SPACE, "") == f"before {token} after", "it still reads the same"


@given(tricky)
def test_neutralised_text_holds_no_control_token_and_stays_as_it_is_when_done_again(text: str):
    once = neutralise(text)
    assert not any(token in once for token in SPECIAL)
    assert neutralise(once) == once


@pytest.mark.parametrize("text", ["a < b", "<b>bold</b>", "if x[1] < [2]:", "<start of turn>", "</end_of_turn>"])
def test_ordinary_text_is_left_alone(text: str):
    assert neutralise(text) == text == relayed(list(text))


@given(tricky, st.lists(st.integers(0, 7), max_size=12))
def test_any_split_of_a_stream_gives_the_same_text(text: str, sizes: list[int]):
    assert relayed(cut(text, sizes)) == neutralise(text)


@given(tricky, st.lists(st.integers(0, 7), max_size=12))
def test_a_stop_string_is_never_shown_not_even_across_chunks(text: str, sizes: list[int]):
    shown = relayed(cut(text, sizes), ("STOP", "aS"))
    ends = [at for at in (text.find("STOP"), text.find("aS")) if at >= 0]
    assert shown == neutralise(text[: min(ends)] if ends else text)


@given(tricky, st.lists(st.integers(0, 7), max_size=12), st.lists(st.booleans(), min_size=13, max_size=13))
def test_what_is_offered_in_vain_is_as_if_never_fed(text: str, sizes: list[int], taken: list[bool]):
    stops, told = ("STOP", "aS"), []
    safe = Holdback(stops)
    for chunk, take in zip(cut(text, sizes), taken, strict=False):
        if not safe.offer(chunk, lambda shown, take=take: take and (told.append(shown) or True)):  # type: ignore[misc]
            told.append(safe.feed(chunk))
    assert "".join([*told, safe.flush()]) == relayed([text], stops)


def test_nothing_is_held_back_that_can_only_be_text():
    safe = Holdback(("END",))
    assert [safe.feed(chunk) for chunk in ("Hello", " wor", "ld E", "N", "dless")] == ["Hello", " wor", "ld ", "", "ENdless"]
    assert CONTROL_TOKEN.search("plain") is None
