"""The verb for text that is too long for a prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator

import sglang as sgl
from sglang.lang.interpreter import ProgramState

from gemma3n_sgl.language import assistant, user

MOST = 16_000
"""Bytes of UTF-8 that go into one prompt: some 4,000 tokens of English, 5,000 of Chinese, of the 32,768 there are."""

_ENDS = re.compile(r"(?<=[.!?…。！？])\s*|\n+|\s+")


def condensed(s: ProgramState, name: str, text: str, prompt: str, *, most: int = MOST) -> str:
    """`text` itself, if that has at most `most` bytes; else what `prompt` makes of its parts, asked side by side in forks of `s`.

    What comes of the parts, joined in order, is condensed again until it fits. Each part's is a step called `name`. Call it between turns.
    """
    while len(text.encode()) > most:
        parts = list(_parts(text, most))
        forks = s.fork(len(parts))
        for fork, part in zip(forks, parts, strict=True):
            fork += user(f"{prompt}\n\n", part)
            fork += assistant(sgl.gen(name, temperature=0, max_tokens=most // 32))
        made = [fork[name].strip() for fork in forks]
        for fork in forks:
            fork.stream_executor.end()
        text = "\n".join(made).encode()[: len(text.encode()) // 2].decode(errors="ignore")
    return text


def _parts(text: str, most: int) -> Iterator[str]:
    """Parts of at most `most` bytes, cut at the end of a line, a sentence or a word, where there is one in the second half."""
    data = text.encode()
    while len(data) > most:
        head = data[:most].decode(errors="ignore")
        ends = [match.end() for match in _ENDS.finditer(head, len(head) // 2)]
        lines, sentences = [end for end in ends if head[end - 1] == "\n"], [end for end in ends if head[:end].rstrip()[-1:] in ".!?…。！？"]
        at = (lines or sentences or ends or [len(head)])[-1]
        yield head[:at]
        data = data[len(head[:at].encode()) :]
    yield data.decode()
