"""`gemma3n doctor`: it finds what is wrong between a client and an answer, says what to do, and never falls over."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import sglang as sgl
from click.testing import Result
from hypothesis import given
from scripted_engine import Die, Hang, Reply, Say, ScriptedEngine
from test_language import conversations
from test_language import prompt_of as prompt_by_executor
from typer.testing import CliRunner

from cli import app
from gemma3n_sgl import Conversation, turns
from gemma3n_sgl.language import prompt_of
from gemma3n_sgl.terminal import engine_checks, machine_checks

GEMMA = {"model_type": "gemma3n", "architectures": ["Gemma3nForConditionalGeneration"]}


class Tokenizing(ScriptedEngine):
    """An engine whose template makes the same tokens as ours, or others."""

    same = True

    def _page(self, path: str) -> tuple[int, str, bytes]:
        if path != "/v1/tokenize":
            return super()._page(path)
        tokens = [1, 2] if self.same else [1, len(self.paths)]
        return 200, "application/json", json.dumps({"tokens": tokens, "max_model_len": 4096}).encode()


@pytest.fixture
def tokenizing() -> Iterator[Tokenizing]:
    engine = Tokenizing(Reply("Hello!"))
    engine.info |= GEMMA
    engine.start()
    yield engine
    engine.stop()


Doctor = Callable[..., Result]


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Ask the doctor, with settings given as `port="8000"`; the port of the server is any that is free."""
    for name in list(os.environ):
        if name.startswith("GEMMA3N_"):
            monkeypatch.delenv(name)

    def ask(*flags: str, **settings: str) -> Result:
        env = {f"GEMMA3N_{name.upper()}": value for name, value in ({"port": "0"} | settings).items()}
        return CliRunner().invoke(app, ["doctor", *flags], env=env)

    return ask


@contextmanager
def answering(page: bytes) -> Iterator[str]:
    """A server that says the same to everybody, and closes."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    client.recv(65536)
                    client.sendall(page)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def signs(told: Result) -> dict[str, str]:
    """What was looked at → its sign."""
    return {line.split()[1]: line[0] for line in told.stdout.splitlines() if line[:1] in "✓!✗" and line}


def wrong(told: Result) -> dict[str, str]:
    """What is not fine → what is said of it, with the advice, which there always is."""
    lines = told.stdout.splitlines()
    found = {line.split()[1]: f"{line} {lines[i + 1].strip()}" for i, line in enumerate(lines) if line[:1] in ("!", "✗")}
    assert all("→" in text for text in found.values()), found
    return found


def test_where_all_is_well_it_says_so(tokenizing: Tokenizing, doctor: Doctor):
    told = doctor(runtime_url=tokenizing.url)
    looked_at = ["settings", "keys", "packages", "programs", "port", "disk", "gpu", "engine", "version", "model", "media", "context", "template"]
    assert list(signs(told)) == [*looked_at, "text", "picture", "sound"]
    assert wrong(told) == {} and told.exit_code == 0 and told.stdout.endswith("All is well.\n")
    kinds = [{"image_data", "audio_data"} & set(body) for body in tokenizing.requests]
    assert kinds == [set(), {"image_data"}, {"audio_data"}]


def test_without_an_engine_it_says_how_to_start_one_and_asks_no_further(scripted: ScriptedEngine, doctor: Doctor):
    scripted.refuse()
    told = doctor(runtime_url=scripted.url)
    assert told.exit_code == 1 and list(wrong(told)) == ["engine"] == list(signs(told))[-1:]
    assert "gemma3n engine start" in wrong(told)["engine"] and scripted.url in wrong(told)["engine"]


STRANGERS = {
    "404": b"HTTP/1.0 404 -\r\n\r\n",
    "a page": b"HTTP/1.0 200 OK\r\ncontent-type: text/html\r\n\r\n<html>",
    "a list": b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n[1]",
    "elsewhere": b"HTTP/1.0 302 -\r\nlocation: /\r\n\r\n",
    "SSH": b"SSH-2.0-x\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("page", STRANGERS.values(), ids=STRANGERS)
def test_what_is_no_engine_is_told_as_none(doctor: Doctor, page: bytes):
    with answering(page) as url:
        told = doctor(runtime_url=url)
    assert told.exit_code == 1 and list(wrong(told)) == ["engine"] and "gemma3n engine start" in wrong(told)["engine"]


def test_an_engine_that_refuses_the_key_is_not_to_be_replaced_but_given_the_right_one(doctor: Doctor):
    with answering(b"HTTP/1.0 401 -\r\n\r\n") as url:
        told = doctor(runtime_url=url)
    assert told.exit_code == 1 and "→ Set GEMMA3N_RUNTIME_API_KEY" in wrong(told)["engine"] and "engine start" not in told.stdout


def test_an_engine_that_speaks_no_tls_is_told_to_be_there(doctor: Doctor):
    with answering(b"HTTP/1.0 400 -\r\n\r\n") as url:
        told = doctor(runtime_url=url.replace("http", "https"))
    assert told.exit_code == 1 and f"→ Name it {url}" in wrong(told)["engine"]
    assert "nothing answers" not in told.stdout and "engine start" not in told.stdout


def test_where_nothing_answers_that_is_told_with_tls_too(scripted: ScriptedEngine, doctor: Doctor):
    scripted.refuse()
    told = doctor(runtime_url=scripted.url.replace("http", "https"))
    assert "nothing answers" in wrong(told)["engine"] and "engine start" in wrong(told)["engine"]


def test_an_engine_that_is_loading_is_told_to_be_there(scripted: ScriptedEngine, doctor: Doctor):
    scripted.at_pages = Say(status=503)
    told = doctor(runtime_url=scripted.url)
    assert told.exit_code == 1 and "can't answer yet" in wrong(told)["engine"] and "engine start" not in told.stdout


def test_a_certificate_that_is_not_trusted_is_told(doctor: Doctor):
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(Path(__file__).parent / "localhost.pem")
    with socket.create_server(("127.0.0.1", 0)) as listening, ours.wrap_socket(listening, server_side=True) as door:

        def open_to_all() -> None:
            with suppress(OSError):
                while True:
                    with suppress(ssl.SSLError):
                        door.accept()[0].close()

        threading.Thread(target=open_to_all, daemon=True).start()
        told = doctor(runtime_url=f"https://127.0.0.1:{door.getsockname()[1]}")
        door.shutdown(socket.SHUT_RDWR)
    assert told.exit_code == 1 and "not trusted" in wrong(told)["engine"] and "SSL_CERT_FILE" in wrong(told)["engine"]


def test_what_takes_connections_and_never_answers_is_told_in_time(doctor: Doctor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gemma3n_sgl.endpoint.INFO_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        told = doctor(runtime_url=f"http://127.0.0.1:{deaf.getsockname()[1]}")
    assert told.exit_code == 1 and "does not answer" in wrong(told)["engine"]


@pytest.mark.parametrize(
    ("info", "what", "says", "code"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "model", "no Gemma 3n", 1),
        ({"has_audio_understanding": False}, "media", "no sound", 1),
        ({"has_image_understanding": False, "has_audio_understanding": False}, "media", "no pictures and no sound", 1),
        ({"served_model_name": "/models/gemma", "model_path": "/models/gemma"}, "model", "--served-model-name", 0),
    ],
)
def test_an_engine_with_another_model_is_told_of(tokenizing: Tokenizing, doctor: Doctor, info: dict[str, Any], what: str, says: str, code: int):
    tokenizing.info |= info
    told = doctor(runtime_url=tokenizing.url)
    assert list(wrong(told)) == [what] and says in wrong(told)[what] and told.exit_code == code


def test_one_of_several_engines_that_does_not_answer_is_warned_of(tokenizing: Tokenizing, scripted: ScriptedEngine, doctor: Doctor):
    scripted.refuse()
    told = doctor(runtime_url=f"{tokenizing.url},{scripted.url}")
    assert list(wrong(told)) == ["engine"] and "only 1 of 2 answer" in wrong(told)["engine"] and told.exit_code == 0


def test_an_engine_of_another_version_is_a_warning(tokenizing: Tokenizing, doctor: Doctor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_checks, "SGLANG_VERSION", "9.9.9")
    told = doctor(runtime_url=tokenizing.url)
    assert list(wrong(told)) == ["version"] and "9.9.9" in wrong(told)["version"] and told.exit_code == 0


def test_a_template_that_makes_other_prompts_is_a_problem_and_one_that_is_not_told_a_warning(
    tokenizing: Tokenizing, scripted: ScriptedEngine, doctor: Doctor
):
    tokenizing.same = False
    told = doctor(runtime_url=tokenizing.url)
    assert told.exit_code == 1 and list(wrong(told)) == ["template"] and "What is green?" in wrong(told)["template"]
    assert signs(doctor(runtime_url=scripted.url))["template"] == "!"


@pytest.mark.parametrize("fault", [Die(), Die(after=1), Hang()])
def test_an_engine_that_fails_on_a_picture_is_told_of_and_the_rest_is_still_asked(
    tokenizing: Tokenizing, doctor: Doctor, monkeypatch: pytest.MonkeyPatch, fault: Any
):
    monkeypatch.setattr(engine_checks, "PATIENCE", 0.5)
    tokenizing.script = {"image_soft_token": Reply("A red", fault=fault), "": Reply("Hello!")}
    told = doctor(runtime_url=tokenizing.url)
    assert list(wrong(told)) == ["picture"] and told.exit_code == 1 and signs(told)["sound"] == "✓"


def test_a_wrong_setting_is_named(doctor: Doctor):
    told = doctor(port="eight")
    assert told.exit_code == 1 and "GEMMA3N_PORT" in wrong(told)["settings"]
    assert "not a setting" in wrong(doctor(prot="8000"))["settings"]


def test_settings_are_told_with_where_they_come_from_and_keys_never(tokenizing: Tokenizing, doctor: Doctor, tmp_path: Path):
    told = doctor("--runtime-url", tokenizing.url, api_keys="xyzzy,plugh", max_runs="7", runtime_url="http://u:plover@127.0.0.1:1")
    assert f"runtime_url={tokenizing.url} (flag)" in told.stdout and "max_runs=7 (GEMMA3N_MAX_RUNS)" in told.stdout
    alone = doctor(api_keys="xyzzy,plugh", runtime_api_key="plugh", runtime_url="http://u:plover@127.0.0.1:1")
    for secret in ("xyzzy", "plugh", "plover"):
        assert secret not in told.stdout + alone.stdout


def test_a_server_open_to_all_is_warned_of_and_a_file_of_keys_that_is_not_there_a_problem(tokenizing: Tokenizing, doctor: Doctor, tmp_path: Path):
    told = doctor(runtime_url=tokenizing.url, host="0.0.0.0")
    assert list(wrong(told)) == ["keys"] and told.exit_code == 0 and "GEMMA3N_API_KEYS" in wrong(told)["keys"]
    told = doctor(runtime_url=tokenizing.url, api_keys_file=str(tmp_path / "none"))
    assert list(wrong(told)) == ["keys"] and told.exit_code == 1


def test_a_taken_port_and_a_program_that_is_left_out_are_told_of(tokenizing: Tokenizing, doctor: Doctor, tmp_path: Path):
    (tmp_path / "broken.py").write_text("def\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        told = doctor(runtime_url=tokenizing.url, port=str(taken.getsockname()[1]), programs=str(tmp_path))
    assert set(wrong(told)) == {"port", "programs"} and "broken.py:1" in wrong(told)["programs"] and told.exit_code == 1


def test_packages_that_are_not_those_of_this_release_are_named(tokenizing: Tokenizing, doctor: Doctor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine_checks, "requires", lambda name: ["sglang==0.0.1", "no-such-package>=2", 'x==1; extra == "otel"', "rich>=14"])
    told = doctor(runtime_url=tokenizing.url)
    assert "sglang is 0.5.2 instead of 0.0.1; no-such-package is missing" in wrong(told)["packages"] and told.exit_code == 1


def test_a_check_that_fails_itself_is_told_and_no_traceback_is_shown(tokenizing: Tokenizing, doctor: Doctor, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any) -> None:
        raise RuntimeError("oh")

    monkeypatch.setattr(machine_checks, "disk", broken)
    monkeypatch.setattr(engine_checks, "media", broken)
    told = doctor(runtime_url=tokenizing.url)
    assert set(wrong(told)) == {"disk", "media"} and told.exit_code == 1 and signs(told)["sound"] == "✓"
    assert "Traceback" not in told.output and "RuntimeError" in wrong(told)["disk"]


def test_for_machines_it_is_one_object(tokenizing: Tokenizing, doctor: Doctor):
    told = doctor("--json", runtime_url=tokenizing.url)
    object_ = json.loads(told.stdout)
    assert object_["ok"] is True and told.exit_code == 0 and object_["findings"][0]["what"] == "settings"
    tokenizing.refuse()
    told = doctor("--json", runtime_url=tokenizing.url)
    last = json.loads(told.stdout)["findings"][-1]
    assert (last["what"], last["state"], told.exit_code) == ("engine", "problem", 1) and "gemma3n engine start" in last["advice"]


@given(conversations())
def test_the_prompt_that_is_compared_is_the_one_that_programs_send(conversation: Conversation):
    assert prompt_of(conversation) == prompt_by_executor(turns(conversation) + sgl.assistant_begin())[0]


@pytest.mark.engine
def test_with_a_real_engine_all_is_well_and_a_changed_template_is_noticed(
    engine: str, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
):
    told = doctor(runtime_url=engine)
    assert told.exit_code == 0 and wrong(told) == {} and "'A red square.'" in told.stdout, told.stdout
    for change in (lambda prompt: prompt.replace("\n\n", "\n"), lambda prompt: prompt + " ", lambda prompt: prompt.replace("Hello", " Hello")):
        monkeypatch.setattr(engine_checks, "prompt_of", lambda talk, change=change: change(prompt_of(talk)))
        assert list(wrong(doctor(runtime_url=engine))) == ["template"]
