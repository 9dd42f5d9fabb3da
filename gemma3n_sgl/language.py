"""Gemma 3n's template, and the verbs of a program: `user()`, `assistant()`, `image()`, `audio()`, `turns()`.

The prompts they make equal the checkpoint's own chat template byte for byte, without the `<bos>` that the engine adds itself. Whatever
text comes from outside is trimmed as the template trims it, and control tokens in it are neutralised.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sglang.lang.chat_template import ChatTemplate
from sglang.lang.ir import SglConstantText, SglExpr, SglExprList, SglImage, SglRoleBegin, SglRoleEnd

from gemma3n_sgl.bridge import offload
from gemma3n_sgl.conversation import Audio, Conversation, Image, Recording
from gemma3n_sgl.holdback import neutralise
from gemma3n_sgl.media import one_clip

IMAGE_TOKEN = "<image_soft_token>"
AUDIO_TOKEN = "<audio_soft_token>"

Item = str | Image | Audio | Recording | Any
"""What a turn is made of; Any stands for SGLang's expressions, which have no types."""


class _Template(ChatTemplate):
    """A system prompt has no turn of its own: it opens the first user turn."""

    def get_prefix_and_suffix(self, role: str, hist_messages: list[dict[str, Any]]) -> tuple[str, str]:
        if role == "user" and hist_messages and hist_messages[-1]["role"] == "system":
            return "", self.role_prefix_and_suffix["user"][1]
        return super().get_prefix_and_suffix(role, hist_messages)


TEMPLATE = _Template(
    name="gemma-3n",
    default_system_prompt=None,
    role_prefix_and_suffix={
        "system": ("<start_of_turn>user\n", "\n\n"),
        "user": ("<start_of_turn>user\n", "<end_of_turn>\n"),
        "assistant": ("<start_of_turn>model\n", "<end_of_turn>\n"),
    },
    image_token="",  # the verbs write the soft token themselves, behind the picture
    audio_token="",
)


class _SoftToken(SglConstantText):
    """The place of a picture or a clip in the prompt: the one control token that goes in as it is."""


def image(picture: Image) -> SglExprList:
    """A picture in a prompt (256 tokens)."""
    return SglExprList([SglImage(picture), _SoftToken(IMAGE_TOKEN)])


def audio(clip: Audio) -> SglExprList:
    """A clip of sound in a prompt (188 tokens, whatever its length)."""
    return SglExprList([SglImage(clip), _SoftToken(AUDIO_TOKEN)])


def user(*items: Item) -> SglExprList:
    """A turn of the user's: text, pictures, clips and expressions in order. Neighbouring texts are one text; each is trimmed."""
    return _turn("user", [part.strip() if isinstance(part, str) else part for part in _joined(items)])


def assistant(*items: Item) -> SglExprList:
    """A turn of the model's, usually `assistant(sgl.gen("answer"))`. Text is taken as it is, so that a prefix keeps its last space."""
    return _turn("assistant", list(_joined(items)))


def turns(conversation: Conversation) -> SglExprList:
    """All turns of a conversation, ready for the model's next."""
    exprs: list[SglExpr] = []
    system = neutralise(conversation.system) + "\n\n" if conversation.system else ""
    for i, turn in enumerate(conversation.turns):
        trimmed = [part.strip() if isinstance(part, str) else part for part in turn.parts]
        parts = list(_joined(trimmed))
        if i == 0 and system:
            parts = [SglConstantText(system), *parts]
        exprs.append(_turn(turn.role, parts))
    return SglExprList([part for expr in exprs for part in expr.expr_list])


def prompt_of(conversation: Conversation) -> str:
    """The whole prompt of a conversation, up to where the model's next turn begins."""
    written = []
    for part in turns(conversation).expr_list:
        if isinstance(part, SglRoleBegin | SglRoleEnd):
            written.append(TEMPLATE.role_prefix_and_suffix[part.role][isinstance(part, SglRoleEnd)])
        elif isinstance(part, SglConstantText):
            written.append(part.value)
    return "".join([*written, TEMPLATE.role_prefix_and_suffix["assistant"][0]])


def _turn(role: str, parts: list[str | SglExpr]) -> SglExprList:
    exprs = [SglConstantText(neutralise(part)) if isinstance(part, str) else part for part in parts]
    return SglExprList([SglRoleBegin(role), *exprs, SglRoleEnd(role)])


def _joined(items: Any) -> Iterator[str | SglExpr]:
    """Strings that stand side by side as one, so that no control token hides in a seam; media as expressions; lists laid flat."""
    text: list[str] = []
    for item in _flat(items):
        if isinstance(item, str):
            text.append(item)
        else:
            if text:
                yield "".join(text)
            text = []
            yield item
    if text:
        yield "".join(text)


def _flat(items: Any) -> Iterator[str | SglExpr]:
    for item in items:
        if isinstance(item, str):
            yield item
        elif isinstance(item, Image):
            yield from image(item).expr_list
        elif isinstance(item, Audio):
            yield from audio(item).expr_list
        elif isinstance(item, Recording):
            yield from audio(offload(one_clip, item)).expr_list
        elif isinstance(item, SglExprList):
            yield from _flat(item.expr_list)
        elif type(item) is SglConstantText:
            yield item.value
        elif isinstance(item, SglExpr):
            yield item
        else:
            raise TypeError(f"a turn takes text, Image, Audio, Recording and SGLang expressions, not {type(item).__name__}")
