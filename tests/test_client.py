"""`Gemma` where Python is used as people use it: in threads, within a program, left early, ended by Ctrl-C, in a child of the process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

import pytest
import sglang as sgl
from scripted_engine import Reply, ScriptedEngine
from serving import until

from gemma3n_sgl import Conversation, Turn, assistant, connect, user
from gemma3n_sgl.bridge import background
from gemma3n_sgl.client import Gemma
from gemma3n_sgl.errors import InvalidValue
from gemma3n_sgl.events import Delta


@sgl.function
def chat(s, text: str):
    """Answer."""
    s += user(text)
    s += assistant(sgl.gen("answer"))


@pytest.fixture
def gemma(scripted: ScriptedEngine) -> Gemma:
    return connect(scripted.url)


def in_time(call: Callable[[], Any]) -> Any:
    """What `call()` returns, in a thread that may hang."""
    came: list[Any] = []
    thread = threading.Thread(target=lambda: came.append(call()), daemon=True)
    thread.start()
    thread.join(20)
    assert came, "it hangs, or has failed"
    return came[0]


def test_a_program_may_run_another_one(scripted: ScriptedEngine, gemma: Gemma):
    @sgl.function
    def outer(s, text: str):
        """Ask another program, and leave a third."""
        s["first"] = gemma.run(chat, text).answer
        for event in gemma.stream(chat, text):
            s["begins"] = event.text
            break
        s["answer"] = s["first"].upper()

    scripted.script = Reply("a fox")
    assert in_time(lambda: gemma.run(outer, "Hello!").answer) == "A FOX"
    assert in_time(lambda: gemma.run(chat, "Hello!").answer) == "a fox"
    until(lambda: scripted.open == 0)


def test_a_stream_that_was_left_may_be_collected_where_the_loop_runs(scripted: ScriptedEngine, gemma: Gemma):
    scripted.script = Reply("a b c d e f", delay=0.05)
    events = gemma.stream(chat, "Hello!")
    next(events)
    last = [events]
    del events
    background().loop.call_soon_threadsafe(last.clear)
    until(lambda: not last and scripted.open == 0)
    scripted.script = Reply("still there")
    assert in_time(lambda: gemma.run(chat, "Hello!").answer) == "still there"


def test_ctrl_c_ends_a_stream_in_the_engine_too_and_is_no_other_error(scripted: ScriptedEngine, gemma: Gemma):
    scripted.script = Reply("a b c d e f g h i j", delay=0.3)
    events = gemma.stream(chat, "Hello!")
    assert isinstance(next(events), Delta)
    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        next(events)
    until(lambda: scripted.open == 0)
    assert scripted.cut == 1


def test_a_child_of_the_process_runs_programs_too(scripted: ScriptedEngine, gemma: Gemma):
    scripted.script = Reply("yes")
    assert gemma.run(chat, "Hello!").answer == "yes"
    said = get_context("fork").Queue()
    child = get_context("fork").Process(target=lambda: said.put(gemma.run(chat, "Hello!").answer))
    child.start()
    assert said.get(timeout=20) == "yes"
    child.join(20)
    assert child.exitcode == 0 and gemma.run(chat, "Hello!").answer == "yes"


def test_a_conversation_is_given_alone(gemma: Gemma):
    talk = Conversation((Turn("user", ("I am Ann.",)),), system="Be kind.")
    for more in (["And now?"], [talk]):
        with pytest.raises(InvalidValue, match="given alone"):
            gemma.run(chat, talk, *more)
