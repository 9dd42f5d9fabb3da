"""Programs are found in folders; one that can't be served is reported with its line, and the others still serve."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from gemma3n_sgl import Audio, Conversation, Image, Recording
from gemma3n_sgl.errors import ModelNotFound
from gemma3n_sgl.registry import Registry

BUILT_IN = [
    "ask_recording", "audio", "chat", "compare", "describe", "minutes", "subtitles", "tools", "transcribe", "translate_speech", "vision",
]  # fmt: skip
PICTURE = Image(b"", width=1, height=1, media_type="image/png")
CLIP = Audio.from_pcm(b"\0\0")

HEAD = "import sglang as sgl\nfrom gemma3n_sgl import Conversation, assistant, turns\n"
GOOD = HEAD + '@sgl.function\ndef {name}(s, conversation: Conversation):\n    """Good."""\n    s += turns(conversation)\n'


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(dedent(text))
    return folder


def test_the_built_in_programs_are_found_and_sound():
    registry = Registry.discover()
    assert sorted(registry.programs) == BUILT_IN
    assert registry.problems == []
    assert registry.models == ["gemma-3n", *(f"gemma-3n:{name}" for name in BUILT_IN)]


def test_a_folder_of_ones_own_adds_programs(tmp_path: Path):
    registry = Registry.discover([write(tmp_path, mine=GOOD.format(name="mine"), _helper="1/0")])
    assert "mine" in registry.programs and registry.problems == []


def test_broken_files_are_reported_with_their_line_and_the_others_serve(tmp_path: Path):
    write(
        tmp_path,
        a_syntax="x = 1\ndef broken(:\n",
        b_import="import os\nimport no_such_module\n",
        c_raises="def f():\n    return 1 / 0\n\nf()\n",
        d_exits="import sys\nsys.exit(3)\n",
        e_empty="x = 1\n",
        f_signature=HEAD + '\n@sgl.function\ndef wrong(s, when: int):\n    """No."""\n',
        g_taken=GOOD.format(name="chat"),
        h_good=GOOD.format(name="good"),
    )
    registry = Registry.discover([tmp_path])
    found = {problem.file.stem: (problem.line, problem.message) for problem in registry.problems}
    assert "good" in registry.programs and len(found) == 7
    assert found["a_syntax"][0] == 2 and "SyntaxError" in found["a_syntax"][1]
    assert found["b_import"] == (2, "ModuleNotFoundError: No module named 'no_such_module'")
    assert found["c_raises"][0] == 2 and "ZeroDivisionError" in found["c_raises"][1]
    assert found["d_exits"][0] == 2
    assert found["e_empty"] == (None, "there is no @sgl.function in it")
    assert found["f_signature"][0] == 4 and "can't be filled" in found["f_signature"][1]
    assert "already" in found["g_taken"][1]
    assert str(registry.problems[0]).startswith(f"{tmp_path}/a_syntax.py:2: ")


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path):
    [problem] = Registry.discover([tmp_path / "nowhere"]).problems
    assert problem.message == "there is no such folder"


@pytest.mark.parametrize(
    ("parts", "program"),
    [(("hi",), "chat"), ((PICTURE, "hi"), "vision"), ((CLIP,), "audio"), ((PICTURE, CLIP), "audio"), ((Recording(b""), "hi"), "audio")],
)
def test_gemma_3n_chooses_by_what_the_conversation_holds_and_answers_at_once(parts: tuple[object, ...], program: str):
    registry, talk = Registry.discover(), Conversation.of(*parts)  # type: ignore[arg-type]
    chosen, options = registry.choose("gemma-3n", talk)
    assert chosen.name == program
    assert options == ({} if program == "chat" else {"effort": "none"})
    assert registry.choose("the-engines-own", talk, also=("the-engines-own",)) == (chosen, options)
    assert registry.choose("gemma-3n", talk, effort="high")[1] == ({} if program == "chat" else {"effort": "high"})


def test_a_program_named_outright_works_at_its_own_effort_unless_told():
    registry, talk = Registry.discover(), Conversation.of("hi")
    assert registry.choose("gemma-3n:vision", talk)[1] == {}
    assert registry.choose("gemma-3n:vision", talk, effort="high")[1] == {"effort": "high"}
    assert registry.choose("gemma-3n:chat", talk, effort="high")[1] == {}


@pytest.mark.parametrize("model", ["gpt-4o", "gemma-3n:nope", "", "gemma-3n:", "../etc"])
def test_an_unknown_model_is_said_with_those_there_are(model: str):
    with pytest.raises(ModelNotFound, match="gemma-3n:chat"):
        Registry.discover().choose(model, Conversation.of("hi"))
