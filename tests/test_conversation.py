"""Values hold what they promise, and show themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemma3n_sgl import Audio, Conversation, Image, Recording, Turn
from gemma3n_sgl.conversation import MAX_CLIP_SECONDS, SAMPLE_RATE

MEDIA = Path(__file__).parent / "media"


def test_a_clip_holds_at_most_what_the_engine_can_take():
    longest = Audio.from_pcm(b"\0\0" * round(MAX_CLIP_SECONDS * SAMPLE_RATE))
    assert longest.seconds == MAX_CLIP_SECONDS
    with pytest.raises(ValueError, match=r"at most 29\.5 s"):
        Audio.from_pcm(longest.pcm + b"\0\0")


def test_padding_adds_silence_behind_and_nothing_else():
    clip = Audio.from_pcm(b"\1\0" * 1600)
    padded = clip.padded(0.25)
    assert padded.seconds == 0.25
    assert padded.pcm == clip.pcm + b"\0\0" * 2400


@pytest.mark.parametrize(
    ("roles", "says"),
    [((), "at least one turn"), (("assistant",), "user speaks first"), (("user", "user"), "alternate"), (("user", "assistant"), "last turn")],
)
def test_a_talk_that_the_template_cant_express_is_refused(roles: tuple[str, ...], says: str):
    with pytest.raises(ValueError, match=says):
        Conversation(tuple(Turn(role, ("x",)) for role in roles))  # type: ignore[arg-type]


def test_asking_something_else_keeps_pictures_sound_and_the_turns_before():
    picture, clip = Image(b"", width=1, height=1, media_type="image/png"), Audio.from_pcm(b"\0\0")
    talk = Conversation((Turn("user", ("a",)), Turn("assistant", ("b",)), Turn("user", (picture, "c", clip))), "system")
    asked = talk.asking("d")
    assert asked.turns[:2] == talk.turns[:2]
    assert asked.last.parts == (picture, clip, "d")
    assert (asked.system, talk.last.text, asked.last.text) == ("system", "c", "d")


def test_values_show_themselves_in_a_notebook():
    assert "<img src=" in Image(b"x", width=2, height=1, media_type="image/png")._repr_html_()


def test_printed_they_are_a_line_and_not_their_bytes():
    assert str(Image(b"x" * 1000, width=2, height=1, media_type="image/png")) == "Image(2×1 image/png)"
    assert str(Audio.from_pcm(b"\0\0" * 16_000)) == "Audio(1.0 s)"
    assert len(repr(Recording(bytes(1000)))) < 80
