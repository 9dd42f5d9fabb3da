"""HTTP as browsers, proxies and old clients speak it: every answer is one they can use, and the connection goes on."""

from __future__ import annotations

import gzip
import json
import socket
import time
import zlib
from typing import Any

import pytest
from scripted_engine import Reply, ScriptedEngine
from serving import SHORT, Served, one_for_all, serving

from gemma3n_sgl.errors import SettingsError
from gemma3n_sgl.settings import Settings

PAGE = "http://localhost:5173"
STRANGER = "https://evil.example"
CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "gemma-3n", "messages": [{"role": "user", "content": "Hi."}]}).encode()
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type,x-stainless-os"}


standing, scripted, served = one_for_all(max_body_mb=2)


# Browsers


def test_a_page_of_this_machine_may_call_and_read_what_comes_of_it(served: Served):
    asked = served.http.options(CHAT, headers={"origin": PAGE} | PREFLIGHT)
    assert asked.status_code == 200 and asked.headers["access-control-allow-origin"] == PAGE
    assert "POST" in asked.headers["access-control-allow-methods"] and "x-stainless-os" in asked.headers["access-control-allow-headers"]
    for answer in (served.http.post(CHAT, content=BODY, headers={"origin": PAGE}), served.http.get("/nowhere", headers={"origin": PAGE})):
        assert answer.headers["access-control-allow-origin"] == PAGE and "x-request-id" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize("origin", ["app://obsidian.md", "http://127.0.0.1:8080", "https://localhost", "http://[::1]:3000", "tauri://localhost"])
def test_pages_of_this_machine_are_told_by_their_origin(served: Served, origin: str):
    assert served.http.get("/livez", headers={"origin": origin}).headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize("origin", [STRANGER, "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example", "https://evil.example/localhost"])
def test_a_strangers_page_costs_no_generation(served: Served, scripted: ScriptedEngine, origin: str):
    """A browser sends a form's POST without asking first, so what the page may not read is not even begun."""
    told = served.http.post(CHAT, content=BODY, headers={"origin": origin, "content-type": "text/plain"})
    assert told.status_code == 403 and "GEMMA3N_CORS_ORIGINS" in told.json()["error"]["message"]
    assert "access-control-allow-origin" not in told.headers and scripted.requests == []
    assert served.http.options(CHAT, headers={"origin": origin} | PREFLIGHT).status_code == 403


def test_with_keys_a_preflight_needs_none_and_a_page_can_read_that_its_key_is_wrong(scripted: ScriptedEngine):
    with serving(Settings(runtime_url=scripted.url, api_keys=("right",), cors_origins=("https://a.example",))) as served:
        served.http.headers = {}  # type: ignore[assignment]
        page = {"origin": "https://a.example"}
        asked = served.http.options(CHAT, headers=page | PREFLIGHT)
        assert asked.status_code == 200 and asked.headers["x-request-id"]
        told = served.http.post(CHAT, content=BODY, headers=page)
        assert (told.status_code, told.headers["www-authenticate"]) == (401, "Bearer")
        assert told.headers["access-control-allow-origin"] == "https://a.example"
        other = served.http.post(CHAT, content=BODY, headers={"origin": PAGE, "authorization": "Bearer right"})
        assert other.status_code == 200 and "access-control-allow-origin" not in other.headers, "the key guards; the page can't read it"


def test_any_page_where_the_operator_says_so_but_never_with_credentials(scripted: ScriptedEngine):
    with serving(Settings(runtime_url=scripted.url, cors_origins=("*",))) as served:
        answer = served.http.post(CHAT, content=BODY, headers={"origin": STRANGER, "cookie": "a=b"})
        assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] in ("*", STRANGER)
        assert "access-control-allow-credentials" not in answer.headers


def test_an_origin_that_no_browser_sends_is_refused_at_the_start():
    with pytest.raises(SettingsError, match=r"GEMMA3N_CORS_ORIGINS: 'https://a\.example/' is none of"):
        Settings.from_env({"GEMMA3N_CORS_ORIGINS": "local,https://a.example/"})


# Methods and addresses


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/gemma-3n", "/health", "/livez"])
def test_head_answers_as_get_would_without_a_body(served: Served, path: str):
    head, get = served.http.head(path), served.http.get(path)
    assert (head.status_code, head.content, head.headers["content-type"]) == (200, b"", get.headers["content-type"])


@pytest.mark.parametrize(("path", "takes"), [(CHAT, {"POST"}), ("/v1/models", {"GET", "HEAD"})])
def test_a_wrong_method_is_told_what_goes_and_options_says_it_too(served: Served, path: str, takes: set[str]):
    told = served.http.delete(path)
    assert (told.status_code, set(told.headers["allow"].split(", "))) == (405, takes)
    assert told.json()["error"]["code"] == "method_not_allowed" and all(method in told.json()["error"]["message"] for method in takes)
    asked = served.http.options(path)
    assert (asked.status_code, set(asked.headers["allow"].split(", "))) == (204, takes | {"OPTIONS"})


def test_a_wrong_address_is_told_the_right_ones(served: Served):
    message = served.http.post("/chat/completions", content=BODY).json()["error"]["message"]
    assert "/chat/completions" in message and CHAT in message and "/v1/models/{model}" in message


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "/v1//chat/completions", "//v1/chat/completions"])
def test_slashes_too_many_do_no_harm(served: Served, path: str):
    """As a base_url that ends with one makes them; a redirect would lose the body in some clients."""
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        assert said(client, request(BODY, path=path))[0] == 200
    assert served.http.get("/v1/models/").json()["object"] == "list"


# Bodies


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/x-www-form-urlencoded", "text/plain", ""])
def test_json_is_taken_whatever_its_content_type(served: Served, kind: str):
    """`curl -d` calls it a form."""
    assert served.http.post(CHAT, content=BODY, headers={"content-type": kind}).status_code == 200


def test_a_byte_order_mark_before_the_json_does_no_harm(served: Served):
    assert served.http.post(CHAT, content=b"\xef\xbb\xbf" + BODY).status_code == 200


MEMBERS = gzip.compress(BODY[:40]) + gzip.compress(BODY[40:])
PADDED = BODY.replace(b"{", b"{" + b" " * 1_500_000, 1)


@pytest.mark.parametrize(
    ("coding", "body"),
    [("gzip", gzip.compress(BODY)), ("GZIP", MEMBERS), ("deflate", zlib.compress(BODY)), ("identity", BODY), ("gzip", gzip.compress(PADDED))],
    ids=["gzip", "members", "deflate", "identity", "large"],
)
def test_compressed_bodies_are_read(served: Served, scripted: ScriptedEngine, coding: str, body: bytes):
    for content in (body, (body[i : i + 100] for i in range(0, len(body), 100))):
        assert served.http.post(CHAT, content=content, headers={"content-encoding": coding}).status_code == 200
    assert "Hi." in scripted.requests[-1]["text"]


@pytest.mark.parametrize(
    ("coding", "body", "status", "says"),
    [
        ("gzip", gzip.compress(bytes(20 * 2**20))[:-9], 413, "2 MB"),  # its missing end is never come to
        ("gzip", gzip.compress(BODY)[:-9], 400, "ends in the middle"),
        ("gzip", b"", 400, "ends in the middle"),
        ("gzip", BODY, 400, "is not gzip"),
        ("br", BODY, 400, "'br' is not read here. Send it as gzip"),
        ("zstd", BODY, 400, "'zstd'"),
        ("gzip, gzip", gzip.compress(gzip.compress(BODY)), 400, "'gzip, gzip'"),
    ],
    ids=["bomb", "cut off", "empty", "no gzip", "br", "zstd", "twice"],
)
def test_a_compressed_body_that_cant_be_read_is_told_so(served: Served, coding: str, body: bytes, status: int, says: str):
    told = served.http.post(CHAT, content=body, headers={"content-encoding": coding})
    assert told.status_code == status and says in told.json()["error"]["message"]


# Connections


def request(body: bytes, *headers: str, path: str = CHAT, method: str = "POST", length: bool = True) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", *headers, *([f"content-length: {len(body)}"] if length else [])]
    return "\r\n".join([*lines, "", ""]).encode() + body


def said(client: socket.socket, sent: bytes) -> tuple[int, dict[str, Any]]:
    """The status of the answer to what is sent, and its JSON; the connection stays open."""
    client.settimeout(5)
    client.sendall(sent)
    return heard(client)


def read_until(client: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        data += client.recv(65536) or pytest.fail("the connection was cut")
    return data


def heard(client: socket.socket) -> tuple[int, dict[str, Any]]:
    head, _, body = read_until(client, b"\r\n\r\n").partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += client.recv(65536) or pytest.fail("the connection was cut")
    return int(head.split()[1]), json.loads(body)


def test_a_connection_lives_on_after_every_kind_of_error(served: Served):
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        for sent, status in [
            (request(b"{"), 400),
            (request(b""), 400),
            (request(BODY, "content-encoding: br"), 400),
            (request(BODY, f"origin: {STRANGER}"), 403),
            (request(b"", path="/nowhere"), 404),
            (request(BODY.replace(b"gemma-3n", b"gpt-4o")), 404),
            (request(b"", method="PUT"), 405),
            (request(b"x" * 3 * 2**20), 413),
            (request(BODY), 200),
        ]:
            assert said(client, sent)[0] == status


def test_a_body_in_chunks_needs_no_length(served: Served):
    chunked = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (10, BODY[:10], len(BODY) - 10, BODY[10:])
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        assert said(client, request(b"", "transfer-encoding: chunked", length=False) + chunked)[0] == 200


UPGRADE = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAoAAAAAIAAAAA")
"""What Java's client and `curl --http2` send with every first request."""


@pytest.mark.parametrize("split", ["at once", "body apart", "byte by byte"])
@pytest.mark.parametrize("chunked", [False, True])
def test_who_would_rather_speak_another_protocol_is_answered_in_this_one(served: Served, scripted: ScriptedEngine, split: str, chunked: bool):
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY) if chunked else BODY
    framing = "transfer-encoding: chunked" if chunked else f"content-length: {len(BODY)}"
    head = request(b"", *UPGRADE, framing, length=False)
    packets = {"at once": [head + body], "body apart": [head, body], "byte by byte": [bytes([byte]) for byte in head + body]}[split]
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.settimeout(5)
        for _ in range(2):
            for packet in packets:
                client.sendall(packet)
                time.sleep(0.05 if split == "body apart" else 0)
            assert heard(client)[0] == 200
        assert said(client, request(BODY))[0] == 200, "and the connection goes on"
    assert [("Hi." in asked["text"]) for asked in scripted.requests] == [True] * 3


@pytest.mark.parametrize("first", ["GET", "POST"])
def test_requests_sent_together_are_told_apart_where_one_asks_for_another_protocol(served: Served, first: str):
    """The body of one is never read as a request of its own."""
    hidden = request(b"", path="/v1/hidden", method="GET")
    opening = request(b"", *UPGRADE, path="/livez", method="GET", length=False) if first == "GET" else request(BODY)
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.settimeout(5)
        client.sendall(opening + request(hidden, *UPGRADE) + request(BODY, *UPGRADE) + request(b"", path="/nowhere"))
        told = read_until(client, b"/nowhere")
    assert [int(answer.split()[0]) for answer in told.split(b"HTTP/1.1 ")[1:]] == [200, 400, 200, 404]
    assert b"not valid JSON" in told and b"hidden" not in told


def test_limits_hold_where_another_protocol_is_asked_for(served: Served):
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        assert said(client, request(b"x" * 3 * 2**20, *UPGRADE))[0] == 413
        client.sendall(request(BODY, "expect: 100-continue", *UPGRADE).removesuffix(BODY))
        assert client.recv(65536).startswith(b"HTTP/1.1 100 ")
        assert said(client, BODY)[0] == 200
        client.sendall(request(b"", *UPGRADE, "content-length: 5", "transfer-encoding: chunked", length=False) + b"0\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_who_asks_before_sending_a_body_is_told_to_go_on_or_why_not(served: Served):
    """curl does for bodies above 1 MB."""
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.settimeout(5)
        head = request(BODY, "expect: 100-continue").removesuffix(BODY)
        client.sendall(head)
        assert client.recv(65536).startswith(b"HTTP/1.1 100 ")
        assert said(client, BODY)[0] == 200
        client.sendall(request(b"", "expect: 100-continue", f"content-length: {2**30}", length=False))
        assert heard(client)[0] == 413, "refused by its length, before it is sent"


@pytest.mark.parametrize("streamed", [False, True])
def test_the_head_of_an_answer_and_the_first_of_its_body_come_in_one_packet(served: Served, streamed: bool):
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.settimeout(5)
        client.sendall(request(BODY.replace(b"{", b'{"stream": true, ' if streamed else b"{", 1)))
        assert client.recv(65536).partition(b"\r\n\r\n")[2]


# What tells clients whose answer it is, how long it took, and whether to try again


@pytest.mark.parametrize(("method", "path"), [("GET", "/livez"), ("GET", "/nowhere"), ("PUT", CHAT), ("POST", CHAT), ("OPTIONS", CHAT)])
def test_every_answer_has_an_id_a_date_and_what_it_took(served: Served, method: str, path: str):
    for headers in ({}, {"origin": STRANGER}, {"origin": PAGE} | PREFLIGHT):
        answer = served.http.request(method, path, headers={"x-request-id": "mine-1"} | headers)
        assert answer.headers["x-request-id"] == "mine-1" and answer.headers["date"]
        assert 0 <= int(answer.headers["openai-processing-ms"]) < 5000


def test_what_may_be_tried_again_says_when_and_what_is_in_vain_says_so(scripted: ScriptedEngine):
    with serving(Settings(runtime_url=scripted.url, **SHORT | {"run_timeout": 0.2})) as served:
        scripted.loading = True
        loading = served.ask()
        assert (loading.status_code, loading.headers["retry-after"]) == (503, "5") and "x-should-retry" not in loading.headers
        scripted.loading = False
        scripted.script = Reply("word " * 50, delay=0.1)
        too_long = served.ask()
        assert (too_long.status_code, too_long.headers["x-should-retry"]) == (504, "false")
