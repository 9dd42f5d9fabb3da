"""The documents tell the truth: their commands and code run as they stand there, their tables and links are what the code has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from serving import serving
from typer.testing import CliRunner

from cli import app
from gemma3n_sgl import Sampling, connect, errors
from gemma3n_sgl.settings import Settings
from gemma3n_sgl.terminal.given import value_of
from programs.audio import audio
from programs.chat import chat
from programs.describe import describe
from programs.transcribe import transcribe
from programs.vision import vision
from tools import tables

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "docs/hearing.md", "docs/http.md", "docs/operations.md", "docs/programs.md", "docs/settings.md"]
BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
EXPECTED = re.compile(r"^# → (.*)$", re.MULTILINE)
"""What a block prints, told below it: each in this order somewhere in its output."""


def blocks(document: str, *kinds: str) -> list[str]:
    return [found["code"] for found in BLOCK.finditer((ROOT / document).read_text(encoding="utf-8")) if found["kind"] in kinds]


@pytest.mark.parametrize("document", sorted(tables.TABLES))
def test_tables_are_those_of_the_code(document: str):
    assert (ROOT / document).read_text(encoding="utf-8") == tables.renewed(document), "run: python tools/tables.py"


def test_the_error_tree_is_drawn_as_it_is():
    drawn = {entry["name"]: (int(entry["status"]), entry["code"]) for entry in tables.ERROR.finditer(errors.__doc__)}
    classes = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.Gemma3nError)}
    told = {name: (kind.status, kind.type if name in ("Gemma3nError", "RequestError") else kind.code) for name, kind in classes.items()}
    assert drawn == told


def test_the_routes_are_those_of_the_server():
    served = re.findall(r'Route\("([^"]+)"', (ROOT / "server.py").read_text(encoding="utf-8"))
    told = re.findall(r"^\| `(?:GET|POST) ([^`]+)`", (ROOT / "docs/http.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert told == [route.replace(":path", "") for route in served]


def test_the_limits_are_those_of_the_settings():
    told, limits = (ROOT / "docs/http.md").read_text(encoding="utf-8").split("## Limits")[1], Settings.from_env({})
    for limit in (
        f"{limits.max_body_mb} MB",
        f"{limits.max_media_mb} MB",
        f"{limits.max_image_megapixels} megapixels",
        f"{limits.max_image_side} px",
        f"{limits.max_images} pictures",
        f"{limits.max_sounds} sounds",
        f"{limits.max_audio_seconds:g} s of sound",
        f"{limits.first_token_timeout:g} s until",
        f"{limits.token_timeout:g} s between",
        f"{limits.run_timeout:g} s and {limits.max_calls} engine calls",
    ):
        assert limit in told
    assert f"up to {limits.max_audio_seconds / 60:g} minutes" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str):
    text = (ROOT / document).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, heading = link.partition("#")
        if file.startswith("https://"):
            continue
        target = (ROOT / document).parent / file if file else ROOT / document
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", each).lower().replace(" ", "-") for each in headings], link


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_named_are_there(document: str):
    text = (ROOT / document).read_text(encoding="utf-8")
    code = "\n".join([*blocks(document, "sh", "console"), *re.findall(r"`([^`\n]+)`", text)])
    targets = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"^make ([a-z][\w-]*)", code, re.MULTILINE)) <= set(targets)
    commands = re.findall(r"^  ([a-z]+)  ", CliRunner().invoke(app, ["--help"]).stdout, re.MULTILINE)
    assert set(re.findall(r"^gemma3n ([a-z]+)", code, re.MULTILINE)) <= set(commands)


@pytest.mark.engine
@pytest.mark.parametrize("document", ["README.md", "docs/programs.md"])
def test_what_is_written_there_runs_and_prints_what_it_says(document: str, engine: str, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"GEMMA3N_RUNTIME_URL": engine, "PATH": path, "PYTHONPATH": str(ROOT)}
    with serving(Settings(runtime_url=engine)) as served:
        for code in blocks(document, "sh", "python"):
            code = code.replace("127.0.0.1:8000", f"127.0.0.1:{served.port}")
            if saved := re.match(r"# (mine/\w+\.py)\n", code):
                (tmp_path / saved[1]).write_text(code)
                continue
            interpreter = [sys.executable, "-c"] if code.startswith(("from", "import")) else ["bash", "-euc"]
            done = subprocess.run([*interpreter, code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
            position = 0
            for expected in EXPECTED.findall(code):
                assert expected in done.stdout[position:], f"{code}\nprinted: {done.stdout}"
                position = done.stdout.index(expected, position) + len(expected)


MEDIA = ROOT / "tests" / "media"
RED, BLUE, DIGITS = MEDIA / "red-circle.png", MEDIA / "blue-square.jpg", MEDIA / "314.wav"


@pytest.mark.engine
@pytest.mark.parametrize(
    ("program", "parts", "options", "answer"),
    [
        (chat, [RED, "What is in this image?"], {}, "A red circle."),
        (chat, [BLUE, RED, "Describe both pictures."], {}, "First a blue square, then a red circle."),
        (chat, [RED, DIGITS, "What do you see and hear?"], {}, "A red circle; you said 3 1 4."),
        (describe, [MEDIA / "yellow-star.webp"], {}, "A yellow star."),
        (vision, [BLUE, "What colour is it?"], {"effort": "none"}, "Blue."),
        (vision, [BLUE, "What colour is it?"], {"effort": "low"}, "Blue."),
        (vision, [BLUE, "What colour is it?"], {"effort": "high"}, "Blue."),
        (vision, [BLUE, RED, "Describe both pictures."], {"effort": "none"}, "First a blue square, then a red circle."),
        (audio, [MEDIA / "31s.mp3", "Transcribe this audio."], {"effort": "none"}, "4 1 2 3 6 8"),
        (transcribe, [MEDIA / "2min.mp3"], {}, "7 8 1 5 6 5 0 1 4 4 2 6 9 4 2 8 7 3 8"),
    ],
)
def test_what_is_called_true_on_the_small_model_is_true(engine: str, program: Any, parts: list[Any], options: dict[str, str], answer: str):
    values = [part if isinstance(part, str) else value_of(part.read_bytes(), part.name) for part in parts]
    assert connect(engine).run(program, *values, sampling=Sampling(temperature=0), **options).answer == answer
