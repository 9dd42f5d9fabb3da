"""Addresses that nobody from outside may reach, in every spelling that was ever taken for another: written down, behind names and behind redirects.

`python tests/test_hostile_urls.py SEED COUNT` tries others, and prints each that was not refused as it should be.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import httpx
import pytest
from scripted_engine import ScriptedEngine
from serving import serving
from ssrfguard import Policy

from gemma3n_sgl.errors import FetchError, Gemma3nError, SettingsError
from gemma3n_sgl.media import Limits, fetch
from gemma3n_sgl.media.fetch import PUBLIC as PUBLIC_POLICY
from gemma3n_sgl.settings import Settings

FRONT = "127.0.0.2"
"""Stands for a public address: it redirects to what its path says."""

FORBIDDEN = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.3.4", "100.64.0.1", "169.254.169.254", "169.254.0.1"),
    *("172.16.0.1", "172.31.255.254", "192.0.0.1", "192.0.2.7", "192.168.0.1", "192.168.178.20", "198.18.0.1", "198.51.100.9"),
    *("203.0.113.5", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "100.100.100.200", "168.63.129.16"),
    *("::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "fd12:3456::7", "ff02::1", "ff05::2", "2001:db8::1", "100::1", "fec0::1"),
]
PUBLIC = "93.184.215.14"
WORDS = ("fetched", "could not be reached", "redirects more", "none of the hosts", "broke off", "did not send", "answered with status")
INNER = re.compile(r"secret|meta-data|Traceback|Error|RFC|ssrfguard|_policy|IANA|policy")
CIRCLED = str.maketrans("0123456789", "⓪①②③④⑤⑥⑦⑧⑨")
WIDE = str.maketrans("0123456789abcdefx:.", "０１２３４５６７８９ａｂｃｄｅｆｘ：．")

Chance = random.Random


def spelled(address: str, chance: Chance) -> str:
    """An address as a URL's host, in one of its many spellings."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address):
        return f"[{_six(parsed, chance)}]"
    number, parts = int(parsed), address.split(".")
    as_numbers: list[Callable[[], str]] = [
        lambda: address,
        lambda: str(number),
        lambda: hex(number),
        lambda: "0" + oct(number)[2:],
        lambda: hex(number).upper(),
        lambda: ".".join(chance.choice((str(int(p)), hex(int(p)), f"0{int(p):o}", f"{int(p):03d}", f"0x{int(p):08x}")) for p in parts),
        lambda: f"{parts[0]}.{number & 0xFFFFFF}",
        lambda: f"{parts[0]}.{parts[1]}.{number & 0xFFFF}",
        lambda: f"{number + 2**32}",
        lambda: ".".join(str(int(p) + 256 * chance.randrange(3)) for p in parts),
        lambda: f"[{_wrapped(parsed, chance)}]",
    ]
    return chance.choice(as_numbers)()


def _six(address: IPv6Address, chance: Chance) -> str:
    forms = (str(address), address.exploded, str(address).upper(), f"{address}%25eth0", f"{address}%eth0", f"{address}%251", f"{address}%00")
    return chance.choice(forms)


def _wrapped(address: IPv4Address, chance: Chance) -> str:
    """An IPv4 address within an IPv6 one."""
    high, low = f"{int(address) >> 16:x}", f"{int(address) & 0xFFFF:x}"
    forms = ("::ffff:{d}", "::ffff:{h}:{l}", "::{d}", "64:ff9b::{h}:{l}", "64:ff9b::{d}", "64:ff9b:1::{h}:{l}", "2002:{h}:{l}::", "::ffff:0:{d}")
    forms += ("0:0:0:0:0:ffff:{h}:{l}", "2001:0:{h}:{l}::1", "fe80::5efe:{d}", "::FFFF:{d}", "::ffff:{d}%25lo")
    return chance.choice(forms).format(d=address, h=high, l=low)


def disguised(host: str, chance: Chance) -> str:
    """The host with something about it that one reader of URLs may see and another not."""
    forms: list[Callable[[], str]] = [
        lambda: host,
        lambda: host,
        lambda: host + ".",
        lambda: host.translate(CIRCLED),
        lambda: host.translate(WIDE) if host[0] != "[" else host,
        lambda: host.replace(".", chance.choice("。．｡")),
        lambda: "".join(f"%{ord(c):02x}" if chance.random() < 0.5 else c for c in host),
        lambda: f"user@{host}",
        lambda: f"example.com@{host}",
        lambda: f"example.com:80@{host}",
        lambda: f"example.com%40{host}",
        lambda: f"{host}\\@example.com",
        lambda: f"example.com\\@{host}",
        lambda: f"{host}#@example.com",
        lambda: f"{host}?@example.com",
        lambda: f"{host};example.com",
        lambda: host[:2] + chance.choice("\t\r\n\0\u200b\u00ad\ufeff ") + host[2:],
        lambda: chance.choice("\t \0\u3000") + host,
        lambda: f"{host}%00.example.com",
        lambda: f"{host}%2f.example.com",
    ]
    return chance.choice(forms)()


def hostile(chance: Chance, port: int) -> str:
    """A URL that must lead nowhere."""
    named = ["localhost", "LOCALHOST", "ⓁⓄⒸⒶⓁⒽⓄⓈⓉ", "private.example", "both.example", "rebind.example", "mapped.example", "metadata.google.internal"]
    host = disguised(spelled(chance.choice(FORBIDDEN), chance), chance) if chance.random() < 0.8 else chance.choice(named)
    scheme = chance.choice(["http"] * 12 + ["https", "HTTP", "hTtP", "ftp", "file", "gopher", "data+http", "ws", "javascript", "dict", ""])
    slashes = chance.choice(["://"] * 12 + [":/", ":///", ":\\\\", ":", ":/\\", "://///", "//"])
    tail = chance.choice(["/", "", "/latest/meta-data/secret", "/?q=http://example.com", "/%2e%2e/", "/\\example.com", "/#"])
    ports = chance.choice([f":{port}"] * 6 + ["", ":80", ":443", f":0{port}", f":+{port}", f":{port}\u0660", ":99999", ":-1", ":", f": {port}"])
    return chance.choice(["", "", "", "", " ", "\t", "\u00a0"]) + scheme + slashes + host + ports + tail


def resolved(host: Any, port: Any, *more: Any, **options: Any) -> list[tuple[Any, ...]]:
    """The names of these tests, and what the C library makes of numbers; nothing is asked of a network."""
    answers = {
        "private.example": ["10.0.0.7"],
        "both.example": [PUBLIC, "127.0.0.1"],
        "rebind.example": [PUBLIC] if not asked_before(host) else ["127.0.0.1"],
        "mapped.example": ["::ffff:127.0.0.1"],
        "metadata.google.internal": ["169.254.169.254"],
        "localhost": ["127.0.0.1", "::1"],
        "front.example": [FRONT],
    }
    name = (host.decode() if isinstance(host, bytes) else str(host)).rstrip(".").lower()
    if name in answers:
        four, six = [a for a in answers[name] if ":" not in a], [a for a in answers[name] if ":" in a]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in four]
        return [*found, *((socket.AF_INET6, socket.SOCK_STREAM, 6, "", (a, port, 0, 0)) for a in six)]
    return _getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)


_getaddrinfo = socket.getaddrinfo
_looked_up: list[str] = []


def asked_before(host: Any) -> bool:
    _looked_up.append(str(host))
    return _looked_up.count(str(host)) % 2 == 0


class Watch:
    """Every address that this process connects to while it is on, and which of them are forbidden; none outside this machine is really reached."""

    def __init__(self) -> None:
        self.on = False
        self.forbidden: list[Any] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or event != "socket.connect" or not isinstance(arguments[1], tuple):
            return
        address = ip_address(str(arguments[1][0]).partition("%")[0])
        if str(address) == FRONT:
            return
        inner = [address]
        if isinstance(address, IPv6Address):
            inner += [wrapped for wrapped in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())) if wrapped]
        if any(not one.is_global or str(one) in FORBIDDEN for one in inner):
            self.forbidden.append(arguments[1])
        raise ConnectionRefusedError


watch = Watch()


@contextmanager
def front() -> Iterator[int]:
    """A server that redirects to what its path says, and a port of it."""
    listener = socket.create_server((FRONT, 0))

    def answer() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                asked = client.recv(65536).split(b" ")
                path = asked[1][1:].decode() if len(asked) > 1 else ""
                leads_on = re.fullmatch("([0-9a-f]{2})+", path)  # else a redirect that leads back here
                head = b"302 Found\r\nLocation: " + bytes.fromhex(path) if leads_on else b"404 Not Found"
                client.sendall(b"HTTP/1.1 " + head + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    threading.Thread(target=answer, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


async def refusal(url: str, policy: Policy, hosts: tuple[str, ...] = ()) -> str:
    """What is wrong with how a URL is refused; "" where nothing is."""
    watch.forbidden.clear()
    watch.on = True
    try:
        await fetch(url, limits=Limits(fetch_timeout=5, hosts=hosts), policy=policy)
    except FetchError as error:
        told = error.message
        if not any(words in told for words in WORDS) or not told.endswith(".") or INNER.search(told):
            return f"is told {told!r}"
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"
    else:
        return "was fetched"
    finally:
        watch.on = False
    return f"connected to {watch.forbidden}" if watch.forbidden else ""


def tried(seed: int, count: int) -> list[tuple[str, str]]:
    """URLs written down and as redirects, and what was wrong with how they were refused."""
    chance, wrong = Chance(seed), []

    async def all_of_them(port: int) -> None:
        policy = replace(PUBLIC_POLICY, allowed_networks=(f"{FRONT}/32",), allowed_ports=frozenset({80, 443, port}))
        for i in range(count):
            url = hostile(chance, port)
            if i % 2:
                url = f"http://front.example:{port}/{url.encode(errors='ignore').hex()}"
            if problem := await refusal(url, policy, ("front.example", "*.example") if i % 5 == 0 else ()):
                wrong.append((url, problem))

    with pytest.MonkeyPatch.context() as patch, front() as port:
        patch.setattr(socket, "getaddrinfo", resolved)
        asyncio.run(all_of_them(port))
    return wrong


@pytest.mark.parametrize("address", FORBIDDEN)
def test_no_forbidden_address_is_reached_by_its_plain_spelling(address: str):
    host = f"[{address}]" if ":" in address else address
    assert [asyncio.run(refusal(f"{scheme}://{host}/", PUBLIC_POLICY)) for scheme in ("http", "https")] == ["", ""]


def test_no_spelling_of_a_forbidden_address_is_reached_written_down_or_by_a_redirect():
    assert tried(seed=7, count=150) == []


@pytest.mark.slow
def test_nor_is_one_of_a_thousand():
    assert tried(seed=8, count=1000) == []


def test_the_watch_sees_a_connection_to_what_is_forbidden(monkeypatch: pytest.MonkeyPatch):
    """Else the tests above could not fail."""
    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    policy = replace(PUBLIC_POLICY, allowed_networks=("127.0.0.1/32",))
    assert asyncio.run(refusal("http://127.0.0.1/", policy)) == "connected to [('127.0.0.1', 80)]"


@pytest.mark.parametrize(
    ("url", "listed"),
    [
        ("http://images.example/a.png", True),
        ("http://IMAGES.example./a.png", True),
        ("http://a.pictures.example/", True),
        ("http://pictures.example/", False),
        ("http://evilimages.example/", False),
        ("http://images.example.evil.test/", False),
        ("http://images.example@evil.test/", False),
        ("http://evil.test/images.example", False),
        ("http://93.184.215.14/", False),
        ("http://a.b.pictures.example.evil.test/", False),
    ],
)
def test_only_hosts_of_the_list_are_fetched_where_there_is_one(url: str, listed: bool, monkeypatch: pytest.MonkeyPatch):
    public = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **options: public)
    watch.on = True
    try:
        with pytest.raises(FetchError, match="could not be reached" if listed else "none of the hosts") as caught:
            asyncio.run(fetch(url, limits=Limits(hosts=("images.example", "*.pictures.example"))))
    finally:
        watch.on = False
    assert caught.value.message.endswith("Send the file itself, as a data URI.") or listed


def test_a_host_of_the_list_that_leads_inside_is_not_followed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    assert asyncio.run(refusal("http://private.example/", PUBLIC_POLICY, hosts=("private.example",))) == ""
    assert asyncio.run(refusal("http://127.0.0.1/", PUBLIC_POLICY, hosts=("127.0.0.1",))) == ""


def test_the_setting_is_off_public_or_hosts():
    assert Settings.from_env({}).image_urls == ("public",)
    assert Limits.of(Settings.from_env({"GEMMA3N_IMAGE_URLS": "public"})).hosts == ()
    assert Limits.of(Settings.from_env({"GEMMA3N_IMAGE_URLS": "a.example, *.b.example"})).hosts == ("a.example", "*.b.example")
    for wrong in ("", "off,a.example", "public,off", "*", "http://a.example", "a.example/x", "a.example:80", "a.*.example"):
        with pytest.raises(SettingsError, match="GEMMA3N_IMAGE_URLS"):
            Settings.from_env({"GEMMA3N_IMAGE_URLS": wrong})


@pytest.mark.parametrize(("setting", "words"), [("off", "fetches no URLs"), ("a.example", "none of the hosts"), ("public", "of public addresses")])
def test_a_client_is_told_which_part_named_the_url(scripted: ScriptedEngine, setting: str, words: str):
    with serving(Settings(runtime_url=scripted.url, image_urls=(setting,))) as served:
        url = "http://10.0.0.1/x?token=secret"
        for part in ({"type": "image_url", "image_url": {"url": url}}, {"type": "audio_url", "audio_url": {"url": url}}):
            answer: httpx.Response = served.ask([{"type": "text", "text": "What?"}, part])
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["param"]) == (400, "media_fetch_failed", "messages[0].content[1]")
            assert words in error["message"] and "secret" not in answer.text
    assert scripted.requests == []
    assert issubclass(FetchError, Gemma3nError)


if __name__ == "__main__":
    found = tried(int(sys.argv[1]), int(sys.argv[2]))
    print(*found, f"{len(found)} of {sys.argv[2]} not refused as they should be", sep="\n")
    sys.exit(bool(found))
