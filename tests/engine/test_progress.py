"""Steps are told: as lines in a log, as a line that lives on a terminal."""

from __future__ import annotations

import errno
import io
import re
import time

import pytest
from rich.console import Console

from gemma3n_sgl.engine import Progress


def test_in_a_log_a_step_is_two_plain_lines(progress: Progress, told: io.StringIO) -> None:
    with progress.step("Loading [it]") as note:
        note("half")
    assert told.getvalue() == "Loading [it] …\nLoading [it]: done in 0 s\n"


def test_a_step_that_fails_is_not_called_done(progress: Progress, told: io.StringIO) -> None:
    with pytest.raises(ValueError, match="x"), progress.step("Loading"):
        raise ValueError("x")
    assert "done" not in told.getvalue()


@pytest.mark.slow
def test_on_a_terminal_there_is_a_sign_of_life_at_least_every_two_seconds() -> None:
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=True, width=100)).step("Loading") as note:
        note("a [very] long line " + "x" * 200)
        time.sleep(0.5)
        before = len(out.getvalue())
        time.sleep(1.1)
        lively = out.getvalue()[before:]
    assert "0:00:01" in lively
    assert "a [very] long line" in lively
    assert max(len(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)) for line in lively.splitlines()) <= 100


class Gone(io.StringIO):
    """A terminal that was closed."""

    asked = 0

    def write(self, text: str) -> int:
        self.asked += 1
        raise OSError(errno.EIO, "Input/output error")


def test_what_nobody_reads_any_more_is_no_error() -> None:
    """Else the thread that starts a dead engine again would end with the terminal."""
    Progress(Console(file=(gone := Gone()))).say("It has died.")
    assert gone.asked
