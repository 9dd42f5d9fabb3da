"""What a program is to the rest: its signature as a contract.

`Program` reads an `@sgl.function`'s parameters once, when it is loaded, and from then on binds conversations and options to arguments.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, PydanticUserError, ValidationError, create_model
from sglang.lang.ir import SglFunction

from gemma3n_sgl.conversation import Audio, Conversation, Image, Recording, Turn
from gemma3n_sgl.errors import InvalidValue, ProgramError
from gemma3n_sgl.holdback import neutralise

RESERVED = (
    set(inspect.signature(SglFunction.run).parameters) | set(inspect.signature(SglFunction.run_batch).parameters) | {"stop_regex"}
) - {"self", "args", "kwargs"}
"""Names that SGLang's own `run` takes for itself, `stop_regex` since 0.5.15."""

_KINDS: dict[Any, str] = {
    Conversation: "conversation",
    str: "text",
    Image: "image",
    Audio: "audio",
    Recording: "recording",
    list[Image]: "images",
    list[Audio]: "audios",
    list[Recording]: "recordings",
}

INPUTS = {
    "conversation": ("text", "image", "audio"),
    "text": ("text",),
    "image": ("image",),
    "images": ("image",),
    "audio": ("audio",),
    "audios": ("audio",),
    "recording": ("audio",),
    "recordings": ("audio",),
}
"""What kinds of content each kind of parameter takes from a conversation."""


@dataclass(frozen=True)
class Program:
    """One flow, ready to be run. `inputs` maps parameters without default to their kind; `options` is the model of those with one."""

    name: str
    function: SglFunction
    description: str
    inputs: Mapping[str, str]
    options: type[BaseModel]

    @classmethod
    def of(cls, function: SglFunction, *, file_doc: str | None = None) -> Program:
        """Read a program's contract. ProgramError says in one sentence why a function can't be served."""
        func = function.func
        name = func.__name__
        if inspect.iscoroutinefunction(func) or inspect.isasyncgenfunction(func):
            raise ProgramError(f"{name} is an `async def`; SGLang runs plain functions only, so write `def {name}(s, …)`.")
        parameters = list(inspect.signature(func).parameters.values())[1:]
        if not parameters:
            raise ProgramError(f"{name} has no parameters besides `s`; give it one, such as `conversation: Conversation`.")
        description = inspect.getdoc(func) or file_doc
        if not description:
            raise ProgramError(f"{name} has no docstring; its first line is what users see in lists.")
        hints = _hints(func)
        for parameter in parameters:
            _check(name, parameter, hints)
        inputs = {p.name: _KINDS[hints[p.name]] for p in parameters if p.default is p.empty}
        return cls(name, function, inspect.cleandoc(description), inputs, _options(name, parameters, hints))

    @property
    def summary(self) -> str:
        """The first line of the description."""
        return self.description.splitlines()[0]

    @property
    def input_kinds(self) -> tuple[str, ...]:
        """The content it takes: "text", "image", "audio"."""
        kinds = {kind for name in self.inputs.values() for kind in INPUTS[name]}
        return tuple(kind for kind in ("text", "image", "audio") if kind in kinds)

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the options."""
        return self.options.model_json_schema()

    def bind(self, conversation: Conversation, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Arguments for a run. Raises InvalidValue, in the words of the one who sent the conversation or the options."""
        safe = _neutral(conversation)
        return {name: _take(self, kind, safe) for name, kind in self.inputs.items()} | self._validated(options or {})

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments for a run from values by name, as a call in Python gives them."""
        missing = [name for name in self.inputs if name not in given]
        if missing:
            raise InvalidValue(f"The program {self.name!r} needs {', '.join(missing)}.", param=missing[0])
        values = {name: _fit(name, kind, given[name]) for name, kind in self.inputs.items()}
        return values | self._validated({name: value for name, value in given.items() if name not in self.inputs})

    def _validated(self, options: Mapping[str, Any]) -> dict[str, Any]:
        try:
            model = self.options.model_validate(dict(options))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0]) if first["loc"] else "options"
            if first["type"] == "extra_forbidden":
                known = ", ".join(self.options.model_fields) or "none"
                raise InvalidValue(f"The program {self.name!r} has no option {name!r}. Its options: {known}.", param=name) from None
            raise InvalidValue(f"Option {name!r} of the program {self.name!r}: {first['msg']}.", param=name) from None
        return {name: _neutral_value(getattr(model, name)) for name in self.options.model_fields}


def _hints(func: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(func, include_extras=True)  # so that an option keeps its limits: Annotated[int, Field(ge=1)]
    except NameError as error:
        raise ProgramError(f"{func.__name__}: the annotation {error.name!r} is not defined; import it.") from None


def _check(program: str, parameter: inspect.Parameter, hints: dict[str, Any]) -> None:
    name = parameter.name
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise ProgramError(f"{program}: `{parameter}` can't be served; name every parameter.")
    if name in RESERVED:
        raise ProgramError(f"{program}: the parameter `{name}` has the name of one of SGLang's own; choose another.")
    if name not in hints:
        raise ProgramError(f"{program}: the parameter `{name}` has no annotation; say what it is, such as `{name}: str`.")
    if parameter.default is parameter.empty and hints[name] not in _KINDS:
        shown = getattr(hints[name], "__name__", hints[name])
        raise ProgramError(
            f"{program}: `{name}: {shown}` can't be filled from a conversation; take Conversation, str, Image, Audio, Recording"
            " or a list of media, or give it a default, which makes it an option."
        )


def _options(program: str, parameters: list[inspect.Parameter], hints: dict[str, Any]) -> type[BaseModel]:
    fields: dict[str, Any] = {p.name: (hints[p.name], p.default) for p in parameters if p.default is not p.empty}
    try:
        model = create_model(f"{program}_options", __config__=ConfigDict(extra="forbid", validate_default=True), **fields)
        model()
        model.model_json_schema()
    except (ValidationError, PydanticUserError, NameError) as error:
        said = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else "a type that JSON can't hold"
        raise ProgramError(f"{program}: its options can't be served: {said}.") from None
    return model


def _take(program: Program, kind: str, conversation: Conversation) -> Any:
    """The value of one parameter from a conversation."""
    if kind == "conversation":
        return conversation
    if kind == "text":
        texts = [turn.text for turn in conversation.turns if turn.role == "user" and turn.text]
        if not texts:
            raise InvalidValue(f"The program {program.name!r} needs a text, and there is none. Add one.", param="messages")
        return texts[-1]
    wanted = "picture" if kind.startswith("image") else "sound"
    found = list(conversation.only(*((Image,) if wanted == "picture" else (Audio, Recording))))
    if not found:
        raise InvalidValue(f"The program {program.name!r} needs a {wanted}, and there is none. Add one.", param="messages")
    values = [_sound(kind, value) if wanted == "sound" else value for value in found]
    if kind.endswith("s"):
        return values
    if len(values) > 1:
        raise InvalidValue(f"The program {program.name!r} takes one {wanted}, and there are {len(values)}.", param="messages")
    return values[0]


def _sound(kind: str, value: Any) -> Any:
    if kind.startswith("recording"):
        return value if isinstance(value, Recording) else Recording(bytes(value), "clip")
    if isinstance(value, Recording):
        raise InvalidValue("This program takes clips of at most 29.5 s. Give a shorter one, or use gemma-3n:audio.", param="messages")
    return value


_TYPES: dict[str, type] = {
    "conversation": Conversation,
    "text": str,
    "image": Image,
    "images": Image,
    "audio": Audio,
    "audios": Audio,
    "recording": Recording,
    "recordings": Recording,
}


def _fit(name: str, kind: str, value: Any) -> Any:
    """A value given in Python, checked, with a clip taken for a recording where one is wanted."""
    expected = _TYPES[kind]
    values = list(value) if kind.endswith("s") and isinstance(value, list | tuple) else [value]
    fitted = [_sound(kind, item) if expected is Recording and isinstance(item, Audio) else item for item in values]
    for item in fitted:
        if not isinstance(item, expected):
            raise InvalidValue(f"{name} takes {expected.__name__}, not {type(item).__name__}; open_{kind.rstrip('s')}() makes one.", param=name)
    if kind == "conversation":
        return _neutral(fitted[0])
    if kind == "text":
        return neutralise(fitted[0])
    return fitted if kind.endswith("s") else fitted[0]


def _neutral(conversation: Conversation) -> Conversation:
    turns = tuple(Turn(turn.role, tuple(_neutral_value(part) for part in turn.parts)) for turn in conversation.turns)
    return replace(conversation, turns=turns, system=neutralise(conversation.system))


def _neutral_value(value: Any) -> Any:
    if isinstance(value, str):
        return neutralise(value)
    if isinstance(value, list):
        return [_neutral_value(item) for item in value]
    if isinstance(value, dict):
        return {_neutral_value(key): _neutral_value(item) for key, item in value.items()}
    return value
