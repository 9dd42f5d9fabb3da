"""Files that a URL or a data URI names. No URL reaches what only this machine may reach."""

from __future__ import annotations

import asyncio
import base64
import gzip
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Thread

import pytest
from ssrfguard import Policy

from gemma3n_sgl.errors import FetchError, Gemma3nError, MediaError, TooLarge
from gemma3n_sgl.media import Limits, base64_bytes, data_uri, fetch
from gemma3n_sgl.media.fetch import PUBLIC

PICTURE = (Path(__file__).parent / "media" / "red-circle.png").read_bytes()
Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]

HOSTILE = """
http://127.0.0.1:{port}/
http://127.0.0.1.:{port}/
http://127.1:{port}/
http://127.0.1:{port}/
http://127.255.255.254:{port}/
http://0:{port}/
http://0.0.0.0:{port}/
http://2130706433:{port}/
http://0x7f000001:{port}/
http://0x7f.0.0.1:{port}/
http://0X7F.0x0.0x0.0x1:{port}/
http://0177.0.0.1:{port}/
http://017700000001:{port}/
http://127.0.0.1%00.example.com:{port}/
http://%31%32%37.0.0.1:{port}/
http://①②⑦.⓪.⓪.①:{port}/
http://127。0。0。1:{port}/
http://localhost:{port}/
http://LOCALHOST:{port}/
http://ⓁⓄⒸⒶⓁⒽⓄⓈⓉ:{port}/
http://[::1]:{port}/
http://[::]:{port}/
http://[0:0:0:0:0:0:0:1]:{port}/
http://[::ffff:127.0.0.1]:{port}/
http://[::ffff:7f00:1]:{port}/
http://[::127.0.0.1]:{port}/
http://[64:ff9b::7f00:1]:{port}/
http://[2002:7f00:1::]:{port}/
http://[::1%25lo]:{port}/
http://user@127.0.0.1:{port}/
http://example.com@127.0.0.1:{port}/
http://example.com:80@127.0.0.1:{port}/
http://127.0.0.1:{port}\\@example.com/
http://example.com\\@127.0.0.1:{port}/
http:\\\\127.0.0.1:{port}/
http:/127.0.0.1:{port}/
http:127.0.0.1:{port}/
http:///127.0.0.1:{port}/
//127.0.0.1:{port}/
 http://127.0.0.1:{port}/
http://10.0.0.1/
http://172.16.0.1/
http://192.168.1.1/
http://100.64.0.1/
http://169.254.169.254/latest/meta-data/
http://[::ffff:169.254.169.254]/latest/meta-data/
http://[fd00:ec2::254]/latest/meta-data/
http://2852039166/latest/meta-data/
http://168.63.129.16/machine?comp=goalstate
http://[2002:a83f:8110::]/machine
http://0xA9FEA9FE/latest/meta-data/
http://192.0.2.1/
http://198.18.0.1/
http://224.0.0.1/
http://255.255.255.255/
http://[fe80::1]/
http://[fc00::1]/
http://[ff02::1]/
ftp://127.0.0.1:{port}/
file:///etc/passwd
gopher://127.0.0.1:{port}/_GET
javascript:alert(1)
http://
https://:443/
http://[::1
http://example.com:99999/
""".strip("\n").split("\n")
HOSTILE += ["http://127.0.0.1\t:{port}/", "http://127.0.0.1\r\nHost: example.com:{port}/", "http://127.0.0.1:{port}\0.example.com/"]


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """A web server on loopback: its URL, and the paths it was asked for."""
    ready, paths, urls, stops = Event(), [], [], []

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            paths.append(request.split()[1])
            await answer(paths[-1], writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            paths.append("broken off")  # the client left, as it should in some tests
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(client, "127.0.0.1", 0)
        stop = asyncio.Event()
        urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        stops.append(partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set))
        ready.set()
        await stop.wait()
        server.close()

    thread = Thread(target=asyncio.run, args=(main(),))
    thread.start()
    ready.wait()
    try:
        yield urls[0], paths
    finally:
        stops[0]()
        thread.join()


def answering(body: bytes, head: str = "200 OK", *headers: str) -> Answer:
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(
            "\r\n".join([f"HTTP/1.1 {head}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]).encode() + body
        )

    return answer


def redirecting(to: Callable[[str], str]) -> Answer:
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 302 Found\r\nLocation: {to(path)}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    return answer


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


def to_loopback(url: str) -> Policy:
    """What the tests allow beyond the default: this one server."""
    return Policy(allowed_networks=("127.0.0.1/32",), allowed_ports=frozenset({port_of(url)}), max_redirects=3)


def get(url: str, policy: Policy, **limits: float) -> bytes:
    return asyncio.run(fetch(url, limits=Limits(**limits), policy=policy))


def refused(url: str, policy: Policy, words: str, kind: type[Gemma3nError] = FetchError, **limits: float) -> None:
    """Refused with a sentence for people that names the host at most."""
    with pytest.raises(kind, match=words) as caught:
        get(url, policy, **limits)
    assert not re.search(r"secret|token|passwd|meta-data|/latest|Error|RFC|ssrfguard|_policy|IANA", caught.value.message)
    assert caught.value.__cause__ is None


def test_a_file_is_fetched() -> None:
    with serving(answering(PICTURE)) as (url, paths):
        assert get(f"{url}/a.png?x=1", to_loopback(url)) == PICTURE
    assert paths == ["/a.png?x=1"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_spelling_of_a_private_address_is_reached(hostile: str) -> None:
    """Even where the port is allowed, the server on loopback is not asked once."""
    with serving(answering(PICTURE)) as (url, paths):
        policy = replace(PUBLIC, allowed_ports=frozenset({80, 443, port_of(url)}))
        refused(hostile.format(port=port_of(url)), policy, "fetched|could not be reached", fetch_timeout=3)
    assert paths == []


def test_at_least_forty_spellings_were_tried() -> None:
    assert len(set(HOSTILE)) >= 40


def test_by_default_other_ports_than_the_webs_are_not_fetched() -> None:
    with pytest.raises(FetchError, match="at ports 80 and 443 of public addresses"):
        asyncio.run(fetch("http://example.com:6379/"))


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["169.254.169.254"], ["::1"], ["10.0.0.7"], ["93.184.215.14", "127.0.0.1"], ["::ffff:127.0.0.1"]]
)
def test_a_name_that_leads_to_a_private_address_is_not_followed(addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(host: str, port: int, *args: object, **options: object) -> list[tuple]:
        family = {address: socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses}
        tail = {socket.AF_INET: (), socket.AF_INET6: (0, 0)}
        return [(family[a], socket.SOCK_STREAM, 6, "", (a, port, *tail[family[a]])) for a in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with serving(answering(PICTURE)) as (url, paths):
        policy = Policy(allowed_ports=frozenset({port_of(url)}))
        refused(f"http://rebind.example:{port_of(url)}/", policy, r"rebind\.example could not be reached at a public address")
    assert paths == []


def test_which_internal_names_exist_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads inside and a name that leads nowhere are refused in the same words."""

    def lookup(host: str, *args: object, **options: object) -> list[tuple]:
        if host == "wiki.corp":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 80))]
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    messages = []
    for host in ("wiki.corp", "none.corp"):
        with pytest.raises(FetchError) as caught:
            asyncio.run(fetch(f"http://{host}/"))
        messages.append(caught.value.message.replace(host, "HOST"))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://localhost/",
        "file:///etc/passwd",
        "gopher://x/",
    ],
)
def test_a_redirect_to_a_private_address_is_not_followed(target: str) -> None:
    with serving(redirecting(lambda path: target)) as (url, paths):
        refused(url + "/", to_loopback(url), "fetched|could not be reached", fetch_timeout=3)
    assert paths == ["/"]


def test_three_redirects_are_followed_and_no_fourth() -> None:
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        step = int(path[1:])
        await (answering(PICTURE) if step == 0 else redirecting(lambda _: f"/{step - 1}"))(path, writer)

    with serving(answer) as (url, _):
        assert get(url + "/3", to_loopback(url)) == PICTURE
        refused(url + "/4", to_loopback(url), "redirects more than 3 times")


@pytest.mark.parametrize("told", [True, False])
def test_an_endless_file_is_left_at_the_limit(told: bool) -> None:
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 999999999999\r\n" if told else b"") + b"\r\n")
        while True:
            writer.write(bytes(65_536))
            await writer.drain()

    with serving(answer) as (url, _):
        refused(url + "/secret", to_loopback(url), r"limit of 1 MB \(GEMMA3N_MAX_MEDIA_MB\)", TooLarge, max_bytes=1_000_000, named=True)


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_slow_server_is_left_at_the_deadline_wherever_it_dawdles(begun: bytes) -> None:
    """Each byte comes in good time; the file does not."""

    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        while True:
            writer.write(b"X-Slow: 1\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    with serving(answer) as (url, _):
        refused(url + "/", to_loopback(url), r"within 0\.3 s \(GEMMA3N_FETCH_TIMEOUT\)", fetch_timeout=0.3, named=True)


def test_a_slow_name_server_is_left_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lookup that is under way can't be stopped, but nobody waits for it."""
    told = Event()

    def lookup(*args: object, **options: object) -> list[tuple]:
        told.wait(30)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    async def main() -> None:
        with pytest.raises(FetchError, match=r"did not send the file within 0\.2 s"):
            await fetch("http://slow.example/", limits=Limits(fetch_timeout=0.2))
        told.set()

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    asyncio.run(main())


def test_whoever_stops_waiting_ends_the_transfer() -> None:
    begun, left = Event(), Event()

    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        begun.set()
        try:
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            left.set()

    async def main(url: str) -> None:
        task = asyncio.create_task(fetch(url, policy=to_loopback(url)))
        assert await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(left.wait, 30)

    with serving(answer) as (url, _):
        asyncio.run(main(url))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answering(b"", "404 Not Found"), "answered with status 404"),
        (answering(b"", "500 Oops"), "answered with status 500"),
        (answering(b"", "204 No Content"), "answered with status 204"),
        (answering(gzip.compress(bytes(10_000_000)), "200 OK", "Content-Encoding: gzip"), "compressed"),
        (answering(b"", "200 OK", "Content-Length: 7"), "broke off"),
        (answering(b"", "nonsense"), "broke off"),
    ],
)
def test_a_server_that_does_not_send_the_file_is_named(answer: Answer, words: str) -> None:
    with serving(answer) as (url, _):
        refused(url + "/?token=secret", to_loopback(url), r"^127\.0\.0\.1 .*" + words)


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        refused(url + "/?token=secret", to_loopback(url), r"127\.0\.0\.1 could not be reached")


def test_no_proxy_and_no_password_of_the_servers_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with serving(answering(PICTURE)) as (url, _):
        assert get(url, to_loopback(url)) == PICTURE


@pytest.mark.parametrize(
    "head", ["data:image/png;base64", "DATA:;BASE64", "data:text/plain;charset=utf-8;base64", "data:application/x-lie;base64"]
)
def test_a_data_uri_gives_its_bytes_whatever_it_calls_them(head: str) -> None:
    assert data_uri(f"{head},{base64.b64encode(PICTURE).decode()}") == PICTURE


@pytest.mark.parametrize(
    ("uri", "data"),
    [
        ("data:,Hello%2C%20World", b"Hello, World"),
        ("data:image/svg+xml,%3Csvg/%3E", b"<svg/>"),
        ("data:;base64,SGk%3D", b"Hi"),
        ("data:;base64,", b""),
        ("data:,", b""),
    ],
)
def test_a_data_uri_may_be_percent_encoded(uri: str, data: bytes) -> None:
    assert data_uri(uri) == data


@pytest.mark.parametrize("payload", ["SGk", "SGk=\n", "S Gk=", "SGk=SGk=", "SG-_", "SGk*", "é", "====", "SGk=%0A", "Ω" * 4])
def test_broken_base64_is_refused(payload: str) -> None:
    with pytest.raises(MediaError, match="base64 is broken"):
        data_uri(f"data:image/png;base64,{payload}")
    with pytest.raises(MediaError, match="base64 is broken"):
        base64_bytes(payload)


@pytest.mark.parametrize("uri", ["", "data:", "data:image/png;base64", "image/png;base64,SGk=", "http://example.com/,"])
def test_what_is_no_data_uri_is_said_to_be_none(uri: str) -> None:
    with pytest.raises(MediaError, match="no data URI"):
        data_uri(uri)


@pytest.mark.parametrize(
    "uri", ["data:;base64," + "A" * 1400, "data:," + "a" * 1001, "data:," + "%41" * 1001, "data:;base64," + "%41" * 1500]
)
def test_a_data_uri_beyond_the_limit_is_refused(uri: str) -> None:
    with pytest.raises(TooLarge, match=r"limit of 0\.001 MB"):
        data_uri(uri, limits=Limits(max_bytes=1000))


def test_the_limit_itself_is_allowed() -> None:
    for size in range(995, 1001):
        data = bytes(size)
        assert data_uri(f"data:;base64,{base64.b64encode(data).decode()}", limits=Limits(max_bytes=1000)) == data
