"""The command line: files and words in, the answer alone on the standard output, and errors a person can act on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from scripted_engine import Reply, Say, ScriptedEngine
from typer.testing import CliRunner, Result

from cli import app

MEDIA = Path(__file__).parent / "media"
PICTURE, SOUND = str(MEDIA / "red-circle.png"), str(MEDIA / "314.wav")

Command = Callable[..., Result]

OWN = """
    from typing import Literal
    import sglang as sgl
    from gemma3n_sgl import assistant, user

    @sgl.function
    def tag(
        s,
        text: str,
        tags: list[str] = ["a"], most: int | None = None, tone: Literal["dry", "warm"] = "dry", loud: bool = False, seed: int = 7,
    ):
        \"\"\"Tag a text.

        More about it.
        \"\"\"
        s += user(f"{text} {tags} {most} {tone} {loud} {seed}") + assistant(sgl.gen("answer"))

    @sgl.function
    def falls(s, text: str):
        \"\"\"Fall.\"\"\"
        1 / 0
"""


@pytest.fixture
def gemma3n(scripted: ScriptedEngine) -> Command:
    """The command, as typed: `gemma3n("run", "describe", "cat.png")`."""

    def run(*words: str, stdin: bytes = b"", **environment: str) -> Result:
        env = {"GEMMA3N_RUNTIME_URL": scripted.url} | environment
        return CliRunner().invoke(app, list(words), input=stdin, env=env, prog_name="gemma3n")

    return run


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder with two programs of one's own, and one that is broken."""
    (tmp_path / "own.py").write_text(dedent(OWN))
    (tmp_path / "broken.py").write_text("import sglang\nimport no_such_module\n")
    return str(tmp_path)


def prompt(engine: ScriptedEngine) -> str:
    """What the engine was asked last."""
    return str(engine.requests[-1]["text"])


class TestRun:
    def test_the_answer_alone_is_on_the_standard_output_and_steps_are_beside_it(self, gemma3n: Command, scripted: ScriptedEngine):
        scripted.script = {"Now answer": Reply("Red."), "step by step": Reply("It is red."), "in detail": Reply("A circle.")}
        result = gemma3n("run", "vision", PICTURE, "Which colour?")
        assert (result.stdout, result.exit_code) == ("Red.\n", 0)
        assert result.stderr == "observation: A circle.\nreasoning: It is red.\n"

    def test_what_a_file_is_is_seen_in_it_and_not_in_its_name(self, gemma3n: Command, scripted: ScriptedEngine, tmp_path: Path):
        for name, source in {"sound.png": SOUND, "picture.wav": PICTURE}.items():
            (tmp_path / name).write_bytes(Path(source).read_bytes())
        (tmp_path / "words.mp3").write_text("Which one?\n")
        assert gemma3n("run", "chat", *(str(tmp_path / name) for name in ("sound.png", "picture.wav", "words.mp3"))).exit_code == 0
        assert "<audio_soft_token><image_soft_token>Which one?<end_of_turn>" in prompt(scripted)
        assert scripted.requests[-1]["image_data"][0].startswith("data:image/")
        assert scripted.requests[-1]["audio_data"][0].startswith("data:audio/wav")

    @pytest.mark.parametrize(("stdin", "place"), [(Path(PICTURE).read_bytes(), "<image_soft_token>"), (b"Good day.\n", "user\nGood day.<")])
    def test_a_dash_is_the_standard_input(self, gemma3n: Command, scripted: ScriptedEngine, stdin: bytes, place: str):
        assert gemma3n("run", "chat", "-", stdin=stdin).exit_code == 0
        assert place in prompt(scripted)

    def test_options_of_the_signature_are_flags(self, gemma3n: Command, scripted: ScriptedEngine, folder: str):
        assert gemma3n("run", "describe", PICTURE, "--language", "French").exit_code == 0
        assert "Answer in French." in prompt(scripted)
        words = ("--tags", '["x", "y"]', "--most", "3", "--tone", "warm", "--loud", "--seed", "9")
        assert gemma3n("run", "tag", "It is:", *words, "--programs", folder).exit_code == 0
        assert "It is: ['x', 'y'] 3 warm True 9" in prompt(scripted)
        assert gemma3n("run", "--programs", folder, "tag", "It is:").exit_code == 0
        assert "It is: ['a'] None dry False 7" in prompt(scripted)

    def test_help_of_a_program_lists_its_inputs_and_options_with_choices_and_defaults(self, gemma3n: Command, folder: str):
        said = gemma3n("run", "tag", "--help", GEMMA3N_PROGRAMS=folder).stdout
        assert "Tag a text." in said
        assert "More about it." in said
        assert "words as they are" in said
        assert "--tone <dry|warm>" in said
        assert "[default: dry]" in said
        assert "--loud / --no-loud" in said
        assert "--seed N" in said
        assert "[default: 7]" in said
        assert "describe" in gemma3n("run", "--help").stdout

    def test_sampling_flags_reach_the_engine(self, gemma3n: Command, scripted: ScriptedEngine):
        assert gemma3n("run", "chat", "Hi.", "--temperature", "0", "--max-tokens", "5", "--seed", "3").exit_code == 0
        sent = scripted.requests[-1]["sampling_params"]
        assert (sent["temperature"], sent["max_new_tokens"], sent["sampling_seed"]) == (0, 5, 3)

    def test_json_is_one_object_with_answer_steps_and_usage(self, gemma3n: Command, scripted: ScriptedEngine):
        scripted.script = {"Now answer": Reply("Red."), "": Reply("A circle.")}
        result = gemma3n("run", "vision", PICTURE, "Which colour?", "--json")
        told = json.loads(result.stdout)
        assert (told["answer"], told["finish_reason"], result.stderr) == ("Red.", "stop", "")
        assert [step["name"] for step in told["steps"]] == ["observation", "reasoning"]
        assert told["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0

    def test_an_answer_that_was_cut_off_is_told_as_such(self, gemma3n: Command, scripted: ScriptedEngine):
        scripted.script = Reply("Once upon", finish={"type": "length", "length": 2})
        result = gemma3n("run", "chat", "Tell a story.", "--max-tokens", "2")
        assert result.stdout == "Once upon\n"
        assert "cut off" in result.stderr


class TestErrors:
    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("run", "describe", "nowhere.png"), "There is no file 'nowhere.png'"),
            (("run", "chat", "nowhere.png"), "There is no file 'nowhere.png'"),
            (("run", "describe"), "gemma3n run describe --help"),
            (("run", "describe", SOUND), "needs a picture"),
            (("run", "describe", str(MEDIA / "cut-off.png")), "cut-off.png: The picture is damaged or cut off"),
            (("run", "descripe", PICTURE), "Did you mean 'describe'?"),
            (("run", "describe", PICTURE, "--size", "3"), "--size"),
            (("run", "vision", PICTURE, "--effort", "huge"), "'none', 'low', 'high'"),
            (("chat", "Hi.", "--image", SOUND), "is not a picture"),
            (("chat", "Hi.", "--audio", "nowhere.wav"), "There is no file 'nowhere.wav'"),
            (("chat", "Hi.", "--temperature", "9"), "--temperature"),
            (("chat", "Hi.", "--runtime-url", "nowhere"), "--runtime-url: must be an http:// or https:// address"),
            (("chat",), "the standard input: this is empty"),
            (("nonsense",), "nonsense"),
        ],
    )
    def test_wrong_usage_and_bad_input_exit_with_2_before_the_engine_is_asked(
        self, gemma3n: Command, scripted: ScriptedEngine, words: tuple[str, ...], told: str
    ):
        result = gemma3n(*words)
        assert result.exit_code == 2
        assert told in result.stderr
        assert "Traceback" not in result.output
        assert result.stdout == ""
        assert scripted.requests == []

    def test_an_engine_that_is_not_there_exits_with_1_and_the_next_step(self, gemma3n: Command):
        result = gemma3n("run", "chat", "Hi.", "--runtime-url", "http://127.0.0.1:1")
        assert result.exit_code == 1
        assert "http://127.0.0.1:1" in result.stderr
        assert "gemma3n engine start" in result.stderr
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1

    def test_what_the_engine_says_against_a_prompt_is_told(self, gemma3n: Command, scripted: ScriptedEngine):
        refusal = b'{"error": {"message": "The input (5000 tokens) is longer than the model\'s context length (4096 tokens)."}}'
        scripted.script = Reply(fault=Say(data=refusal, status=400))
        result = gemma3n("run", "chat", "Hi.")
        assert result.exit_code == 2
        assert "context length" in result.stderr

    def test_a_program_that_fails_is_named_and_debug_shows_where(self, gemma3n: Command, folder: str):
        result = gemma3n("run", "falls", "x", "--programs", folder)
        assert result.exit_code == 1
        assert "'falls' failed with ZeroDivisionError. --debug shows where." in result.stderr
        assert "Traceback" not in result.output
        shown = gemma3n("run", "falls", "x", "--programs", folder, "--debug")
        assert shown.exit_code == 1
        assert "1 / 0" in shown.stderr

    def test_with_json_an_error_is_an_object_too(self, gemma3n: Command):
        result = gemma3n("run", "describe", SOUND, "--json")
        assert json.loads(result.stdout)["error"]["code"] == "invalid_value"
        assert result.exit_code == 2

    def test_a_setting_that_is_none_is_named(self, gemma3n: Command):
        result = gemma3n("run", "chat", "Hi.", GEMMA3N_PORT="eighty")
        assert result.exit_code == 2
        assert "GEMMA3N_PORT" in result.stderr


class TestChat:
    def test_a_question_with_pictures_and_sound_is_answered_at_once(self, gemma3n: Command, scripted: ScriptedEngine):
        scripted.script = Reply("Both.")
        result = gemma3n("chat", "What", "is this?", "--image", PICTURE, "--audio", SOUND, "--system", "Be brief.")
        assert result.stdout == "Both.\n"
        assert len(scripted.requests) == 1
        assert "user\nBe brief.\n\n<image_soft_token><audio_soft_token>What is this?<end_of_turn>" in prompt(scripted)

    def test_a_question_may_be_piped_in(self, gemma3n: Command, scripted: ScriptedEngine):
        assert gemma3n("chat", stdin=b"Good day.\n").exit_code == 0
        assert "user\nGood day.<end_of_turn>" in prompt(scripted)


class TestPrograms:
    def test_the_table_tells_what_each_takes_and_what_could_not_be_loaded(self, gemma3n: Command, folder: str):
        result = gemma3n("programs", "--programs", folder)
        assert result.exit_code == 0
        [row] = [line for line in result.stdout.splitlines() if line.startswith("describe")]
        assert row.split("  ")[0] == "describe"
        assert "image" in row
        assert "language=English" in row
        assert "Say what is in a picture." in row
        assert f"{folder}/broken.py:2: ModuleNotFoundError" in result.stderr

    def test_as_json_it_holds_the_schema_of_the_options(self, gemma3n: Command, folder: str):
        told = json.loads(gemma3n("programs", "--json", "--programs", folder).stdout)
        [tag] = [program for program in told["programs"] if program["name"] == "tag"]
        assert tag["model"] == "gemma-3n:tag"
        assert tag["options"]["properties"]["tone"]["enum"] == ["dry", "warm"]
        assert told["problems"][0]["line"] == 2

    def test_a_program_that_could_not_be_loaded_is_explained_when_it_is_asked_for(self, gemma3n: Command, folder: str):
        result = gemma3n("run", "broken", "x", "--programs", folder)
        assert result.exit_code == 2
        assert "broken.py:2" in result.stderr


@pytest.mark.engine
class TestWithTheEngine:
    @pytest.mark.parametrize(
        ("words", "answer"),
        [
            (("run", "describe", PICTURE), "A red circle."),
            (("run", "transcribe", SOUND), "3 1 4"),
            (("chat", "What colour is it?", "--image", str(MEDIA / "blue-square.jpg")), "Blue."),
            (("chat", "Transcribe this audio.", "--audio", str(MEDIA / "20s.mp3")), "2 7 1 8 2"),
        ],
    )
    def test_it_sees_and_hears(self, engine: str, words: tuple[str, ...], answer: str):
        result = CliRunner().invoke(app, [*words, "--runtime-url", engine, "--temperature", "0"])
        assert result.stdout == f"{answer}\n"
