"""Texts of clips, heard in order, as one running text, told as soon as nothing that comes later can change it.

Where one clip's sound begins with the last moments of the one before, both texts hold the words said there, and at their ends perhaps one that
was cut in two. `seam` finds the longest run of words they share there: the first text is kept to its middle, where the clips were cut, and the
second goes on from there. So a word is told once, and in the version of a clip in which it is whole: at most two words of either text stand
beyond the run, since a cut word is heard as two at most. Of runs that are as long as each other that one counts beyond which the fewest stand:
what is said twice in a row, at the very border, is told twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable

HELD = 16
"""Words of two seconds of the fastest speech, which are held back where the next clip repeats them."""

_STRAY = 2
_WIDE = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_WIDE}]|[^\W{_WIDE}]+(?:['’.,-][^\W{_WIDE}]+)*")
"""A word, or a letter of a script that puts no spaces between words (Thai, Lao, Burmese, Khmer, Chinese, Japanese)."""

_NO_SPACE = re.compile(rf"[{_WIDE}，。、！？；：「」]")


def seam(before: str, after: str) -> tuple[int, int]:
    """How much of `before` is kept, and where `after` goes on, in characters: all and 0 where they share nothing."""
    left, right = list(_WORD.finditer(before))[-HELD:], list(_WORD.finditer(after))[:HELD]
    best, found = (0, 0), (len(before), 0)
    for i in range(len(left)):
        for j in range(min(_STRAY + 1, len(right))):
            run = _run(left[i:], right[j:])
            stray = len(left) - i - run
            if (run, -stray - j) > best and run and stray <= _STRAY:
                half = (run - 1) // 2
                best, found = (run, -stray - j), (left[i + half].end(), right[j + half].end())
    return found


def _run(left: list[re.Match[str]], right: list[re.Match[str]]) -> int:
    """How many words are the same from the beginning of both."""
    same = 0
    for a, b in zip(left, right, strict=False):
        if a[0].casefold() != b[0].casefold():
            break
        same += 1
    return same


def go_on(told: str, again: str) -> str:
    """What `again`, a second try at a text of which `told` is told already, adds to it."""
    if again.startswith(told):
        return again[len(told) :]
    words, count = list(_WORD.finditer(again)), len(_WORD.findall(told))
    return again[words[count - 1].end() :] if 0 < count < len(words) else "" if count else again


class Joiner:
    """Takes the text of each part piece by piece and tells the whole; `done` is called with each part's own text, when that is certain.

        joiner.begin(repeats=False, runs_on=True, done=…); joiner.add("Once up"); joiner.add("on a time"); joiner.end(); …; joiner.close()
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._parts: list[_Part] = []
        self._last = ""

    def begin(self, *, repeats: bool, runs_on: bool, done: Callable[[str], None]) -> None:
        if self._parts and not repeats:
            self.close()
        self._parts.append(_Part(runs_on, done, matched=not self._parts))

    def add(self, text: str) -> None:
        """A piece of the part that was begun last."""
        part = self._parts[-1]
        part.waiting += text
        if part.matched or len(_WORD.findall(part.waiting)) > HELD:
            self._match()
            self._flow(part, HELD if part.runs_on else 0)

    def end(self) -> None:
        """The part that was begun last is whole."""
        if self._parts[-1].runs_on:
            self._match()
            self._flow(self._parts[-1], HELD)
        else:
            self.close()

    def fail(self, instead: str) -> None:
        """The part that was begun last does not become whole: `instead` is told in place of all of it that is not told yet."""
        part = self._parts[-1]
        part.waiting = ""
        self._match()
        part.waiting = f" {instead}"
        self.close()

    def close(self) -> None:
        """Nothing that comes repeats what was said so far."""
        if self._parts:
            self._match()
            self._finish(self._parts.pop())

    def _finish(self, part: _Part) -> None:
        self._flow(part, 0)
        part.done(part.said)

    def _match(self) -> None:
        """Take out of the last part, if that is still to do, what the one before has told."""
        if self._parts[-1].matched:
            return
        before, part = self._parts.pop(0), self._parts[-1]
        kept, goes_on = seam(before.waiting, part.waiting)
        end = re.compile(r"[^\w\s]*").match(part.waiting, goes_on) if goes_on else None
        before.waiting = before.waiting[:kept] + (end[0] if end else "")
        part.waiting = part.waiting[end.end() if end else 0 :]
        part.matched = True
        self._finish(before)

    def _flow(self, part: _Part, held: int) -> None:
        """Tell what waits in a part, but for its last words; white space only before something else."""
        words = list(_WORD.finditer(part.waiting)) if held else []
        ready = part.waiting if not held else part.waiting[: words[-held].start()] if len(words) > held else ""
        ready = ready.rstrip() if part.said else ready.strip()
        if not ready:
            return
        part.waiting = part.waiting[part.waiting.index(ready) + len(ready) :]
        glue = "" if part.said or not self._last or (_NO_SPACE.match(self._last) and _NO_SPACE.match(ready)) else " "
        part.said += ready
        self._last = ready[-1]
        self._tell(glue + ready)


class _Part:
    def __init__(self, runs_on: bool, done: Callable[[str], None], *, matched: bool) -> None:
        self.runs_on, self.done, self.matched = runs_on, done, matched
        self.said = self.waiting = ""
