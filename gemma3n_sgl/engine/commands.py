"""`gemma3n engine install | start | status | stop`."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from pydantic_core import to_json

from gemma3n_sgl.engine.asking import serves
from gemma3n_sgl.engine.choice import GPU_MODEL, SGLANG_VERSION, Device, choose
from gemma3n_sgl.engine.installing import DEFAULT_VENV, install
from gemma3n_sgl.engine.local import DEFAULT_PORT, LocalEngine
from gemma3n_sgl.engine.packages import CPU_TORCH_INDEX
from gemma3n_sgl.engine.progress import Progress
from gemma3n_sgl.engine.records import Record, running, stop
from gemma3n_sgl.errors import EngineUnavailable

app = typer.Typer(
    help=f"The engine on this machine: SGLang {SGLANG_VERSION}, on 127.0.0.1 alone.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_WATCH_EVERY = 0.5
_NONE_RUNS = 1

Venv = Annotated[Path, typer.Option("--venv", metavar="DIR", help="The engine's own Python environment.")]
DeviceOption = Annotated[
    Device | None, typer.Option("--device", help="What to run on. Default: the GPU where an nvidia device is present.")
]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, metavar="N", help="The port to listen on.")]
Index = Annotated[str | None, typer.Option("--index-url", metavar="URL", help="Package index, if not pip's own.")]
TorchIndex = Annotated[
    str | None,
    typer.Option(
        "--torch-index",
        metavar="URL",
        help=f"Package index for torch alone. PyPI has torch as its CUDA build, which is 3 GB larger than the CPU's at {CPU_TORCH_INDEX}.",
    ),
]


@app.command("install")
def install_engine(device: DeviceOption = None, venv: Venv = DEFAULT_VENV, index_url: Index = None, torch_index: TorchIndex = None) -> None:
    """Install the engine: on the CPU, 3 GB in a minute or two. Does nothing where it is there, and repairs what was broken off."""
    chosen, progress = choose(device).device, Progress()
    fresh = install(chosen, venv, index_url=index_url, torch_index=torch_index, progress=progress)
    progress.say(f"The engine for the {chosen.upper()} is {'now' if fresh else 'already'} installed in {venv}.")


@app.command("start")
def start_engine(
    device: DeviceOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help=f"A folder, or a name on Hugging Face. Default: {GPU_MODEL} on a GPU, else a demo that comes along."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--served-model-name", metavar="NAME", help="What clients call it. Default: the last part of the model's name."),
    ] = None,
    port: Port = DEFAULT_PORT,
    venv: Venv = DEFAULT_VENV,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay here until Ctrl-C, and end the engine then.")] = False,
) -> None:
    """Start the engine, and go on once it answers. Installs it first where that is not done yet."""
    choice, progress = choose(device, model, name), Progress()
    install(choice.device, venv, progress=progress)
    engine = LocalEngine(choice, venv=venv, port=port, progress=progress, attended=foreground)
    if foreground:
        signal.signal(signal.SIGTERM, _exit)
        with engine:
            progress.say(f"{choice.name} is served at {engine.url} (Ctrl-C ends it). Log: {engine.log}")
            while True:
                engine.check_alive()
                time.sleep(_WATCH_EVERY)
    engine.start()
    progress.say(f"{choice.name} is served at {engine.url}; gemma3n engine stop ends it. Log: {engine.log}")


@app.command("status")
def status(venv: Venv = DEFAULT_VENV, as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False) -> None:
    """Show the engines that were started from here. Exit code 1 where there is none."""
    engines = running(venv)
    if as_json:
        sys.stdout.write(
            to_json([{"url": e.url, "model": e.name, "ready": serves(e.url) is not None, "log": e.log} for e in engines]).decode() + "\n"
        )
    else:
        for engine in engines:
            typer.echo(_described(engine))
        if not engines:
            typer.echo("No engine runs. Start one: gemma3n engine start", err=True)
    raise typer.Exit(0 if engines else _NONE_RUNS)


@app.command("stop")
def stop_engine(
    venv: Venv = DEFAULT_VENV,
    port: Annotated[int | None, typer.Option(metavar="N", help="The one on this port alone. Default: all of them.")] = None,
) -> None:
    """End the engines that `start` left in the background, and nothing else."""
    engines = [engine for engine in running(venv) if port in (None, engine.port)]
    for engine in engines:
        if engine.attended:
            typer.echo(f"The engine on port {engine.port} belongs to a command that still runs, and ends with it.", err=True)
        elif stop(venv, engine):
            typer.echo(f"The engine on port {engine.port} has ended.", err=True)
        else:
            raise EngineUnavailable(f"The engine on port {engine.port} does not end. Its process is {engine.pid}.")
    if not engines:
        typer.echo("No engine runs.", err=True)


def _described(engine: Record) -> str:
    state = "ready" if serves(engine.url) else "loading"
    return f"{engine.url}  {engine.name}  {state}  process {engine.pid}  log {engine.log}"


def _exit(number: int, frame: FrameType | None) -> None:
    """SIGTERM as SystemExit, so that the engine is ended on the way out."""
    raise SystemExit(128 + number)
