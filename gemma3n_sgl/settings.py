"""What an operator can choose, read once from the environment where the program starts (`GEMMA3N_…`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gemma3n_sgl.errors import SettingsError

PREFIX = "GEMMA3N_"

_LOGIN = re.compile("//[^/@]*@")
"""A name and password in an address."""

_MOST = 10**12
"""More than anybody has of anything; as many megabytes are still a number of bytes to the system."""

Seconds = Annotated[float, Field(gt=0)]
"""Measured by the loop, which takes `inf` for ever."""

Timed = Annotated[float, Field(gt=0, le=1e9)]
"""Seconds measured by the system, whose timers take no `inf`, and no more than some centuries."""

Count = Annotated[int, Field(gt=0, le=_MOST)]


class Settings(BaseModel):
    """One frozen value; `GEMMA3N_RUNTIME_URL` sets `runtime_url`, and so on. Lists are separated by commas."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime_url: str = Field("http://127.0.0.1:30000", description="the SGLang engine; several of one model with commas between, or an sglang-router")
    runtime_api_key: str = Field("", repr=False, description="key the engine asks for, if it does")
    runtime_shared: bool = Field(False, description="others send sound to the engine too, such as a notebook: clips of one length for all")
    host: str = Field("127.0.0.1", description="address to serve on")
    port: int = Field(8000, ge=0, le=65535, description="port to serve on")
    workers: Count = Field(1, description="server processes behind the port")
    api_keys: tuple[str, ...] = Field((), repr=False, description="keys clients must show; none: open to all who reach it")
    api_keys_file: str = Field("", description="file with such keys, one a line; read again when it changes")
    runtime_api_key_file: str = Field("", description="file with the key the engine asks for")
    hosts: tuple[str, ...] = Field((), description="names by which a server on loopback without keys may be called, besides localhost")
    cors_origins: tuple[str, ...] = Field(("local",), description="who may call from a browser: `local`, origins such as `https://a.example`, `*`")
    programs: tuple[str, ...] = Field((), description="folders with programs of your own")

    image_urls: tuple[str, ...] = Field(
        ("public",), description="pictures and sound by URL: `public`, `off`, or hosts such as `a.example`, `*.b.example`; private addresses never"
    )
    max_body_mb: Count = Field(64, description="largest request body, MB")
    max_bodies_mb: Count = Field(2048, description="bodies of all requests at once, MB")
    max_media_mb: Count = Field(20, description="largest picture or fetched file, MB")
    max_image_megapixels: Count = Field(25, description="largest picture, megapixels")
    max_image_side: Count = Field(16384, description="longest side of a picture, px")
    max_images: Count = Field(16, description="pictures in one request")
    max_sounds: Count = Field(8, description="sounds in one request")
    max_audio_seconds: Seconds = Field(300, description="longest sound in a chat request, s")
    max_upload_mb: Count = Field(1024, description="largest file to /v1/audio, MB")
    max_upload_seconds: Seconds = Field(21600, description="longest sound to /v1/audio, s")
    fetch_timeout: Seconds = Field(10, description="time to fetch one URL in all, s")
    decode_timeout: Timed = Field(10, description="time to decode one picture, or a second of sound, s")
    decode_memory_mb: Count = Field(1024, description="memory for decoding one file, MB")

    max_runs: Count = Field(2048, description="runs at once; further ones wait")
    max_runs_per_key: Count = Field(1024, description="runs of one key at once, those that wait included; without keys, of one address")
    max_queue: Annotated[int, Field(ge=0, le=_MOST)] = Field(1024, description="requests that wait for a run")
    queue_timeout: Seconds = Field(30, description="time a request waits for a run, s")
    max_messages: Count = Field(2048, description="messages in one request")
    max_parts: Count = Field(4096, description="parts of all messages in one request")
    max_text: Count = Field(1_000_000, description="text in one request, characters")
    max_values: Count = Field(500_000, description="commas and brackets in the JSON of one request")
    max_stops: Count = Field(4, description="stop strings in one request")
    max_stop_length: Count = Field(256, description="longest stop string, characters")
    max_options: Count = Field(64, description="options of a program, or entries of `metadata`, in one request")
    max_tools: Count = Field(128, description="tools in one request")
    max_schema: Annotated[int, Field(gt=0, le=64_000)] = Field(64_000, description="largest JSON schema, characters")
    max_schema_depth: Annotated[int, Field(gt=0, le=32)] = Field(32, description="schemas inside schemas")

    header_timeout: Seconds = Field(20, description="time for the head of a request, s")
    body_timeout: Seconds = Field(30, description="time for the body of a request, and a second more for each 50 kB of it, s")
    send_timeout: Seconds = Field(30, description="time for which a client may stop reading its answer, s")
    shutdown_delay: Annotated[float, Field(ge=0)] = Field(0.0, description="time after SIGTERM in which /health says 503 and all else goes on, s")
    shutdown_timeout: Timed = Field(30, description="time after SIGTERM for answers under way, s")
    log_format: Literal["text", "json"] = Field("text", description="lines of the log: `text` or `json`")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least that is logged: `debug`, `info`, `warning`, `error`")
    log_content: bool = Field(False, description="log prompts, answers, and the words of unexpected errors, which may quote them")
    metrics: Literal["key", "open", "off"] = Field("key", description="who reads `/metrics`: `key` (if keys are set, who holds one), `open`, `off`")

    max_block: Timed = Field(5, description="time for which a program may hold up all others, s")

    connect_timeout: Seconds = Field(5, description="time to reach the engine, s")
    first_token_timeout: Seconds = Field(120, description="time until the engine's first token, s")
    token_timeout: Seconds = Field(30, description="time between two tokens, s")
    run_timeout: Seconds = Field(600, description="time for a run of a program, begun anew with each part of a recording it hears, s")
    max_choices: Count = Field(16, description="answers to one request (`n`)")
    max_calls: Count = Field(256, description="engine calls in one run of a program")
    max_forks: Count = Field(1024, description="forks in one run of a program")
    max_run_text: Count = Field(4_000_000, description="text of one run of a program and its forks, characters")

    @field_validator("runtime_url")
    @classmethod
    def _http(cls, value: str) -> str:
        urls = [url.strip().rstrip("/") for url in value.split(",")]
        if not all(map(_is_address, urls)):
            raise ValueError("must be an http:// or https:// address, such as http://127.0.0.1:30000, or several with commas between")
        return ",".join(urls)

    @field_validator("image_urls")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value in (("public",), ("off",)):
            return value
        for host in value or ("",):
            if host in ("public", "off") or not re.fullmatch(r"(\*\.)?([\w-]+\.)*[\w-]+", host):
                raise ValueError(f"{host!r} is none of public, off (each alone) and a host, such as images.example.com or *.example.org")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin not in ("local", "*") and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/*\s]+", origin):
                raise ValueError(f"{origin!r} is none of local, * and an origin without a path, such as https://a.example or http://localhost:3000")
        return value

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read `GEMMA3N_…`; an unknown name or a bad value raises SettingsError that names the variable."""
        values: dict[str, object] = {}
        for variable, text in environ.items():
            if not variable.startswith(PREFIX):
                continue
            name = variable.removeprefix(PREFIX).lower()
            if name not in cls.model_fields:
                raise SettingsError(f"{variable} is not a setting. Settings: {', '.join(PREFIX + n.upper() for n in cls.model_fields)}.")
            is_list = get_origin(cls.model_fields[name].annotation) is tuple
            values[name] = tuple(filter(None, (item.strip() for item in text.split(",")))) if is_list else text.strip()
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            variable = PREFIX + str(first["loc"][0]).upper()
            raise SettingsError(f"{variable}: {first['msg'].removeprefix('Value error, ')}.") from None

    @property
    def engine_key(self) -> str:
        """The key for the engine, from its file where one is named."""
        return lines_of(self.runtime_api_key_file, "runtime_api_key_file")[0] if self.runtime_api_key_file else self.runtime_api_key


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0  # asking for the port checks it
    except ValueError:
        return False


def by(setting: str) -> str:
    """How a refusal names the setting of the limit it tells of, in parentheses after the limit; metrics count by that."""
    return f" ({PREFIX}{setting.upper()})"


def without_login(urls: str) -> str:
    """Addresses as they may be shown."""
    return _LOGIN.sub("//…@", urls)


def lines_of(file: str, setting: str) -> list[str]:
    """The lines of a file of secrets, without empty ones and comments. SettingsError names the setting where there are none."""
    variable = PREFIX + setting.upper()
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{variable}: the file {file} can't be read.") from None
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise SettingsError(f"{variable}: there is no key in {file}. Put one on each line.")
    return found
