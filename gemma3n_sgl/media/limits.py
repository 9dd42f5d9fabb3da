"""How much foreign bytes may ask of us."""

from __future__ import annotations

from dataclasses import dataclass

from gemma3n_sgl.errors import TooLarge
from gemma3n_sgl.settings import Settings, by

MEGA = 1_000_000


@dataclass(frozen=True)
class Apart:
    """What decoding a stranger's file may cost the process that does nothing else: seconds for each step, and megabytes."""

    seconds: float = 10
    megabytes: int = 1024


@dataclass(frozen=True)
class Limits:
    """What one picture, sound or address may cost.

    `max_bytes` holds for a picture's file, a fetched file, a data URI and base64; `max_audio_seconds` (None: no limit) for a sound's
    length when played; `fetch_timeout` is in seconds and covers all that fetching a URL takes. `apart`: decode in a process apart (None: here).
    `hosts` are the only ones from which URLs are fetched, `*.example.com` all below one (none: all that are public). `named`: an operator has
    set the limits, and refusals name the settings; `sound_setting` is the one behind `max_audio_seconds`.
    """

    max_bytes: int = 20 * MEGA
    max_megapixels: float = 25
    max_side: int = 16_384
    max_audio_seconds: float | None = None
    fetch_timeout: float = 10
    apart: Apart | None = None
    hosts: tuple[str, ...] = ()
    named: bool = False
    sound_setting: str = "max_audio_seconds"

    @classmethod
    def of(cls, settings: Settings, *, sound_setting: str = "max_audio_seconds") -> Limits:
        """The limits an operator has set, for files of strangers."""
        return cls(
            max_bytes=settings.max_media_mb * MEGA,
            max_megapixels=settings.max_image_megapixels,
            max_side=settings.max_image_side,
            max_audio_seconds=getattr(settings, sound_setting),
            fetch_timeout=settings.fetch_timeout,
            apart=Apart(settings.decode_timeout, settings.decode_memory_mb),
            hosts=settings.image_urls if settings.image_urls not in (("public",), ("off",)) else (),
            named=True,
            sound_setting=sound_setting,
        )

    def by(self, setting: str) -> str:
        """How a refusal names the setting: not at all where none has made the limit."""
        return by(setting) if self.named else ""

    def too_many_bytes(self) -> TooLarge:
        return TooLarge(f"The file is larger than the limit of {self.max_bytes / MEGA:g} MB{self.by('max_media_mb')}: send a smaller one.")


DEFAULTS = Limits()
"""For those who open their own files."""
