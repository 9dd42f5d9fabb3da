"""The house as CONTRIBUTING draws it: rooms import only what lies below them, libraries stay where they belong, and the façade is whole."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import gemma3n_sgl

ROOT = Path(__file__).parent.parent
FLOORS = [
    {"shown"},
    {"errors", "conversation", "bridge", "holdback", "events", "joining", "lengths"},
    {"settings", "engine", "refusals", "connections", "program", "sampling", "calling", "forms", "subtitles"},
    {"media", "generated"},
    {"language", "transport"},
    {"relay"},
    {"engines"},
    {"endpoint", "condensing"},
    {"executor"},
    {"running", "transcript", "asking", "notebook"},
    {"client", "openai", "hearing"},
    {"gemma3n_sgl", "serving"},
    {"programs"},
    {"registry"},
    {"shell"},
    {"terminal"},
    {"server"},
    {"cli"},
]
"""Rooms from the ground up. A room may import those of the floors below its own; `gemma3n_sgl` is the façade."""

AT_HOME = {
    "av": {"media"},
    "greenlet": {"bridge"},
    "httptools": {"connections", "serving"},
    "msgspec": {"generated"},
    "httpx": {"media"},
    "PIL": {"media"},
    "pydub": {"media"},
    "rich": {"terminal", "engine"},
    "sglang": {
        "language", "hearing", "asking", "transcript", "condensing", "endpoint", "executor",
        "running", "program", "sampling", "calling", "client", "registry", "programs",
    },
    "ssrfguard": {"media"},
    "starlette": {"serving", "shell", "server", "terminal"},
    "typer": {"terminal", "engine", "cli"},
    "uvicorn": {"serving"},
}
"""Libraries, and the only rooms that know them: HTTP never sees a flow, a program never sees HTTP, a value never fetches."""

FILES = sorted(
    file
    for file in [*ROOT.glob("gemma3n_sgl/**/*.py"), *ROOT.glob("programs/*.py"), ROOT / "server.py", ROOT / "cli.py"]
    if "gemma3n_sgl/engine/cpu" not in file.as_posix()  # put into the engine's own environment, and no part of ours
)


def room_of(module: str) -> str:
    """`gemma3n_sgl.media.audio` → media; `gemma3n_sgl` → gemma3n_sgl."""
    first, *rest = module.split(".")
    return rest[0] if first == "gemma3n_sgl" and rest else first


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def nodes_of(file: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


def imported(file: Path) -> Iterator[str]:
    """The modules a file imports, its own package's submodules by their own names."""
    for node in nodes_of(file):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            for name in node.names:
                module = f"{node.module}.{name.name}"
                yield module if (ROOT / module.replace(".", "/")).with_suffix(".py").exists() else str(node.module)


def test_imports_go_down_only():
    floor = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
    for file in FILES:
        room = room_of(module_of(file))
        for module in imported(file):
            if module.split(".")[0] in ("gemma3n_sgl", "programs", "server", "cli") and room_of(module) != room:
                assert floor[room_of(module)] < floor[room], f"{file} imports {module}"


def test_libraries_stay_in_their_rooms():
    for file in FILES:
        for module in imported(file):
            library, room = module.split(".")[0], room_of(module_of(file))
            assert room in AT_HOME.get(library, {room}), f"{library} does not belong in {file}"


@pytest.mark.parametrize("file", sorted(ROOT.glob("programs/[!_]*.py")), ids=lambda file: file.stem)
def test_a_program_knows_sglang_and_the_facade_only(file: Path):
    assert set(imported(file)) <= {"typing", "sglang", "gemma3n_sgl"}


def test_imports_stand_at_the_top():
    """But for the commands', whose help would have to wait for what running them needs."""
    for file in FILES:
        functions = [node for node in nodes_of(file) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and file.name != "cli.py"]
        within = [node for function in functions for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not within, f"{file} imports within a function"


def test_the_facade_is_complete_and_its_stub_says_the_same():
    tree = ast.parse((ROOT / "gemma3n_sgl/__init__.pyi").read_text(encoding="utf-8"))
    stub = {name.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert stub == {name: f"gemma3n_sgl.{room}" for room, names in gemma3n_sgl._HOMES.items() for name in names}
    assert sorted(stub) == gemma3n_sgl.__all__ and set(gemma3n_sgl.__all__) <= set(dir(gemma3n_sgl))
    for name, module in stub.items():
        assert getattr(gemma3n_sgl, name) is getattr(sys.modules[str(module)], name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gemma3n_sgl.nothing  # noqa: B018


def test_help_waits_for_no_engine_and_no_media():
    program = "import sys; sys.argv[1:] = ['--help']\nimport cli\ntry: cli.main()\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert "typer" in loaded and not loaded & {"sglang", "numpy", "aiohttp", "httpx", "av", "PIL", "starlette", "uvicorn", "openai"}


def test_the_map_shows_every_room_and_no_other():
    map_ = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("```")[1]
    shown = re.findall(r"^(?:  )?([a-z_0-9]+)(?:\.py|/)", map_, re.MULTILINE)
    assert sorted(shown) == sorted(room for rooms in FLOORS for room in rooms)
