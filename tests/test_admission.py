"""Overload is told at once and fairly: what is under way keeps its pace, who asks for less comes first, and nobody is left out for ever."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from scripted_engine import Reply, ScriptedEngine
from serving import Served, serving, until, within

from gemma3n_sgl.errors import InvalidValue, Overloaded, ServerFull
from gemma3n_sgl.serving.admission import BEGIN_TOGETHER, Admission, Pace
from gemma3n_sgl.settings import Settings

CHAT = "/v1/chat/completions"
LONG = Reply("word " * 400, delay=0.05)
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4_000_000}}


def few(**settings: Any) -> Admission:
    return Admission(Settings(**({"max_runs": 2, "max_runs_per_key": 100, "max_queue": 100, "queue_timeout": 5} | settings)))


async def entered(admission: Admission, who: str, runs: int = 1) -> None:
    if (admitted := admission.admit(who, runs)) is not None:
        await admission.admitted(who, runs, admitted)


async def test_a_rush_begins_a_few_at_a_time_so_that_tokens_come_in_between():
    pace, begun = Pace(), list[int]()

    async def begin(number: int) -> None:
        await pace.begin()
        begun.append(number)

    tasks = [asyncio.ensure_future(begin(number)) for number in range(100)]
    tasks[50].cancel()
    left, most = 99, 0
    while left:
        await asyncio.sleep(0)
        most, left = max(most, left - (99 - len(begun))), 99 - len(begun)
    assert begun == [number for number in range(100) if number != 50] and most == BEGIN_TOGETHER


async def order_of(admission: Admission, waiting: list[tuple[str, int]], leaving: str) -> list[str]:
    """Who comes in, in order, where `leaving` gives its places back and each who came in does so too."""
    came: list[str] = []

    async def come(who: str, runs: int) -> None:
        await entered(admission, who, runs)
        came.append(who)
        await asyncio.sleep(0)
        admission.leave(who, runs)

    tasks = []
    for who, runs in waiting:
        tasks.append(asyncio.ensure_future(come(who, runs)))
        await asyncio.sleep(0)
    admission.leave(leaving)
    await asyncio.wait_for(asyncio.gather(*tasks), 30)
    return came


async def test_a_neighbour_with_a_thousand_requests_waits_behind_its_own():
    admission = few(max_runs=1, max_runs_per_key=2000, max_queue=2000)
    await entered(admission, "bad")
    came = await order_of(admission, [*[("bad", 1)] * 1000, ("good", 1), ("other", 1)], leaving="bad")
    assert set(came[:3]) == {"bad", "good", "other"} and len(came) == 1002
    assert (admission.running, admission.waiting) == (0, 0)


async def test_the_next_place_goes_to_whoever_has_the_fewest():
    admission = few()
    await entered(admission, "bad")
    await entered(admission, "bad")
    waits = [asyncio.ensure_future(entered(admission, who)) for who in ("bad", "good")]
    await asyncio.sleep(0)
    admission.leave("bad")
    await asyncio.sleep(0.01)
    assert [wait.done() for wait in waits] == [False, True]
    waits[0].cancel()
    await asyncio.wait(waits)
    assert (admission.running, admission.waiting) == (2, 0)


async def test_a_queue_that_one_neighbour_has_filled_still_has_room_for_others():
    admission = few(max_runs=1, max_queue=3)
    await entered(admission, "bad")
    waits = [asyncio.ensure_future(entered(admission, "bad")) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(ServerFull, match="GEMMA3N_MAX_QUEUE"):
        await entered(admission, "bad")
    good = asyncio.ensure_future(entered(admission, "good"))
    await asyncio.wait(waits, timeout=0.05)
    assert [wait.done() for wait in waits] == [False, False, True], "the last one of those who have the most is sent away"
    with pytest.raises(ServerFull):
        waits[2].result()
    for wait in (*waits, good):
        wait.cancel()
    await asyncio.wait({*waits, good})
    assert (admission.running, admission.waiting) == (1, 0)


async def test_a_wait_has_an_end_that_names_its_setting():
    admission = few(max_runs=1, queue_timeout=0.05)
    await entered(admission, "one")
    with pytest.raises(ServerFull, match=r"0\.05 s \(GEMMA3N_QUEUE_TIMEOUT\)"):
        await entered(admission, "two")
    admission.leave("one")
    await entered(admission, "two")
    assert (admission.running, admission.waiting) == (1, 0)


async def test_a_request_for_several_runs_needs_as_many_places_and_is_not_passed_by_for_ever():
    admission = few(max_runs=3)
    await entered(admission, "a")
    came = await order_of(admission, [("b", 3), ("a", 1), ("c", 1)], leaving="a")
    assert came[0] == "b"
    with pytest.raises(InvalidValue, match=r"4 runs at once.*GEMMA3N_MAX_RUNS\)"):
        await entered(admission, "a", 4)


@pytest.mark.parametrize("moment", ["waiting", "just admitted"])
async def test_who_is_cancelled_leaves_no_place_taken(moment: str):
    admission = few(max_runs=1)
    await entered(admission, "one")
    wait = asyncio.ensure_future(entered(admission, "two"))
    await asyncio.sleep(0)
    if moment == "just admitted":
        admission.leave("one")
    wait.cancel()
    await asyncio.wait({wait})
    assert wait.cancelled() and admission.running == (1 if moment == "waiting" else 0) and admission.waiting == 0


async def test_a_key_has_its_own_limit_whatever_is_free():
    admission = few(max_runs=100, max_runs_per_key=2)
    await entered(admission, "one", 2)
    with pytest.raises(Overloaded, match=r"2 runs under way, of 2 at once \(GEMMA3N_MAX_RUNS_PER_KEY\)"):
        await entered(admission, "one")
    await entered(admission, "two", 2)


# Over HTTP


@contextmanager
def under_way(served: Served, count: int, key: str = "none") -> Iterator[list[httpx.Response]]:
    """So many streams that go on until the block ends."""
    body = {"model": "gemma-3n", "messages": [{"role": "user", "content": "Hi."}], "stream": True}
    with ExitStack() as stack:
        headers = {"authorization": f"Bearer {key}"}
        client = stack.enter_context(httpx.Client(base_url=str(served.http.base_url), timeout=30, headers=headers, verify=False))
        yield [stack.enter_context(client.stream("POST", CHAT, json=body)) for _ in range(count)]


def refused_in(served: Served, **headers: str) -> tuple[httpx.Response, float]:
    """What a request with a picture is told, and after how many seconds."""
    body = json.dumps({"model": "gemma-3n", "messages": [{"role": "user", "content": [PICTURE]}]}).encode()
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n{more}\r\n".encode()
        begin = time.perf_counter()
        client.sendall(head + body[:1000])
        said = client.recv(65536)
        taken = time.perf_counter() - begin
        while b"}}" not in said:
            said += client.recv(65536)
    lines, _, content = said.partition(b"\r\n\r\n")
    status, *fields = lines.decode().split("\r\n")
    return httpx.Response(int(status.split()[1]), headers=[tuple(field.split(": ", 1)) for field in fields], content=content), taken


@pytest.mark.slow
def test_a_full_server_says_so_within_50_ms_before_it_has_the_body(scripted: ScriptedEngine):
    scripted.script = LONG
    with serving(Settings(runtime_url=scripted.url, max_runs=2, max_queue=0)) as served, under_way(served, 2):
        told, _ = refused_in(served)
        assert (told.status_code, told.json()["error"]["code"]) == (503, "server_full") and told.headers["retry-after"] == "5"
        assert "GEMMA3N_MAX_QUEUE" in told.json()["error"]["message"]
        within(0.05, lambda: refused_in(served)[1])
        assert served.http.get("/livez").status_code == 200 and served.http.get("/v1/models").status_code == 200
    with serving(Settings(runtime_url=scripted.url, max_runs=2, max_queue=0)) as served:
        scripted.script = Reply("Hello.")
        assert [served.ask().status_code for _ in range(3)] == [200, 200, 200], "each gives its place back"


def test_a_key_that_asks_for_too_much_at_once_is_told_and_others_are_not(scripted: ScriptedEngine):
    scripted.script = LONG
    settings = Settings(runtime_url=scripted.url, api_keys=("good", "bad"), max_runs_per_key=3)
    with serving(settings) as served, under_way(served, 3, key="bad"):
        told, _ = refused_in(served, authorization="Bearer bad")
        assert (told.status_code, told.json()["error"]["code"]) == (429, "overloaded") and told.headers["retry-after"] == "1"
        assert "GEMMA3N_MAX_RUNS_PER_KEY" in told.json()["error"]["message"]
        within(0.05, lambda: refused_in(served, authorization="Bearer bad")[1])
        scripted.script = Reply("Hello.")
        assert served.ask().status_code == 200


def test_several_answers_count_as_several_runs(scripted: ScriptedEngine):
    with serving(Settings(runtime_url=scripted.url, max_runs_per_key=3)) as served:
        assert served.ask(n=3).status_code == 200
        told = served.ask(n=4)
        assert told.status_code == 400 and "GEMMA3N_MAX_RUNS_PER_KEY" in told.json()["error"]["message"]
        assert told.json()["error"]["param"] == "n"


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"stop": ""}, {"model": "nobody"}], ids=["plain", "stream", "refused", "unknown"])
def test_one_who_asks_one_thing_after_the_other_needs_one_place(scripted: ScriptedEngine, fields: dict[str, Any]):
    """The place is free before the last word of an answer is out."""
    with serving(Settings(runtime_url=scripted.url, max_runs_per_key=1)) as served:
        assert 429 not in [served.ask(**fields).status_code for _ in range(30)]


@pytest.mark.slow
def test_who_waits_comes_in_when_somebody_leaves_with_all_that_was_sent_meanwhile(scripted: ScriptedEngine):
    scripted.script = LONG
    with serving(Settings(runtime_url=scripted.url, max_runs=1)) as served, ThreadPoolExecutor() as pool:
        with under_way(served, 1):
            waiting = [pool.submit(served.ask, text) for text in ("Hi.", "long " * 100_000)]
            time.sleep(0.2)
            assert len(scripted.requests) == 1 and not any(each.done() for each in waiting)
            scripted.script = Reply("Hello.")
        assert [each.result(30).status_code for each in waiting] == [200, 200]
        assert sorted(len(request["text"]) > 400_000 for request in scripted.requests[1:]) == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False], ids=["its request sent", "in the middle of its request"])
def test_who_leaves_while_it_waits_is_not_run(scripted: ScriptedEngine, whole: bool):
    scripted.script = LONG
    with serving(Settings(runtime_url=scripted.url, max_runs=1, max_queue=1)) as served, ThreadPoolExecutor(1) as pool:
        with under_way(served, 1):
            body = json.dumps({"model": "gemma-3n", "messages": [{"role": "user", "content": "Hi."}]}).encode()
            with socket.create_connection(("127.0.0.1", served.port)) as client:
                client.sendall(b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (CHAT.encode(), len(body) + (not whole)) + body)
                time.sleep(0.1)
                assert served.ask().status_code == 503, "the queue is full"
            time.sleep(0.1)
            other = pool.submit(served.ask)
            time.sleep(0.1)
            assert other.done() is not whole, "who is seen to leave makes room at once; in the middle of its request it can't be seen"
            scripted.script = Reply("Hello.")
        assert other.result(30).status_code == (200 if whole else 503)
        until(lambda: scripted.open == 0)
        assert served.ask().status_code == 200
        assert len(scripted.requests) == (3 if whole else 2)


@pytest.mark.slow
def test_five_hundred_at_once_are_all_answered(scripted: ScriptedEngine):
    scripted.script = Reply("A short answer.", delay=0.01)
    body = {"model": "gemma-3n", "messages": [{"role": "user", "content": "Hi."}]}

    async def ask_all(url: str) -> list[int]:
        async with httpx.AsyncClient(base_url=url, timeout=30, limits=httpx.Limits(max_connections=500)) as client:
            return [answer.status_code for answer in await asyncio.gather(*[client.post(CHAT, json=body) for _ in range(500)])]

    with serving(Settings(runtime_url=scripted.url)) as served:
        assert asyncio.run(ask_all(str(served.http.base_url))) == [200] * 500


@pytest.mark.slow
def test_what_is_under_way_keeps_its_pace_while_others_are_refused(scripted: ScriptedEngine):
    """A stream paced at 10 ms is not held up by 300 refusals: it takes hardly longer than by itself."""
    scripted.script = Reply("word " * 100, delay=0.01)
    with serving(Settings(runtime_url=scripted.url, max_runs=1, max_queue=0)) as served, ThreadPoolExecutor(1) as pool:

        def paced(refusals: int) -> float:
            begin = time.perf_counter()
            with under_way(served, 1) as streams:
                flood = pool.submit(lambda: [served.ask("x" * 10_000).status_code for _ in range(refusals)])
                lines = sum(1 for _ in streams[0].iter_lines())
                taken = time.perf_counter() - begin
                assert set(flood.result()) <= {503, 200} and lines > 100
            until(lambda: scripted.open == 0)
            return taken

        within(2 * paced(0) + 0.5, lambda: paced(300), tries=5)


def test_the_bodies_of_all_requests_together_are_bounded_and_free_again_at_their_end(scripted: ScriptedEngine):
    scripted.script = LONG
    half = {"model": "gemma-3n", "messages": [{"role": "user", "content": "x" * 600_000}], "stream": True}
    with serving(Settings(runtime_url=scripted.url, max_bodies_mb=1)) as served:
        with served.http.stream("POST", CHAT, json=half) as first:
            assert first.status_code == 200
            until(lambda: scripted.open == 1)
            refused = served.http.post(CHAT, json=half)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            assert "GEMMA3N_MAX_BODIES_MB" in refused.json()["error"]["message"]
        until(lambda: scripted.open == 0)
        for _ in range(3):
            with served.http.stream("POST", CHAT, json=half) as again:
                assert again.status_code == 200
            until(lambda: scripted.open == 0)
