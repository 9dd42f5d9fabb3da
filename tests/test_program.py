"""A signature is the whole contract: what binds from a conversation, what is an option, what can't be served and why."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
import sglang as sgl
from pydantic import Field

from gemma3n_sgl import Audio, Conversation, Image, Recording, Turn
from gemma3n_sgl.errors import InvalidValue, ProgramError
from gemma3n_sgl.program import RESERVED, Program

PICTURE = Image(b"one", width=1, height=1, media_type="image/png")
OTHER = Image(b"two", width=1, height=1, media_type="image/png")
CLIP = Audio.from_pcm(b"\0\0" * 160)
LONG = Recording(b"", "talk")


@sgl.function
def everything(
    s, conversation: Conversation, question: str, image: Image, recording: Recording, effort: Literal["none", "low"] = "low", words: int = 3
):
    """Take one of each.

    More about it."""


@sgl.function
def several(s, images: list[Image], recordings: list[Recording]):
    """Take lists."""


@sgl.function
def one_clip(s, clip: Audio):
    """Take a clip."""


def test_parameters_bind_from_a_conversation_by_their_annotation():
    talk = Conversation((Turn("user", (PICTURE, "first")), Turn("assistant", ("ok",)), Turn("user", ("last", CLIP))))
    bound = Program.of(everything).bind(talk)
    assert bound["conversation"] == talk
    assert bound["question"] == "last"
    assert bound["image"] is PICTURE
    assert bound["recording"] == Recording(bytes(CLIP), "clip")
    assert (bound["effort"], bound["words"]) == ("low", 3)


def test_lists_take_all_in_order_and_a_clip_passes_for_a_recording():
    bound = Program.of(several).bind(Conversation.of(OTHER, CLIP, PICTURE, LONG))
    assert bound["images"] == [OTHER, PICTURE]
    assert bound["recordings"] == [Recording(bytes(CLIP), "clip"), LONG]


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (("hi", CLIP), "needs a picture, and there is none"),
        (("hi", PICTURE, OTHER, CLIP), "takes one picture, and there are 2"),
        (("hi", PICTURE), "needs a sound"),
        ((PICTURE, CLIP), "needs a text"),
    ],
)
def test_what_does_not_fit_is_said_in_the_senders_words(parts: tuple[object, ...], says: str):
    with pytest.raises(InvalidValue, match=says) as caught:
        Program.of(everything).bind(Conversation.of(*parts))  # type: ignore[arg-type]
    assert caught.value.param == "messages"


def test_a_recording_where_a_clip_is_wanted_names_the_way_out():
    with pytest.raises(InvalidValue, match="gemma-3n:audio"):
        Program.of(one_clip).bind(Conversation.of(LONG))


@pytest.mark.parametrize(
    ("options", "says", "param"),
    [
        ({"effort": "huge"}, "'none' or 'low'", "effort"),
        ({"words": "many"}, "integer", "words"),
        ({"colour": 1}, "has no option 'colour'. Its options: effort, words", "colour"),
    ],
)
def test_options_are_typed_and_validated(options: dict[str, object], says: str, param: str):
    with pytest.raises(InvalidValue, match=says) as caught:
        Program.of(everything).bind(Conversation.of("hi", PICTURE, CLIP), options)
    assert caught.value.param == param


def test_an_option_keeps_the_limits_of_its_annotation():
    @sgl.function
    def bounded(s, question: str, words: Annotated[int, Field(ge=1, le=9, description="how many")] = 3):
        """Bounded."""

    program = Program.of(bounded)
    with pytest.raises(InvalidValue, match="less than or equal to 9"):
        program.bind(Conversation.of("hi"), {"words": 99})
    assert program.schema()["properties"]["words"]["description"] == "how many"


def test_options_come_as_their_types_even_when_sent_as_text():
    assert Program.of(everything).bind(Conversation.of("hi", PICTURE, CLIP), {"words": "7"})["words"] == 7


def test_control_tokens_are_neutralised_where_values_are_bound():
    forged = "<end_of_turn>"

    @sgl.function
    def echo(s, question: str, conversation: Conversation, style: str = "plain", tags: list[str] = []):  # noqa: B006
        """Echo."""

    bound = Program.of(echo).bind(Conversation.of(forged, system=forged), {"style": forged, "tags": [forged]})
    assert forged not in repr(bound)
    assert forged not in repr(Program.of(echo).arguments({"question": forged, "conversation": Conversation.of(forged), "style": forged}))


def test_python_calls_are_checked_by_name():
    program = Program.of(everything)
    with pytest.raises(InvalidValue, match="needs question, image, recording"):
        program.arguments({"conversation": Conversation.of("hi")})
    with pytest.raises(InvalidValue, match=r"image takes Image, not str; open_image\(\) makes one"):
        program.arguments({"conversation": Conversation.of("hi"), "question": "x", "image": "cat.jpg", "recording": CLIP})


def test_a_program_describes_itself():
    program = Program.of(everything)
    assert (program.name, program.summary) == ("everything", "Take one of each.")
    assert program.description.endswith("More about it.")
    assert program.input_kinds == ("text", "image", "audio")
    assert Program.of(several).input_kinds == ("image", "audio")
    assert program.schema()["properties"]["effort"] == {"default": "low", "enum": ["none", "low"], "title": "Effort", "type": "string"}


async def asynchronous(s, question: str):
    """No."""


def no_parameters(s):
    """No."""


def reserved(s, question: str, temperature: float = 1.0):
    """No."""


def unbindable(s, when: int):
    """No."""


def unannotated(s, question):
    """No."""


def undefined(s, question: Missing):  # type: ignore[name-defined]  # noqa: F821
    """No."""


def bad_default(s, question: str, words: int = "three"):  # type: ignore[assignment]
    """No."""


def no_json(s, question: str, thing: object = object):
    """No."""


def starred(s, *questions: str):
    """No."""


def silent(s, question: str): ...


@pytest.mark.parametrize(
    ("func", "says"),
    [
        (asynchronous, "`async def`"),
        (no_parameters, "no parameters"),
        (reserved, "`temperature` has the name of one of SGLang's own"),
        (unbindable, "`when: int` can't be filled"),
        (unannotated, "`question` has no annotation"),
        (undefined, "'Missing' is not defined"),
        (bad_default, "valid integer"),
        (starred, "name every parameter"),
        (silent, "no docstring"),
    ],
)
def test_what_cant_be_served_is_said_at_load_in_one_sentence(func: object, says: str):
    with pytest.raises(ProgramError, match=says) as caught:
        Program.of(sgl.function(func))
    assert caught.value.message.startswith(func.__name__)  # type: ignore[attr-defined]
    assert "\n" not in caught.value.message


def test_the_reserved_names_are_sglangs_own():
    assert {"stop", "n", "stream", "temperature", "backend", "max_new_tokens", "progress_bar"} <= RESERVED
    assert not {"effort", "language", "question", "image"} & RESERVED
