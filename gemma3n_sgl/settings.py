"""What an operator can choose, read once from the environment where the program starts (`GEMMA3N_…`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gemma3n_sgl.errors import SettingsError

PREFIX = "GEMMA3N_"

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


class Settings(BaseModel):
    """One frozen value; `GEMMA3N_RUNTIME_URL` sets `runtime_url`, and so on. Lists are separated by commas."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime_url: str = Field("http://127.0.0.1:30000", description="the SGLang engine")
    runtime_api_key: str = Field("", repr=False, description="key the engine asks for, if it does")
    host: str = Field("127.0.0.1", description="address to serve on")
    port: int = Field(8000, ge=0, le=65535, description="port to serve on")
    api_keys: tuple[str, ...] = Field((), repr=False, description="keys clients must show; none: open to all who reach it")
    cors_origins: tuple[str, ...] = Field(("local",), description="who may call from a browser: `local`, origins such as `https://a.example`, `*`")
    programs: tuple[str, ...] = Field((), description="folders with programs of your own")

    image_urls: Literal["public", "off"] = Field("public", description="whether pictures and sound may be named by URL; private addresses never")
    max_body_mb: Count = Field(64, description="largest request body, MB")
    max_media_mb: Count = Field(20, description="largest picture or fetched file, MB")
    max_image_megapixels: Count = Field(25, description="largest picture, megapixels")
    max_image_side: Count = Field(16384, description="longest side of a picture, px")
    max_images: Count = Field(16, description="pictures in one request")
    max_sounds: Count = Field(8, description="sounds in one request")
    max_audio_seconds: Seconds = Field(300, description="longest sound in a chat request, s")
    max_upload_mb: Count = Field(1024, description="largest file to /v1/audio, MB")
    max_upload_seconds: Seconds = Field(21600, description="longest sound to /v1/audio, s")
    fetch_timeout: Seconds = Field(10, description="time to fetch one URL in all, s")
    decode_timeout: Seconds = Field(10, description="time to decode one picture, or a second of sound, s")
    decode_memory_mb: Count = Field(1024, description="memory for decoding one file, MB")

    connect_timeout: Seconds = Field(5, description="time to reach the engine, s")
    first_token_timeout: Seconds = Field(120, description="time until the engine's first token, s")
    token_timeout: Seconds = Field(30, description="time between two tokens, s")
    run_timeout: Seconds = Field(600, description="time for a run of a program, begun anew with each part of a recording it hears, s")
    max_choices: Count = Field(16, description="answers to one request (`n`)")
    max_calls: Count = Field(256, description="engine calls in one run of a program")

    @field_validator("runtime_url")
    @classmethod
    def _http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must be an http:// or https:// address, such as http://127.0.0.1:30000")
        return value.rstrip("/")

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
