"""HTTP as engines and what stands before them speak it, well and badly: no answer is cut short, mixed up with another, or waited for without end."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gemma3n_sgl import connections
from gemma3n_sgl.connections import BrokenOff, Connection, ConnectionFailed, Pool

CERTIFICATE = Path(__file__).with_name("localhost.pem")
"""Of a server called localhost, signed by itself; made for these tests alone."""

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(peer: Peer, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The address of a server that treats each connection so."""
    tasks: set[asyncio.Future[None]] = set()

    async def treat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(peer(reader, writer))
        tasks.add(task)
        await asyncio.wait({task})
        writer.close()

    server = await asyncio.start_server(treat, "127.0.0.1", 0, ssl=tls)
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"http{'s' if tls else ''}://127.0.0.1:{port}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def saying(*pieces: bytes, stays: bool = True, pause: float = 0.01) -> Peer:
    """Answers each request with these, one after the other."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await request_of(reader):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
            if not stays:
                return

    return peer


async def request_of(reader: asyncio.StreamReader) -> bytes:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return head + await reader.readexactly(int(length or 0))


async def whole(answer: Connection) -> bytes:
    pieces = []
    while piece := await answer.read():
        pieces.append(piece)
    return b"".join(pieces)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - what is looked at is no event
            await asyncio.sleep(0.005)


async def get(pool: Pool, path: str = "/") -> tuple[int, bytes]:
    answer = await pool.asked("GET", path)
    said = await whole(answer)
    pool.give_back(answer)
    return answer.status, said


@asynccontextmanager
async def pool_before(peer: Peer, headers: dict[str, str] | None = None, timeout: float = 2) -> AsyncIterator[Pool]:
    async with listening(peer) as url:
        pool = Pool(url, headers or {}, timeout)
        yield pool
        await pool.aclose()


@pytest.mark.parametrize(
    "pieces",
    [
        [OK],
        [OK[i : i + 1] for i in range(len(OK))],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n", b"1\r\nk\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;name=value\r\no\r\n1\r\nk\r\n0\r\ntrailer: x\r\n\r\n"],
        [b"HTTP/1.1 100 Continue\r\n\r\n", OK],
        [b"HTTP/1.1 200\r\nContent-Length:2\r\n\r\nok"],
    ],
    ids=["at once", "byte by byte", "chunked", "extensions and trailers", "after a 100", "bare"],
)
async def test_an_answer_is_whole_however_it_comes_and_its_connection_serves_the_next(pieces: list[bytes]):
    made = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        await saying(*pieces, pause=0.001)(reader, writer)

    async with pool_before(peer) as pool:
        assert [await get(pool) for _ in range(3)] == [(200, b"ok")] * 3
    assert made == 1


async def test_an_answer_without_a_length_ends_with_its_connection():
    async with pool_before(saying(b"HTTP/1.1 503 Busy\r\n\r\nno", b"thing", stays=False)) as pool:
        assert [await get(pool) for _ in range(2)] == [(503, b"nothing")] * 2


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"HTTP/1.1 200 OK\r\nconte"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nok"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n"],
        [b"SSH-2.0-OpenSSH_9.2\r\n"],
        [b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000],
        [b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000],
    ],
    ids=["nothing", "half a head", "too little", "half a chunk", "no chunk", "another protocol", "an upgrade", "endless lines", "an endless line"],
)
async def test_what_is_no_whole_answer_is_told_as_broken_off(pieces: list[bytes]):
    async with pool_before(saying(*pieces, stays=False)) as pool:
        with pytest.raises(BrokenOff):
            await asyncio.wait_for(get(pool), 30)


async def test_what_nobody_asked_for_ends_a_connection_and_is_no_answer_to_the_next_request():
    async with pool_before(saying(OK + OK.replace(b"ok", b"no"))) as pool:
        assert [await get(pool) for _ in range(2)] == [(200, b"ok")] * 2


async def test_a_connection_whose_last_bytes_are_awaited_still_serves_the_next_request_and_one_that_never_ends_none():
    """A stream is over with its [DONE]; the end of its body may come in another packet."""
    made, ends = 0, True

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        while await request_of(reader):
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ndone\r\n")
            await asyncio.sleep(0.02)
            if ends:
                writer.write(b"0\r\n\r\n")

    async with pool_before(peer) as pool:
        for ends, connections_made in ((True, 1), (True, 1), (False, 1), (False, 2), (False, 3)):  # the server looks at `ends`
            answer = await pool.asked("GET", "/")
            assert await answer.read() == b"done"
            assert made == connections_made
            pool.give_back(answer)
            await (until(lambda answer=answer: answer.is_free) if ends else asyncio.sleep(0.05))


async def test_a_connection_waits_for_a_request_no_longer_than_engines_let_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "IDLE", 0.1)
    ended = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await saying(OK)(reader, writer)
        ended.set()

    async with pool_before(peer) as pool:
        await get(pool)
        await asyncio.wait_for(ended.wait(), 30)
        assert await get(pool) == (200, b"ok")


async def test_a_server_that_went_away_meanwhile_is_asked_on_a_new_connection():
    async with pool_before(saying(OK, stays=False)) as pool:
        for _ in range(3):
            answer = await pool.asked("GET", "/")
            assert await whole(answer) == b"ok"
            pool.give_back(answer)
            await until(lambda answer=answer: answer._lost)


async def test_what_is_sent_is_what_was_asked_and_no_value_makes_a_line_of_its_own():
    got: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while asked := await request_of(reader):
            got.append(asked)
            writer.write(OK)

    async with listening(peer) as url:
        pool = Pool(url.replace("//", "//us%20er:pass%3A@") + "/base", {"X-Mine": "a\r\nX-Evil: 1"}, 2)
        pool.give_back(answer := await pool.asked("POST", "/generate", b'{"a": 1}', {"traceparent": "00-1\n\n{}"}))
        assert await whole(answer) == b"ok"
        bearing = Pool(url.replace("//", "//user:pass@"), {"Authorization": "Bearer key"}, 2)
        await get(bearing)
    first, second = got
    lines = first.decode().split("\r\n")
    assert lines[0] == "POST /base/generate HTTP/1.1" and lines[-2:] == ["", '{"a": 1}']
    assert f"Host: {url.removeprefix('http://')}" in lines and "Authorization: Basic dXMgZXI6cGFzczo=" in lines
    assert "X-Mine: aX-Evil: 1" in lines and "traceparent: 00-1{}" in lines and "Content-Length: 8" in lines
    assert b"Authorization: Bearer key\r\n" in second and b"Basic" not in second


async def test_a_body_that_nobody_takes_is_not_read_on_and_a_large_one_is_sent_whole():
    size, large, sent = 32 * 2**20, 4 * 2**20, 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        asked = await request_of(reader)
        assert asked.endswith(b"x" * large)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"y" * 2**16)
            await writer.drain()
            sent += 2**16

    async with pool_before(peer) as pool:
        answer = await pool.asked("POST", "/", b"x" * large)
        await asyncio.sleep(0.3)
        assert sent < size / 2
        assert await whole(answer) == b"y" * size


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no-such-host.invalid", "http://" + "a" * 300])
async def test_where_nobody_is_there_it_is_told(url: str):
    with pytest.raises(ConnectionFailed):
        await Pool(url, {}, 2).asked("GET", "/")


@pytest.mark.parametrize("url", ["nowhere", "ftp://127.0.0.1", "http://", "http://a:b"])
def test_what_is_no_address_is_told(url: str):
    with pytest.raises(ValueError, match=r"address|[Pp]ort"):
        Pool(url, {}, 2)


async def test_a_server_is_believed_by_its_certificate_alone(monkeypatch: pytest.MonkeyPatch):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)
    async with listening(saying(OK), tls) as url:
        with pytest.raises(ConnectionFailed):
            await Pool(url, {}, 2).asked("GET", "/")
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        pool = Pool(url, {}, 2)
        assert [await get(pool) for _ in range(2)] == [(200, b"ok")] * 2
        await pool.aclose()


async def test_nothing_of_a_connection_is_left():
    """Neither where its answer was whole, nor where it was left in the middle."""
    async with pool_before(saying(OK)) as pool:
        await get(pool)
        answer = await pool.asked("GET", "/")
        answer.close()
        await pool.aclose()
        await asyncio.sleep(0.05)
        del answer
        gc.collect()
        assert not [thing for thing in gc.get_objects() if isinstance(thing, Connection) and not thing._lost]
