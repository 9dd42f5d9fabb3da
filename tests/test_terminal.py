"""The command line as a person meets it: at a terminal, with Ctrl-C, in a pipe; and the server it starts."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pexpect
import psutil
import pytest
from scripted_engine import Die, Reply, ScriptedEngine
from serving import until

import cli
from gemma3n_sgl.engine import is_installed
from gemma3n_sgl.errors import SettingsError
from gemma3n_sgl.terminal.listening import listen, reserve

pytestmark = pytest.mark.slow

PICTURE = str(Path(__file__).parent / "media" / "red-circle.png")
COMMAND = [sys.executable, cli.__file__]
ENGINE = Path(cli.__file__).parent / ".venv-engine"
DIM = "\x1b[2m"

Start = Callable[..., "pexpect.spawn[str]"]


def environment(engine: ScriptedEngine, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return kept | {"GEMMA3N_RUNTIME_URL": engine.url, "TERM": "xterm-256color"} | more


@pytest.fixture
def terminal(scripted: ScriptedEngine) -> Iterator[Start]:
    """`terminal("chat")` is the command at a terminal, 100 columns wide."""
    started = []

    def start(*words: str, **more: str) -> pexpect.spawn[str]:
        env = environment(scripted, **more)
        child = pexpect.spawn(COMMAND[0], [*COMMAND[1:], *words], env=env, encoding="utf-8", timeout=10, dimensions=(30, 100))
        started.append(child)
        return child

    yield start
    for child in started:
        child.close(force=True)


def ended(child: pexpect.spawn[str]) -> tuple[str, int | None]:
    """All that was shown until the command ended, and its exit code."""
    child.expect(pexpect.EOF)
    child.close()
    return child.before or "", child.exitstatus


class TestRun:
    def test_steps_are_dimmed_and_no_color_is_respected(self, terminal: Start, scripted: ScriptedEngine):
        scripted.script = {"Now answer": Reply("Red."), "": Reply("A circle.")}
        shown, code = ended(terminal("run", "vision", PICTURE, "Which colour?"))
        assert f"{DIM}observation: A circle." in shown
        assert "Red.\r\n" in shown
        assert code == 0
        plain, _ = ended(terminal("run", "vision", PICTURE, "Which colour?", NO_COLOR="1"))
        assert "observation: A circle." in plain
        assert "\x1b[" not in plain

    def test_the_answer_is_shown_as_it_comes(self, terminal: Start, scripted: ScriptedEngine):
        scripted.script = Reply("One two three four five six seven eight.", delay=0.2)
        child = terminal("run", "chat", "Count.")
        child.expect("One two")
        assert scripted.open == 1
        assert "eight." in ended(child)[0]

    def test_long_silence_shows_a_sign_of_life_on_a_terminal_only(self, terminal: Start, scripted: ScriptedEngine):
        scripted.script = Reply("Well.", delay=1.5)
        child = terminal("run", "chat", "Think.")
        child.expect("thinking")
        assert "Well." in ended(child)[0]
        piped = subprocess.run([*COMMAND, "run", "chat", "Think."], env=environment(scripted), capture_output=True, timeout=10)
        assert (piped.stdout, piped.stderr) == (b"Well.\n", b"")

    def test_ctrl_c_ends_the_run_in_the_engine_and_exits_with_130(self, terminal: Start, scripted: ScriptedEngine):
        scripted.script = Reply("word " * 500, delay=0.02)
        child = terminal("run", "chat", "Go on.")
        child.expect("word word")
        child.sendintr()
        shown, code = ended(child)
        assert code == 130
        assert "Traceback" not in shown
        until(lambda: scripted.cut == 1 and scripted.open == 0)

    def test_what_the_model_writes_does_not_command_the_terminal(self, terminal: Start, scripted: ScriptedEngine):
        scripted.script = Reply("safe\x1b]0;owned\x07 and\x1b[2J sound")
        shown, _ = ended(terminal("run", "chat", "Hi."))
        assert "safe]0;owned and[2J sound" in shown

    def test_a_reader_that_leaves_early_is_no_error(self, scripted: ScriptedEngine):
        scripted.script = Reply("word " * 200, delay=0.005)
        command = f"{' '.join(COMMAND)} run chat Hi. | head -c 4"
        piped = subprocess.run(["bash", "-c", command], env=environment(scripted), capture_output=True, timeout=10)
        assert (piped.stdout, piped.stderr) == (b"word", b"")
        until(lambda: scripted.open == 0)


class TestChat:
    def test_a_conversation_remembers_what_was_said_until_reset(self, terminal: Start, scripted: ScriptedEngine):
        scripted.script = {"second": Reply("You said first."), "first": Reply("Noted.")}
        child = terminal("chat")
        child.expect("> ")
        child.sendline("This is first.")
        child.expect("Noted.\r\n")
        child.sendline(f"/image {PICTURE}")
        child.expect(re.escape("[1 picture] > "))
        child.sendline("This is second.")
        child.expect("You said first.\r\n")
        assert "first.<end_of_turn>\n<start_of_turn>model\nNoted.<end_of_turn>" in scripted.requests[-1]["text"]
        assert "<image_soft_token>This is second." in scripted.requests[-1]["text"]
        child.sendline("/reset")
        child.sendline("The second time.")
        child.expect("You said first.\r\n")
        assert "Noted." not in scripted.requests[-1]["text"]
        assert "image_data" not in scripted.requests[-1]
        child.expect("> ")
        child.sendeof()
        assert ended(child)[1] == 0

    def test_ctrl_c_stops_the_answer_and_not_the_chat(self, terminal: Start, scripted: ScriptedEngine):
        scripted.script = {"Thanks": Reply("Welcome."), "": Reply("word " * 500, delay=0.02)}
        child = terminal("chat")
        child.expect("> ")
        child.sendline("Go on.")
        child.expect("word word")
        child.sendintr()
        child.expect("> ")
        until(lambda: scripted.cut == 1 and scripted.open == 0)
        child.sendline("Thanks")
        child.expect("Welcome.")
        assert "model\nword word" in scripted.requests[-1]["text"]
        child.sendline("/quit")
        assert ended(child)[1] == 0

    def test_an_error_is_told_and_the_chat_goes_on(self, terminal: Start, scripted: ScriptedEngine):
        scripted.script = {"again": Reply("Here I am."), "": Reply("x", fault=Die())}
        child = terminal("chat")
        child.expect("> ")
        child.sendline("/image nowhere.png")
        child.expect("There is no file 'nowhere.png'")
        child.sendline("Hello.")
        child.expect("Error: The engine broke off")
        child.sendline("/what")
        child.expect("There is no command /what")
        child.sendline("again")
        child.expect("Here I am.")
        assert "Hello." not in scripted.requests[-1]["text"]


class TestServe:
    @pytest.fixture
    def serve(self, scripted: ScriptedEngine) -> Iterator[Callable[..., subprocess.Popen[str]]]:
        """Starts `gemma3n serve` and ends it, whatever the test does."""
        started = []

        def start(*words: str, **more: str) -> subprocess.Popen[str]:
            env = environment(scripted, **more)
            server = subprocess.Popen([*COMMAND, "serve", *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            started.append(server)
            return server

        yield start
        for server in started:
            server.kill()
            server.communicate()

    def test_it_says_where_it_serves_what_it_left_out_and_what_to_try(self, serve, scripted: ScriptedEngine, tmp_path: Path):
        (tmp_path / "broken.py").write_text("import no_such_module\n")
        server = serve("--port", "0", "--programs", str(tmp_path), GEMMA3N_PORT="1")
        url = re.search(r"http://127.0.0.1:\d+", server.stdout.readline())[0]
        said = "".join(server.stdout.readline() for _ in range(3))
        assert scripted.url in said
        assert "gemma-3n-e4b" in said
        assert "describe" in said
        [example] = [line.removeprefix("Try it: ") for line in said.splitlines() if line.startswith("Try it: ")]
        answer = subprocess.run(["bash", "-c", f"{example} -s"], capture_output=True, timeout=10, check=True)
        assert b"Hello there." in answer.stdout
        assert httpx.get(f"{url}/health").status_code == 200
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=10)
        assert f"{tmp_path}/broken.py:1: ModuleNotFoundError" in errors
        assert "Traceback" not in errors
        assert server.returncode == 0

    def test_a_port_that_is_taken_is_told_in_a_sentence(self, serve):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            _, errors = (server := serve("--port", str(port))).communicate(timeout=10)
        assert errors == f"Error: Port {port} is taken by another program. Choose another: gemma3n serve --port {port + 1}\n"
        assert server.returncode == 2

    def test_ctrl_c_ends_it_with_130(self, serve):
        server = serve("--port", "0")
        server.stdout.readline()
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=10)
        assert server.returncode == 130
        assert "Traceback" not in errors

    def test_a_port_is_held_from_before_the_engine_is_loaded_and_free_again_at_once(self):
        with reserve("127.0.0.1", 0) as held:
            port = held.getsockname()[1]
            with pytest.raises(SettingsError, match=f"Port {port} is taken"), reserve("127.0.0.1", port):
                raise AssertionError("two have it")
            listen(held)
            with socket.create_connection(("127.0.0.1", port)), held.accept()[0] as served:
                served.shutdown(socket.SHUT_RDWR)  # so that its end keeps the port in TIME_WAIT
        with reserve("127.0.0.1", port):
            pass


@pytest.mark.engine
def test_an_engine_of_its_own_is_gone_with_the_server():
    if not is_installed("cpu", ENGINE):
        pytest.skip("no engine is installed here")
    words = ["serve", "--port", "0", "--with-engine", "--engine-port", "0"]
    server = subprocess.Popen([*COMMAND, *words], cwd=ENGINE.parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert "is served at" in server.stdout.readline()
    family = psutil.Process(server.pid).children(recursive=True)
    assert len(family) > 1
    server.send_signal(signal.SIGINT)
    server.communicate(timeout=20)
    assert server.returncode == 130
    assert [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []


def test_the_version_is_told():
    told = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, timeout=10)
    assert re.fullmatch(r"gemma3n \d+\.\d+\.\d+\S*\n", told.stdout)
