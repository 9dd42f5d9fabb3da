"""A program's signature → a command: its options are flags with their types, choices and defaults."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_origin

import typer
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from typer.core import TyperGroup

if TYPE_CHECKING:
    from gemma3n_sgl.program import Program
    from gemma3n_sgl.registry import Problem, Registry

GIVEN = "given"
"""The parameter that holds the files and texts; no option can have its name."""

_METAVARS = {str: "TEXT", int: "N", float: "N"}
_TAKES = {"text": "text", "image": "pictures", "audio": "sound"}

Work = Callable[..., None]
"""Runs a program: `work(program, given, options, **shared)`. Its keyword-only parameters are the flags that all programs have in common."""


class ProgramGroup(TyperGroup):
    """A group whose commands are the programs there are. A subclass says which they are, and what running one means."""

    problems: Sequence[Problem] = ()

    def discover(self, folders: list[str]) -> Registry:
        """The programs, with those of the folders that `--programs` names."""
        raise TypeError(f"{type(self).__name__} does not say which programs there are")

    def work(self) -> Work:
        """What runs a program."""
        raise TypeError(f"{type(self).__name__} does not say how a program is run")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        folders, args = _without_folders(args)
        registry = self.discover(folders)
        self.problems = registry.problems
        self.commands = {name: command_of(program, self.work()) for name, program in registry.programs.items()}
        return super().parse_args(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = self.commands.get(cmd_name)
        if found is None and not cmd_name.startswith("-") and not ctx.resilient_parsing:
            for problem in self.problems:
                typer.echo(f"Left out: {problem}", err=True)
            ctx.fail(f"There is no program {cmd_name!r}; `gemma3n programs` lists them.")
        return found


def command_of(program: Program, work: Work) -> Any:
    """The command of one program. Its own flag goes before a shared one of the same name."""
    own = {name: _flag(name, field) for name, field in program.options.model_fields.items()}
    everywhere = inspect.signature(work, eval_str=True, locals={"Program": type(program)}).parameters.values()
    shared = {p.name: p for p in everywhere if p.kind is p.KEYWORD_ONLY and p.name not in own}

    def command(**values: Any) -> None:
        work(program, values[GIVEN] or [], {name: values[name] for name in own}, **{name: values[name] for name in shared})

    words = ", or words as they are" if "text" in program.input_kinds else ""
    takes = f"{', '.join(_TAKES[kind] for kind in program.input_kinds)}: files, - for the standard input{words}"
    given = _parameter(GIVEN, Annotated[list[str] | None, typer.Argument(metavar="INPUT", help=takes)], None)
    parameters = [given, *own.values(), *shared.values()]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(program.name, help=program.description)(command)
    return typer.main.get_command(app)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    """An option as a flag. What typer has no form for (lists, optional values, models) is text or JSON, as pydantic takes it."""
    kind: Any = field.annotation
    default = field.get_default(call_default_factory=True)
    if kind in (bool, int, float, str) or get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        return _parameter(name, Annotated[kind, typer.Option(help=field.description, metavar=_METAVARS.get(kind))], default)

    def parse(text: str) -> Any:
        adapter = TypeAdapter(kind)
        try:
            return adapter.validate_python(text)
        except ValidationError:
            return adapter.validate_json(text)

    shown = typer.Option(help=field.description, parser=parse, metavar="TEXT|JSON", show_default=str(default))
    return _parameter(name, Annotated[Any, shown], default)


def _without_folders(args: list[str]) -> tuple[list[str], list[str]]:
    """The folders that `--programs` names, wherever it stands, and the other arguments."""
    folders, rest, left = [], [], list(args)
    while left and left[0] != "--":
        word = left.pop(0)
        if word == "--programs" and left:
            folders.append(left.pop(0))
        elif word.startswith("--programs="):
            folders.append(word.removeprefix("--programs="))
        else:
            rest.append(word)
    return folders, rest + left
