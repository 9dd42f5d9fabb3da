"""Who may come in: keys from the settings and from a file that changes, never told to anybody; and the names a server without keys goes by."""

from __future__ import annotations

import hmac
import logging
import os
import socket
import time
from pathlib import Path

import pytest
from scripted_engine import ScriptedEngine
from serving import Served, serving, until

from gemma3n_sgl.client import endpoint_of
from gemma3n_sgl.errors import SettingsError
from gemma3n_sgl.serving import keys
from gemma3n_sgl.settings import Settings

MODELS = "/v1/models"


def status(served: Served, key: str, scheme: str = "Bearer") -> int:
    return served.http.get(MODELS, headers={"authorization": f"{scheme} {key}".strip()}).status_code


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("# ours\nfirst\n\n  second  \n")
    return path


def test_keys_of_a_file_and_of_the_settings_are_all_known(scripted: ScriptedEngine, file: Path):
    with serving(Settings(runtime_url=scripted.url, api_keys=("third",), api_keys_file=str(file))) as served:
        assert [status(served, key) for key in ("first", "second", "third")] == [200] * 3
        assert [status(served, key) for key in ("", "firs", "first2", "# ours", "FIRST")] == [401] * 5
        assert status(served, "first", "bearer") == 200 and status(served, "first", "Basic") == 401


def test_a_file_saved_by_an_editor_of_windows_loses_no_key(scripted: ScriptedEngine, file: Path):
    """It begins with a byte order mark, which nobody sees."""
    file.write_text("first\r\nsecond\r\n", "utf-8-sig")
    with serving(Settings(runtime_url=scripted.url, api_keys_file=str(file))) as served:
        assert [status(served, key) for key in ("first", "second")] == [200] * 2


@pytest.mark.parametrize("how", ["written", "exchanged", "a link turned"])
def test_a_file_that_changes_is_read_again_without_a_restart(scripted: ScriptedEngine, file: Path, how: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keys, "GLANCE", 0.02)
    named, other = file, file.with_name("other")
    if how == "a link turned":
        named = file.with_name("link")
        named.symlink_to(file)
    with serving(Settings(runtime_url=scripted.url, api_keys_file=str(named))) as served:
        assert (status(served, "first"), status(served, "fresh")) == (200, 401)
        if how == "written":
            file.write_text("fresh\n")
        else:
            other.write_text("fresh\n")
            if how == "exchanged":
                other.replace(file)
            else:
                (turned := file.with_name("turned")).symlink_to(other)
                turned.replace(named)
        until(lambda: status(served, "fresh") == 200)
        assert status(served, "first") == 401


@pytest.mark.parametrize("change", ["gone", "empty"])
def test_a_file_that_is_lost_changes_nothing_and_opens_nothing(
    scripted: ScriptedEngine, file: Path, change: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(keys, "GLANCE", 0.02)
    with serving(Settings(runtime_url=scripted.url, api_keys_file=str(file))) as served:
        assert status(served, "first") == 200
        file.unlink() if change == "gone" else file.write_text("")
        until(lambda: (status(served, "first"), caplog.records != [])[1])
        time.sleep(0.05)
        assert (status(served, "first"), status(served, "")) == (200, 401)
    assert [record.getMessage().count("can't be read") for record in caplog.records if record.name == "gemma3n"] == [1], "once, not every second"


@pytest.mark.parametrize("setting", ["api_keys_file", "runtime_api_key_file"])
@pytest.mark.parametrize("content", [None, "", "# only a comment\n"])
def test_a_file_without_keys_is_told_before_anything_is_served(tmp_path: Path, setting: str, content: str | None):
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    settings = Settings(**{setting: str(path)})
    with pytest.raises(SettingsError, match=f"GEMMA3N_{setting.upper()}: .*keys"):
        keys.KeyRing(settings) if setting == "api_keys_file" else endpoint_of(settings)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_engines_key_comes_from_a_file(tmp_path: Path, encoding: str):
    (tmp_path / "key").write_text("secret\n", encoding)
    assert Settings(runtime_api_key="other", runtime_api_key_file=str(tmp_path / "key")).engine_key == "secret"


def test_keys_are_compared_in_constant_time_and_all_of_them(monkeypatch: pytest.MonkeyPatch):
    """Digests of one length, every one of them each time, whatever is shown."""
    compared: list[tuple[int, int]] = []
    honest = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return honest(one, other)

    monkeypatch.setattr("gemma3n_sgl.serving.keys.hmac.compare_digest", compare)
    ring = keys.KeyRing(Settings(api_keys=("first", "a much longer key", "x")))
    for shown in ("first", "", "x" * 1000):
        ring.find(shown)
    assert compared == [(32, 32)] * 9


def test_no_key_is_ever_logged_or_shown(scripted: ScriptedEngine, file: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    file.write_text("sesame-0\n")
    settings = Settings(runtime_url=scripted.url, api_keys=("sesame-1",), api_keys_file=str(file), runtime_api_key="sesame-2")
    with serving(settings) as served:
        assert served.ask().status_code == 200
        told = [served.http.get(MODELS, headers={"authorization": f"Bearer {key}"}).text for key in ("sesame-3", "sesame-4")]
    shown = caplog.text + repr(settings) + repr(vars(keys.KeyRing(settings))) + "".join(told)
    assert "sesame" not in shown


# Names


def host_status(served: Served, host: str | None) -> int:
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(f"GET {MODELS} HTTP/1.{0 if host is None else 1}\r\n{'' if host is None else f'host: {host}'}\r\n\r\n".encode())
        return int(client.recv(65536).split()[1])


OURS = ["localhost", "localhost:8000", "LOCALHOST.", "127.0.0.1:8000", "127.0.0.1", "[::1]:8000", "[::1]", "192.168.1.5", "app.localhost:1", None]
OTHERS = ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "[evil.example]", "a,localhost"]


def test_a_page_that_has_made_its_name_mean_this_machine_can_read_nothing(scripted: ScriptedEngine):
    """DNS rebinding: the browser holds the page and this server for one origin, and still says the page's name."""
    with serving(Settings(runtime_url=scripted.url)) as served:
        assert {host: host_status(served, host) for host in OURS} == dict.fromkeys(OURS, 200)
        assert {host: host_status(served, host) for host in OTHERS} == dict.fromkeys(OTHERS, 403)
        told = served.http.get("/health", headers={"host": "evil.example"})
        assert told.status_code == 403 and "GEMMA3N_HOSTS" in told.json()["error"]["message"]


@pytest.mark.parametrize("settings", [{"api_keys": ("none",)}, {"host": "0.0.0.0"}, {"hosts": ("evil.example",)}], ids=["keys", "open", "named"])
def test_behind_a_proxy_any_name_will_do(scripted: ScriptedEngine, settings: dict[str, object]):
    with serving(Settings(runtime_url=scripted.url, **settings)) as served:
        assert served.http.get(MODELS, headers={"host": "evil.example"}).status_code == 200


def test_the_environment_names_the_files():
    settings = Settings.from_env({"GEMMA3N_API_KEYS_FILE": "/run/secrets/keys", "GEMMA3N_HOSTS": "a.example, b.example"})
    assert settings.api_keys_file == os.path.join("/run", "secrets", "keys") and settings.hosts == ("a.example", "b.example")
