"""Which programs there are, and which of them a request means."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from sglang.lang.ir import SglFunction

import programs
from gemma3n_sgl.conversation import Audio, Conversation, Image, Recording
from gemma3n_sgl.errors import InvalidValue, ModelNotFound, ProgramError
from gemma3n_sgl.program import Program

MODEL = "gemma-3n"
"""The model that chooses the program by what the conversation holds; `gemma-3n:NAME` names one outright."""

_NAMED = f"{MODEL}:"


@dataclass(frozen=True)
class Problem:
    """A program that can't be served, and why; the others are."""

    file: Path
    line: int | None
    message: str

    def __str__(self) -> str:
        return f"{self.file}{f':{self.line}' if self.line else ''}: {self.message}"


@dataclass
class Registry:
    """The programs found, by name, and the problems met on the way."""

    programs: dict[str, Program] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def discover(cls, folders: Iterable[str | Path] = ()) -> Registry:
        """The built-in programs, then those of each folder: every `@sgl.function` of every file."""
        registry = cls()
        for file in _files(Path(programs.__path__[0])):
            registry._load(file, f"programs.{file.stem}")
        for i, folder in enumerate(map(Path, folders)):
            if folder.is_dir():
                for file in _files(folder):
                    registry._load(file, f"gemma3n_programs_{i}.{file.stem}")
            else:
                registry.problems.append(Problem(folder, None, "there is no such folder"))
        return registry

    @property
    def models(self) -> list[str]:
        return [MODEL, *(f"{_NAMED}{name}" for name in self.programs)]

    def __contains__(self, model: str) -> bool:
        """Whether it is one of `models`."""
        return model == MODEL or (model.startswith(_NAMED) and model[len(_NAMED) :] in self.programs)

    def choose(
        self,
        model: str,
        conversation: Conversation,
        *,
        effort: str | None = None,
        tools: Mapping[str, Any] = MappingProxyType({}),
        also: Iterable[str] = (),
    ) -> tuple[Program, dict[str, Any]]:
        """The program that `model` means for this conversation, and the options that go with it. `also` are further names of `gemma-3n`.

        `gemma-3n` answers at once unless `effort` asks for more, and calls `tools` where there are any; a program named outright works at
        its own default, and takes tools if it has that option.
        """
        if model == MODEL or model in also:
            program, effort = self.programs["tools" if tools else route(conversation)], effort or "none"
        else:
            program = self.named(model)
        known = program.options.model_fields
        if tools and "tools" not in known:
            raise InvalidValue(f"The program {program.name!r} calls no tools. Leave them out, or ask {MODEL!r}.", param="tools")
        return program, {"effort": effort} | dict(tools) if effort and "effort" in known else dict(tools)

    def named(self, model: str) -> Program:
        """The program of `gemma-3n:NAME`, or of plain NAME. Raises ModelNotFound."""
        name = model.removeprefix(_NAMED)
        if name not in self.programs:
            raise ModelNotFound(f"The model {model!r} does not exist. Models: {', '.join(self.models)}.", param="model")
        return self.programs[name]

    def _load(self, file: Path, module_name: str) -> None:
        try:
            module = _module(file, module_name)
        except (Exception, SystemExit) as error:
            self.problems.append(Problem(file, _line(error, file), f"{type(error).__name__}: {error}"))
            return
        functions = [f for f in vars(module).values() if isinstance(f, SglFunction) and f.func.__module__ == module.__name__]
        if not functions:
            self.problems.append(Problem(file, None, "there is no @sgl.function in it"))
        for function in functions:
            self._add(function, file, module)

    def _add(self, function: SglFunction, file: Path, module: ModuleType) -> None:
        line = function.func.__code__.co_firstlineno
        try:
            program = Program.of(function, file_doc=module.__doc__)
            if program.name in self.programs:
                raise ProgramError(f"there is a program {program.name!r} already; choose another name")
        except ProgramError as error:
            self.problems.append(Problem(file, line, error.message))
        else:
            self.programs[program.name] = program


def route(conversation: Conversation) -> str:
    """The built-in program for a conversation: sound → audio, pictures → vision, else chat."""
    if conversation.only(Audio, Recording):
        return "audio"
    return "vision" if conversation.only(Image) else "chat"


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.py") if not file.name.startswith("_"))


def _module(file: Path, name: str) -> ModuleType:
    if name.startswith("programs."):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that annotations of the file can be looked up
    spec.loader.exec_module(module)
    return module


def _line(error: BaseException, file: Path) -> int | None:
    if isinstance(error, SyntaxError):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    return lines[-1] if lines else None
