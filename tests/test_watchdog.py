"""A program that holds up the loop is named, and ended; the others go on."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sglang as sgl
from scripted_engine import Reply, ScriptedEngine
from serving import until

from gemma3n_sgl import assistant, offload, running, user
from gemma3n_sgl.endpoint import Gemma3nEndpoint
from gemma3n_sgl.errors import ProgramError
from gemma3n_sgl.program import Program
from gemma3n_sgl.running import Budget
from gemma3n_sgl.serving.watchdog import Watchdog


@sgl.function
def endless(s, question: str):
    """Count for ever."""
    count = 0
    while True:
        count += 1


@sgl.function
def stubborn(s, question: str):
    """Count for ever, and let nobody say no."""
    while True:
        try:
            while True:
                sum(range(100))
        except Exception:
            continue


@sgl.function
def asleep(s, question: str):
    """Sleep for long in the system."""
    time.sleep(20)
    s["answer"] = "done"


@sgl.function
def backtracking(s, question: str):
    """A pattern that takes for ever."""
    re.match(r"(a+)+$", "a" * 40 + "b")
    s["answer"] = "done"


@sgl.function
def patient(s, question: str):
    """A step, then an answer."""
    s += user(question)
    s += assistant(sgl.gen("step"))
    s += assistant(sgl.gen("answer"))


@sgl.function
def aside(s, question: str):
    """What takes long, done aside."""
    offload(time.sleep, 1.2)
    s["answer"] = "done"


PROGRAMS = [Program.of(f) for f in (endless, stubborn, asleep, backtracking, patient, aside)]
CODES = {program.function.func.__code__: program.name for program in PROGRAMS}


@pytest.fixture
async def watchdog(anyio_backend: str) -> Any:
    dog = Watchdog(CODES, 0.8)
    dog.start()
    yield dog
    dog.stop()


async def answer(engine: ScriptedEngine, function: Any, **budget: int) -> str:
    endpoint = Gemma3nEndpoint(engine.url)
    try:
        return (await running.run(Program.of(function), {"question": "x"}, endpoint, budget=Budget(**budget))).answer
    finally:
        await endpoint.client.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("function", [endless, stubborn, asleep, backtracking], ids=lambda f: f.func.__name__)
async def test_a_program_that_holds_up_the_loop_is_named_and_ended_and_others_go_on(
    scripted: ScriptedEngine, watchdog: Watchdog, caplog: pytest.LogCaptureFixture, function: Any
):
    scripted.script = Reply("one two three", delay=0.05)
    begin = time.monotonic()
    other = asyncio.ensure_future(answer(scripted, patient))
    await asyncio.sleep(0.1)
    with pytest.raises(ProgramError, match=rf"'{function.func.__name__}' held up all others for more than 0.8 s .*`offload`"):
        await answer(scripted, function)
    assert time.monotonic() - begin < 10  # of which it is told after the processor's 0.8 s, which a busy machine gives slowly
    assert await other == "one two three"
    told = [record.getMessage() for record in caplog.records]
    assert f"the program '{function.func.__name__}' was ended" in told[-1] and "of test_watchdog.py" in told[-1]
    if function is not backtracking:  # which keeps Python's lock, so that nobody can look on
        assert [f"the program '{function.func.__name__}' holds up all others" in told[0], "offload(fn, …)" in told[0]] == [True, True]
    assert await answer(scripted, patient) == "one two three", "nothing is broken"


@pytest.mark.slow
async def test_work_done_aside_holds_up_nobody(scripted: ScriptedEngine, watchdog: Watchdog, caplog: pytest.LogCaptureFixture):
    assert await answer(scripted, aside) == "done"
    assert caplog.records == [] and not watchdog.held_up


@pytest.mark.slow
async def test_the_server_itself_is_never_interrupted(watchdog: Watchdog, caplog: pytest.LogCaptureFixture):
    time.sleep(1.5)  # noqa: ASYNC251 - in the loop, and no program
    await asyncio.sleep(0)
    assert ["the server is held up" in record.getMessage() for record in caplog.records] == [True]


def test_a_loop_beside_the_main_thread_has_its_programs_named_but_not_ended(scripted: ScriptedEngine, caplog: pytest.LogCaptureFixture):
    @sgl.function
    def dozing(s, question: str):
        """Sleep a little too long."""
        time.sleep(1)
        s["answer"] = "done"

    async def watched() -> str:
        dog = Watchdog({dozing.func.__code__: "dozing"}, 0.6)
        dog.start()
        try:
            return await answer(scripted, dozing)
        finally:
            dog.stop()

    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(asyncio.run(watched())))
    thread.start()
    thread.join(5)
    assert said == ["done"] and "the program 'dozing' holds up all others" in caplog.text


# What ends by its budget


@sgl.function
def splitting(s, question: str):
    """Fork without end."""
    while True:
        s.fork(100)


@sgl.function
def splitting_forks(s, question: str):
    """Forks of forks of forks."""
    def split(s: Any) -> None:
        for fork in s.fork(2):
            split(fork)

    split(s)


@sgl.function
def writing(s, question: str):
    """Write without end."""
    while True:
        s += "All work and no play makes Jack a dull boy. " * 1000


@sgl.function
def doubling(s, question: str):
    """Forks that each have a copy of a long text."""
    s += "x" * 100_000
    while True:
        s.fork(10)


@sgl.function
def shouting(s, question: str):
    """One variable that is all too long."""
    s["answer"] = "x" * 10_000_000


@sgl.function
def asking(s, question: str):
    """Ask without end."""
    while True:
        s += assistant(sgl.gen("step"))


@sgl.function
def deep(s, question: str):
    """Call itself."""
    def again(depth: int) -> int:
        return again(depth + 1) + 1

    again(0)


@sgl.function
def silent(s, question: str):
    """Say nothing."""


@sgl.function
def retrying(s, question: str):
    """Ask again whatever happens."""
    while True:
        try:
            s += assistant(sgl.gen("step"))
        except Exception:
            continue


ENDED = [
    (splitting, "more than 50 forks"),
    (splitting_forks, "(more than 50 forks|RecursionError)"),
    (writing, "more than 1000000 characters"),
    (doubling, "(more than 1000000 characters|more than 50 forks)"),
    (shouting, "more than 1000000 characters"),
    (asking, "more than 20 engine calls"),
    (retrying, "more than 20 engine calls"),
    (deep, "RecursionError"),
    (silent, "without an `answer`"),
]


@pytest.mark.parametrize(("function", "says"), ENDED, ids=[f.func.__name__ for f, _ in ENDED])
async def test_a_program_without_end_is_ended_by_its_budget_and_others_dont_notice(scripted: ScriptedEngine, function: Any, says: str):
    scripted.script = Reply("one two three", delay=0.01)
    other = asyncio.ensure_future(answer(scripted, patient))
    with pytest.raises(ProgramError, match=f"The program '{function.func.__name__}' .*{says}"):
        await answer(scripted, function, calls=20, forks=50, text=1_000_000)
    assert await other == "one two three"
    until(lambda: scripted.open == 0)


# What would end more than itself


def raises(error: BaseException, *, in_a_fork: bool) -> Any:
    class Text(str):
        def __str__(self) -> str:
            raise error

    @sgl.function
    def program(s, question: str):
        """Raise what is no Exception."""
        if in_a_fork:
            forks = s.fork(2)
            forks += Text("x")
            forks.join()
        raise error

    return program


class Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")

    __repr__ = __str__


ENDS = [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), BaseExceptionGroup("x", [SystemExit()])]
ODD = [*ENDS, MemoryError(), Speechless()]


@pytest.mark.parametrize("in_a_fork", [False, True], ids=["in itself", "in a fork"])
@pytest.mark.parametrize("error", ODD, ids=lambda error: type(error).__name__)
async def test_whatever_a_program_raises_ends_its_own_run_alone(scripted: ScriptedEngine, error: BaseException, in_a_fork: bool):
    scripted.script = Reply("one two three", delay=0.01)
    other = asyncio.ensure_future(answer(scripted, patient))
    with pytest.raises(ProgramError, match=type(error).__name__):
        await answer(scripted, raises(error, in_a_fork=in_a_fork))
    assert await other == "one two three"


@sgl.function
def carefree(s, question: str):
    """Go on, whatever happened."""
    for i in range(5):
        try:
            s += sgl.gen(f"step{i}")
        except:  # noqa: E722 - what programs of strangers do
            s["missed"] = str(i)
    s["answer"] = "done"


async def test_a_program_that_catches_its_own_cancellation_asks_the_engine_for_no_more(scripted: ScriptedEngine):
    scripted.script = Reply("one two three", delay=0.05)
    run = asyncio.ensure_future(answer(scripted, carefree))
    await asyncio.to_thread(until, lambda: scripted.open == 1)
    run.cancel()
    await asyncio.wait({run})
    await asyncio.sleep(0.1)
    assert scripted.open == 0 and len(scripted.requests) == 1


@pytest.fixture(autouse=True)
def no_task_is_left(scripted: ScriptedEngine) -> Iterator[None]:
    yield
    until(lambda: scripted.open == 0)
