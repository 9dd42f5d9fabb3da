"""Programs on the event loop: events in order, errors that arrive, cancelling that reaches the engine, tokens that are counted."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from contextlib import suppress
from typing import Any

import pytest
import sglang as sgl
from scripted_engine import Die, Hang, Reply, ScriptedEngine

from gemma3n_sgl import Conversation, Gemma3nEndpoint, Image, assistant, offload, running, user
from gemma3n_sgl.errors import ContextLengthExceeded, EngineError, EngineTimeout, EngineUnavailable, InvalidValue, ProgramError, RunTimeout
from gemma3n_sgl.events import Delta, Done, Event, Step, Usage
from gemma3n_sgl.program import Program
from gemma3n_sgl.running import Budget
from gemma3n_sgl.sampling import Sampling
from gemma3n_sgl.transport import Deadlines, EngineStream

PICTURE = Image(b"picture", width=1, height=1, media_type="image/png")


@sgl.function
def two_steps(s, question: str):
    """Think, then answer."""
    s += user("think: ", question)
    s += assistant(sgl.gen("thought", max_tokens=5))
    s += user("answer: ", question)
    s += assistant(sgl.gen("answer"))


@sgl.function
def forked(s, question: str, size: int = 4):
    """Ask side by side, then answer from it."""
    s += user("shared " + question)
    s += assistant("I see.")
    forks = s.fork(size)
    for i, fork in enumerate(forks):
        fork += user(f"part {i}")
        fork += assistant(sgl.gen("draft", temperature=0))
    forks.join()
    s += user("all: " + " ".join(s["draft"]))
    s += assistant(sgl.gen("answer"))


async def events(engine: ScriptedEngine, function: Any, question: str = "hi", **values: Any) -> list[Event]:
    sampling, budget = values.pop("sampling", None), values.pop("budget", None)
    endpoint = Gemma3nEndpoint(engine.url, deadlines=values.pop("deadlines", None))
    program = Program.of(function, file_doc="A program.")
    arguments = program.bind(Conversation.of(question), values)
    try:
        return [event async for event in running.stream(program, arguments, endpoint, sampling, budget)]
    finally:
        await endpoint.client.aclose()


async def test_steps_come_first_then_the_answer_piece_by_piece_then_its_end(scripted: ScriptedEngine):
    scripted.script = {"answer:": Reply("It is done.", delay=0.01), "think:": Reply("Let me see")}
    *said, done = await events(scripted, two_steps)
    assert said[0] == Step("thought", "Let me see")
    assert all(isinstance(event, Delta) for event in said[1:]) and len(said) > 2
    assert "".join(event.text for event in said[1:]) == "It is done."  # type: ignore[union-attr]
    assert isinstance(done, Done) and (done.answer, done.finish_reason) == ("It is done.", "stop")
    assert done.variables["thought"] == "Let me see"


async def test_a_token_is_told_where_it_arrives_and_wakes_no_program(scripted: ScriptedEngine, monkeypatch: pytest.MonkeyPatch):
    woken = []
    plain_next = EngineStream.next

    async def counted(stream: EngineStream) -> list[bytes]:
        woken.append(stream)
        return await plain_next(stream)

    monkeypatch.setattr(EngineStream, "next", counted)
    scripted.script = Reply("word " * 40, delay=0.003)
    *said, done = await events(scripted, two_steps)
    assert len(said) > 20 and isinstance(done, Done) and done.answer == "word " * 40
    assert len(woken) <= 2 * 6, "for the first tokens of two calls, by which the form of the stream is known, and for their ends"


@pytest.mark.parametrize("incremental", [False, True])
async def test_cumulative_and_incremental_streams_say_the_same(scripted: ScriptedEngine, incremental: bool):
    scripted.incremental = incremental
    scripted.script = Reply(("a", "a", "a", "ab", "", "a", "<end_of", "_turn>", " ", "🙂"))
    done = (await events(scripted, two_steps))[-1]
    assert isinstance(done, Done) and done.answer == "aaaaba<\u200bend_of_turn> 🙂"


async def test_usage_is_counted_over_all_steps_and_steps_are_reasoning(scripted: ScriptedEngine):
    meta = {"prompt_tokens": 10, "cached_tokens": 4, "image_tokens": 2, "audio_tokens": 1}
    scripted.script = {"answer:": Reply("one two three", meta=meta), "think:": Reply("one two", meta=meta)}
    done = (await events(scripted, two_steps))[-1]
    assert done.usage == Usage(20, 7, reasoning_tokens=3, cached_tokens=8, image_tokens=4, audio_tokens=2)  # type: ignore[union-attr]


async def test_forks_run_side_by_side_and_their_steps_come_in_the_programs_order(scripted: ScriptedEngine):
    at_once = []

    def script(prompt: str) -> Reply:
        at_once.append(scripted.open)
        return Reply(f"draft {prompt[-30]}" if "part" in prompt else "end", delay=0.15 if "part" in prompt else 0)

    scripted.script = script
    *said, done = await events(scripted, forked, "much to share " * 100)
    assert max(at_once) == 4
    assert [event.name for event in said if isinstance(event, Step)] == ["draft"] * 4
    assert done.variables["draft"] == [event.text for event in said if isinstance(event, Step)]  # type: ignore[union-attr]
    shared = scripted.requests[0]["text"]
    assert all(request["text"].startswith(shared) for request in scripted.requests), "forks and answer share the prefix byte for byte"


async def test_parameters_reach_the_calls_they_are_for(scripted: ScriptedEngine):
    scripted.script = Reply("x")
    await events(
        scripted,
        forked,
        size=1,
        sampling=Sampling(temperature=0.3, top_k=7, seed=5, presence_penalty=0.5, repetition_penalty=1.1, max_tokens=9, stop=("END",)),
    )
    draft, answer = (request["sampling_params"] for request in scripted.requests[-2:])
    assert (draft["temperature"], answer["temperature"]) == (0, 0.3), "a call's own value wins"
    for params in (draft, answer):
        assert (params["top_k"], params["sampling_seed"], params["presence_penalty"], params["repetition_penalty"]) == (7, 5, 0.5, 1.1)
    assert (draft["max_new_tokens"], draft["stop"]) == (None, []), "limits and stops are for the answer alone"
    assert (answer["max_new_tokens"], answer["stop"], answer["no_stop_trim"]) == (9, ["END"], True)


async def test_without_a_word_gemmas_own_sampling_holds_and_no_length_is_hidden(scripted: ScriptedEngine):
    await events(scripted, two_steps)
    params = scripted.requests[-1]["sampling_params"]
    assert (params["temperature"], params["top_k"], params["top_p"], params["min_p"]) == (1.0, 64, 0.95, 0.0)
    assert params["max_new_tokens"] is None


async def test_sampling_that_the_engine_was_started_to_prefer_comes_before_gemmas(scripted: ScriptedEngine):
    scripted.info["preferred_sampling_params"] = {"temperature": 0.1, "top_k": 3}
    await events(scripted, two_steps, sampling=Sampling(top_k=5))
    params = scripted.requests[-1]["sampling_params"]
    assert (params["temperature"], params["top_k"], params["top_p"]) == (0.1, 5, 0.95)


async def test_the_answer_ends_before_a_stop_string(scripted: ScriptedEngine):
    scripted.script = {"answer:": Reply(("I sa", "y EN", "D and", " more")), "think:": Reply("END")}
    *said, done = await events(scripted, two_steps, sampling=Sampling(stop=("END",)))
    assert done.answer == "I say " == "".join(event.text for event in said if isinstance(event, Delta))  # type: ignore[union-attr]
    assert done.variables["thought"] == "END", "a step is not cut"  # type: ignore[union-attr]


async def test_a_cut_off_answer_says_so(scripted: ScriptedEngine):
    scripted.script = Reply("one two", finish={"type": "length", "length": 2})
    assert (await events(scripted, two_steps))[-1].finish_reason == "length"  # type: ignore[union-attr]


@sgl.function
def by_choice(s, question: str):
    """Choose."""
    s += user(question) + sgl.assistant(sgl.select("answer", choices=["red", "blue"]))


@sgl.function
def by_setting(s, question: str):
    """Set."""
    s += user(question) + assistant(sgl.gen("draft"))
    s["answer"] = s["draft"].upper()


@sgl.function
def by_joining(s, question: str):
    """Join."""
    forks = s.fork(2)
    forks += user(question)
    forks += assistant(sgl.gen("answer"))
    forks.join()


@sgl.function
def by_scope(s, question: str):
    """A part of the text."""
    s += user(question)
    s += sgl.assistant_begin()
    with s.var_scope("answer"):
        s += "It is: "
        s += sgl.gen("inner")
    s += sgl.assistant_end()


@pytest.mark.parametrize(("function", "answer"), [(by_choice, "blue"), (by_setting, "BLUE"), (by_joining, "blue\nblue"), (by_scope, "It is: blue")])
async def test_the_answer_is_the_variable_however_it_came_about(scripted: ScriptedEngine, function: Any, answer: str):
    scripted.script = Reply("blue")
    *said, done = await events(scripted, function)
    assert done.answer == answer == "".join(event.text for event in said if isinstance(event, Delta))  # type: ignore[union-attr]


@pytest.mark.parametrize("function", [by_choice, by_setting, by_joining, by_scope])
async def test_a_demand_that_only_one_call_can_keep_is_refused_where_there_are_several(scripted: ScriptedEngine, function: Any):
    scripted.script = Reply("blue")
    with pytest.raises(InvalidValue, match="can't be held to `response_format`"):
        await events(scripted, function, sampling=Sampling(form={"regex": "red"}))


async def test_an_answer_without_text_is_held_to_what_was_asked_all_the_same(scripted: ScriptedEngine):
    scripted.script = Reply("")
    *_, done = await events(scripted, two_steps, sampling=Sampling(form={"regex": "(red)?"}))
    assert isinstance(done, Done) and done.answer == ""


async def test_several_answers_of_one_call_are_refused_and_not_mixed(scripted: ScriptedEngine):
    @sgl.function
    def several(s, question: str):
        """Ask for two."""
        s += user(question)
        s += assistant(sgl.gen("answer", n=2))

    with pytest.raises(ProgramError, match=r"Use s.fork\(n\)"):
        await events(scripted, several)
    assert scripted.requests == []


@sgl.function
def without_answer(s, question: str):
    """None."""
    s += user(question) + assistant(sgl.gen("other"))


@sgl.function
def answers_twice(s, question: str):
    """Twice."""
    s += user(question) + assistant(sgl.gen("answer"))
    s["answer"] = s["answer"].strip()


@sgl.function
def failing(s, question: str):
    """Fails in its body."""
    s += user(question) + assistant(sgl.gen("answer"))
    raise ValueError("secret detail")


@sgl.function
def endless(s, question: str):
    """Never ends."""
    while True:
        s += user(question) + assistant(sgl.gen("again"))


@sgl.function
def forgotten_fork(s, question: str):
    """A fork that fails and is never looked at."""
    fork = s.fork(1)[0]
    fork += user("fail")
    fork += assistant(sgl.gen("x"))
    s += user(question) + assistant(sgl.gen("answer"))


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (without_answer, "'without_answer' ended without an `answer`"),
        (answers_twice, "`answer` twice"),
        (failing, "'failing' failed with ValueError"),
        (endless, "'endless' made more than 20 engine calls"),
    ],
)
async def test_a_programs_own_faults_are_told_by_name_and_without_details(scripted: ScriptedEngine, function: Any, says: str):
    with pytest.raises(ProgramError, match=says) as caught:
        await asyncio.wait_for(events(scripted, function, budget=Budget(calls=20)), 30)
    assert "secret" not in caught.value.message


async def test_a_run_has_a_time_limit(scripted: ScriptedEngine):
    scripted.script = Reply("a b c d e f g h", delay=0.2)
    with pytest.raises(RunTimeout, match=r"0\.3 s"):
        await events(scripted, two_steps, budget=Budget(seconds=0.3))
    await until(lambda: scripted.open == 0)


SAID = "The input (9 tokens) is longer than the model's context length (4 tokens)."
TOO_LONG = Reply("x", finish={"type": "abort", "status_code": 400, "message": SAID})


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply("a b c", fault=Die(after=1)), EngineError),
        (Reply(fault=Die()), EngineError),
        (Reply("a b", fault=Hang(after=1)), EngineTimeout),
        (Reply(fault=Hang()), EngineTimeout),
        (TOO_LONG, ContextLengthExceeded),
    ],
)
@pytest.mark.parametrize("function", [two_steps, forked, by_joining, forgotten_fork])
async def test_an_engine_error_anywhere_reaches_the_caller(scripted: ScriptedEngine, function: Any, reply: Reply, error: type[Exception]):
    scripted.script = {"part 2": reply, "fail": reply, "think": reply, "": Reply("fine")} if function is not by_joining else reply
    with pytest.raises(error):
        await asyncio.wait_for(events(scripted, function, deadlines=Deadlines(1, 0.3, 0.3) if error is EngineTimeout else Deadlines()), 30)
    await until(lambda: scripted.open == 0)


@sgl.function
def careful(s, question: str):
    """Answer, or apologise."""
    s += user(question)
    try:
        s += assistant(sgl.gen("answer"))
    except EngineError:
        s["answer"] = "Sorry."


@pytest.mark.parametrize("begin", ["A", "<"], ids=["told by the program", "held back until all goes straight"])
async def test_what_is_told_of_an_answer_is_not_told_over_where_a_program_makes_another_of_it(scripted: ScriptedEngine, begin: str):
    scripted.script = Reply((begin, "b", ">bold", " text", " more"), delay=0.01, fault=Die(after=5))
    *said, done = await events(scripted, careful)
    assert "".join(event.text for event in said) == begin + "b>bold text more"  # type: ignore[union-attr]
    assert isinstance(done, Done) and done.answer == "Sorry."


async def test_an_engine_that_is_not_there_is_said_so(scripted: ScriptedEngine):
    scripted.refuse()
    with pytest.raises(EngineUnavailable, match="can't be reached"):
        await events(scripted, two_steps)


@pytest.mark.parametrize("function", [two_steps, forked])
async def test_leaving_a_run_frees_the_engine_at_once(scripted: ScriptedEngine, function: Any):
    scripted.script = lambda prompt: Reply("a b c d e f g h", delay=1)
    task = asyncio.create_task(events(scripted, function))
    await until(lambda: scripted.open >= (4 if function is forked and len(scripted.requests) > 1 else 1))
    await asyncio.sleep(0.1)
    under_way = scripted.open
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: scripted.open == 0)
    assert scripted.cut == under_way


async def test_leaving_a_stream_in_the_middle_frees_the_engine(scripted: ScriptedEngine):
    scripted.script = Reply("a b c d e f g h", delay=0.1)
    endpoint, program = Gemma3nEndpoint(scripted.url), Program.of(by_setting)
    stream = running.stream(program, {"question": "x"}, endpoint)
    getting = asyncio.ensure_future(anext(stream))
    await until(lambda: scripted.open == 1)
    getting.cancel()
    await asyncio.gather(getting, return_exceptions=True)
    await stream.aclose()  # type: ignore[attr-defined]
    await until(lambda: scripted.open == 0)
    await endpoint.client.aclose()


async def test_a_fault_of_ours_where_a_token_is_taken_is_not_told_as_the_engines(scripted: ScriptedEngine):
    scripted.script = Reply("word " * 40, delay=0.003)
    endpoint = Gemma3nEndpoint(scripted.url)
    told: list[str] = []

    def straight(text: str) -> bool:
        told.append(text)
        if len(told) == 9:
            raise RuntimeError
        return True

    program = Program.of(two_steps, file_doc="A program.")
    with pytest.raises(ProgramError, match="failed with RuntimeError"):
        await running.run(program, program.bind(Conversation.of("hi"), {}), endpoint, tell=lambda event: None, straight=straight)
    await endpoint.client.aclose()


@sgl.function
def bitter(s, question: str):
    """Answer, and fail when left."""
    try:
        s += user(question)
        s += assistant(sgl.gen("answer"))
    except BaseException:
        raise ValueError from None


async def test_an_error_of_a_run_whose_reader_has_left_is_nobodys_and_no_news(scripted: ScriptedEngine):
    scripted.script = Reply("word " * 400, delay=0.003)
    endpoint = Gemma3nEndpoint(scripted.url)
    program = Program.of(bitter, file_doc="A program.")
    news: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: news.append(context))
    stream = running.stream(program, program.bind(Conversation.of("hi"), {}), endpoint)
    await anext(stream)
    await stream.aclose()
    del stream
    gc.collect()
    assert not news
    await endpoint.client.aclose()


async def test_what_is_done_side_by_side_is_let_go_of_with_its_error():
    """Not when the garbage collector comes round: it may be a request with pictures."""

    async def fail(held: set[int]) -> None:
        await asyncio.sleep(0)
        raise EngineError("It broke.")

    held = {1}
    gone = weakref.ref(held)
    gc.disable()
    try:
        with suppress(EngineError):
            await running.side_by_side([fail(held), asyncio.sleep(1)])
        del held
        await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()


async def test_offloaded_work_leaves_the_loop_free(scripted: ScriptedEngine):
    """Two runs and the loop meet, while the work of each run waits for the others."""
    together = threading.Barrier(3)

    @sgl.function
    def slow(s, question: str):
        """Compute for long."""
        offload(together.wait, 30)
        s["answer"] = "done"

    await asyncio.gather(events(scripted, slow), events(scripted, slow), asyncio.to_thread(together.wait, 30))


async def until(true: Any, seconds: float = 30) -> None:
    """Wait for a condition, as an observer outside would."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about in time"
        await asyncio.sleep(0.01)
