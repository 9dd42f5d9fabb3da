"""The command `gemma3n`: programs for people at a terminal, and the server that offers them to everyone else.

Each command imports what it needs when it runs, so that `--help` need not wait for SGLang.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from gemma3n_sgl.engine import DEFAULT_PORT
from gemma3n_sgl.engine.commands import app as engine_commands
from gemma3n_sgl.errors import InvalidValue
from gemma3n_sgl.settings import Settings
from gemma3n_sgl.subtitles import Format
from gemma3n_sgl.terminal.flags import ProgramGroup, Work

if TYPE_CHECKING:
    from gemma3n_sgl.conversation import Recording
    from gemma3n_sgl.events import Done, Event, Segment
    from gemma3n_sgl.program import Program
    from gemma3n_sgl.registry import Registry

EPILOG = (
    "Exit codes: 0 fine, 1 the run failed (engine, program), 2 wrong usage or bad input, 130 Ctrl-C. "
    "Settings are GEMMA3N_… in the environment; flags win."
)

DEFAULTS = Settings.from_env({})


Folders = Annotated[list[str] | None, typer.Option("--programs", metavar="DIR", help="A folder with programs of your own; repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
Url = Annotated[str | None, typer.Option(metavar="URL", help="The engine to use, if not the one of GEMMA3N_RUNTIME_URL.")]
Temperature = Annotated[float | None, typer.Option(min=0, max=2, metavar="N", help="0: always the likeliest word; higher: more varied.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, metavar="N", help="The longest answer, in tokens; of a long recording, about each part.")]
Seed = Annotated[int | None, typer.Option(metavar="N", help="The same number draws the same words.")]


class Commands(TyperGroup):
    """All commands. What goes wrong is said in a sentence or two; --debug, wherever it stands, shows where."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        flags = given[: given.index("--")] if "--" in given else given[:]
        if "--debug" in flags:
            given.remove("--debug")
        try:
            return super().main(given, *more, **extra)
        except Exception as error:
            from gemma3n_sgl.terminal.showing import exit_code, tell_error

            if "--debug" in flags:
                traceback.print_exc()
            tell_error(error, as_json="--json" in flags)
            sys.exit(exit_code(error))


class Programs(ProgramGroup):
    """`gemma3n run`."""

    def discover(self, folders: list[str]) -> Registry:
        from gemma3n_sgl.registry import Registry

        return Registry.discover(folders or settings_of().programs)

    def work(self) -> Work:
        return run_program


app = typer.Typer(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    epilog=EPILOG,
)
runs = typer.Typer(cls=Programs, rich_markup_mode=None, no_args_is_help=True, subcommand_metavar="PROGRAM [INPUT]...", epilog=EPILOG)


def main() -> None:
    """Entry point of the command `gemma3n`."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed by whoever started this
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open as long as the process
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal without UTF-8 gets "?" and no traceback
    app(prog_name="gemma3n")


def settings_of(**flags: Any) -> Settings:
    """The settings of the environment; flags that are given win."""
    from pydantic import ValidationError

    settings = Settings.from_env(os.environ).model_dump() | {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings.model_validate(settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        flag = str(first["loc"][0]).replace("_", "-")
        raise InvalidValue(f"--{flag}: {first['msg'].removeprefix('Value error, ')}.") from None


def _tell_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"gemma3n {version('gemma3n-sgl')}")
        raise typer.Exit


@app.callback()
def of_all_commands(
    show_version: Annotated[bool, typer.Option("--version", help="Say which version this is.", callback=_tell_version, is_eager=True)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """Ask Gemma 3n about text, pictures and sound; run programs on it; serve them."""


@app.command(epilog=EPILOG)
def serve(
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help=f"Address to serve on, if not GEMMA3N_HOST ({DEFAULTS.host}).")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, metavar="N", help=f"Port to serve on, if not GEMMA3N_PORT ({DEFAULTS.port}).")] = None,
    with_engine: Annotated[bool, typer.Option("--with-engine", help="Start an engine on this machine, and end it at the end.")] = False,
    engine_port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="The port of that engine; 0: any.")] = DEFAULT_PORT,
    programs: Folders = None,
    workers: Annotated[int | None, typer.Option(min=1, metavar="N", help="Server processes behind the port, if not GEMMA3N_WORKERS (1).")] = None,
    runtime_url: Url = None,
) -> None:
    """Serve the programs as OpenAI models."""
    from gemma3n_sgl.serving.workers import shared_metrics

    settings = settings_of(host=host, port=port, programs=programs, workers=workers, runtime_url=runtime_url)
    with shared_metrics(settings):
        _serve(settings, engine_port if with_engine else None)


def _serve(settings: Settings, engine_port: int | None) -> None:
    from gemma3n_sgl.registry import Registry
    from gemma3n_sgl.serving.keys import KeyRing
    from gemma3n_sgl.serving.logs import set_up
    from gemma3n_sgl.terminal.listening import ended_by_sigterm, engine_beside, reserve, serve_on
    from server import create_app

    set_up(settings)
    engine = engine_beside(engine_port, as_json=settings.log_format == "json")
    with ended_by_sigterm(), reserve(settings.host, settings.port) as listening, engine as beside:
        # keys are read once, here: a worker that takes a dead one's place must not need their files
        read = {"runtime_api_key": settings.engine_key, "runtime_api_key_file": ""}
        settings = settings.model_copy(update={"runtime_url": beside or settings.runtime_url} | read)
        registry, ring = Registry.discover(settings.programs), KeyRing(settings)
        serve_on(listening, lambda own, closing: create_app(own, registry=registry, closing=closing, ring=ring), settings, registry)


@app.command(epilog=EPILOG)
def chat(
    text: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Your message; without one, a talk at a terminal, or what is piped in.")
    ] = None,
    image: Annotated[list[str] | None, typer.Option(metavar="FILE", help="A picture to go with it; repeatable.")] = None,
    audio: Annotated[list[str] | None, typer.Option(metavar="FILE", help="A sound of any length to go with it; repeatable.")] = None,
    system: Annotated[str, typer.Option(metavar="TEXT", help="What the model is told before all else.")] = "",
    json: Json = False,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    seed: Seed = None,
    runtime_url: Url = None,
) -> None:
    """Ask something, once or in a conversation."""
    from gemma3n_sgl.conversation import Conversation
    from gemma3n_sgl.registry import MODEL, Registry
    from gemma3n_sgl.sampling import Sampling
    from gemma3n_sgl.terminal.given import STDIN, part_of
    from gemma3n_sgl.terminal.session import Session
    from gemma3n_sgl.terminal.talk import Talk, attachment

    media = [*(attachment(file, "image") for file in image or []), *(attachment(file, "audio") for file in audio or [])]
    registry, asked = Registry.discover(), " ".join(text or [])
    sampling = Sampling(temperature=temperature, max_tokens=max_tokens, seed=seed)
    with Session(settings_of(runtime_url=runtime_url), sampling, as_json=json) as session:
        if not asked and sys.stdin.isatty() and sys.stdout.isatty() and not json:
            Talk(session, registry, system, media).go_on()
            return
        conversation = Conversation.of(*media, part_of(STDIN) if asked in ("", STDIN) else asked, system=system)
        program, options = registry.choose(MODEL, conversation)
        session.answer(program, program.bind(conversation, options))


@app.command(epilog=EPILOG)
def transcribe(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE...", help="Recordings of any length; folders of them; - for the standard input.")
    ] = None,
    microphone: Annotated[bool, typer.Option("--microphone", help="Write down what is said now, until Ctrl-C.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", metavar="PATH", help="File or folder to write to. Its name tells the format.")] = "",
    format_: Annotated[Format | None, typer.Option("--format", help="What to write. Default: what the output's name tells, else txt.")] = None,
    language: Annotated[str, typer.Option(metavar="NAME", help="The language that is spoken.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Hear anew what has been written already.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    runtime_url: Url = None,
) -> None:
    """Write down recordings: as text, or as subtitles with times."""
    from gemma3n_sgl.conversation import Conversation
    from gemma3n_sgl.events import Delta, Segment
    from gemma3n_sgl.registry import Registry
    from gemma3n_sgl.terminal.dictating import dictate
    from gemma3n_sgl.terminal.session import Session
    from gemma3n_sgl.terminal.showing import FAILED
    from gemma3n_sgl.terminal.transcribing import format_of, jobs_of, transcribe_all

    if bool(files) == microphone:
        raise InvalidValue("Give recordings to write down, or --microphone for what is said now.")
    format_ = format_of(output, "json" if json else format_)
    program = Registry.discover().named("transcribe")
    timed = (microphone or format_ != "txt") and "timestamps" in program.options.model_fields
    options: dict[str, Any] = {"language": language} | ({"timestamps": True} if timed else {})
    with Session(settings_of(runtime_url=runtime_url)) as session:

        async def hear(recording: Recording, heard: Callable[[Segment], None], said: Callable[[str], None]) -> Done:
            def told(event: Event) -> None:
                if isinstance(event, Segment):
                    heard(event)
                elif isinstance(event, Delta):
                    said(event.text)

            return await session.hear(program, program.bind(Conversation.of(recording), options), told)

        asked = {"program": program.name, "options": options}
        if microphone:
            session.run(dictate(output, format_, hear, again=again))
        elif session.run(transcribe_all(jobs_of(files or [], output, format_), format_, hear, asked, again=again)):
            raise typer.Exit(FAILED)


@app.command(epilog=EPILOG)
def programs(programs: Folders = None, json: Json = False) -> None:
    """List the programs.

    With what each takes, its options, and what could not be loaded.
    """
    from gemma3n_sgl.registry import Registry
    from gemma3n_sgl.terminal.table import show_programs

    show_programs(Registry.discover(programs or settings_of().programs), as_json=json)


@app.command(epilog="Exit codes: 0 all is well, or there are warnings alone; 1 something is wrong.")
def doctor(json: Json = False, runtime_url: Url = None) -> None:
    """Find out what is wrong here, and what to do about it.

    Looks at settings, packages, engine, model and template; asks about a picture and a sound.
    """
    from gemma3n_sgl.terminal.doctor import examine

    raise typer.Exit(examine(lambda: settings_of(runtime_url=runtime_url), os.environ, as_json=json))


@runs.callback()
def of_all_programs(programs: Folders = None) -> None:
    """Run a program. Its inputs and options: gemma3n run PROGRAM --help"""


def run_program(
    program: Program,
    given: list[str],
    options: dict[str, Any],
    *,
    json: Json = False,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    seed: Seed = None,
    runtime_url: Url = None,
) -> None:
    """Run a program on what is given, and print its answer."""
    from gemma3n_sgl.conversation import Conversation
    from gemma3n_sgl.sampling import Sampling
    from gemma3n_sgl.terminal.given import parts_of
    from gemma3n_sgl.terminal.session import Session

    if not given:
        raise InvalidValue(f"There is nothing to run {program.name} on. `gemma3n run {program.name} --help` says what it takes.")
    arguments = program.bind(Conversation.of(*parts_of(given, takes=program.input_kinds)), options)
    sampling = Sampling(temperature=temperature, max_tokens=max_tokens, seed=seed)
    with Session(settings_of(runtime_url=runtime_url), sampling, as_json=json) as session:
        session.answer(program, arguments)


app.add_typer(runs, name="run")
app.add_typer(engine_commands, name="engine")

if __name__ == "__main__":
    main()
