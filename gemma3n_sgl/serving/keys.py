"""The keys that clients show: from the settings, and from a file that may change while the server runs."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import time
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from gemma3n_sgl.errors import SettingsError, Unauthorized
from gemma3n_sgl.serving.doors import WHO
from gemma3n_sgl.serving.headers import header
from gemma3n_sgl.serving.refusing import refuse
from gemma3n_sgl.serving.watching import seen
from gemma3n_sgl.settings import Settings, lines_of

OPEN_PATHS = ("/health", "/livez")
"""Asked by machines that hold no key."""

GLANCE = 1.0
"""Seconds between two looks at the file."""

log = logging.getLogger("gemma3n")


class KeyRing:
    """The digests of all keys known now, so that no key stays in memory that a report of an error might show."""

    def __init__(self, settings: Settings) -> None:
        self._file = settings.api_keys_file
        self._settled = [_digest(key) for key in settings.api_keys]
        self._known: list[bytes] = []
        self._state: tuple[int, int, int] | None = None
        self._looked, self._lost = 0.0, False
        if self._file:
            self._read()

    @property
    def is_set(self) -> bool:
        """Whether a key is asked for at all. A file makes it so, even where nothing is in it any more."""
        return bool(self._settled or self._file)

    def find(self, key: str) -> str | None:
        """A name for the holder of `key`, None for a stranger. Compared in constant time with every key, so that the time tells nothing."""
        if self._file and time.monotonic() - self._looked > GLANCE:
            self._look()
        shown = _digest(key)
        matches = [known for known in self._settled + self._known if hmac.compare_digest(shown, known)]
        return f"key {matches[0].hex()[:8]}" if matches else None

    def _look(self) -> None:
        self._looked = time.monotonic()
        try:
            if _state_of(self._file) != self._state:
                self._read()
                log.info("the file of keys has changed: %d keys", len(self._known))
            self._lost = False
        except (OSError, SettingsError) as error:
            if not self._lost:
                log.error("the file of keys can't be read any more, the keys stay as they were: %s", type(error).__name__)
            self._lost = True

    def _read(self) -> None:
        self._looked = time.monotonic()
        known = [_digest(key) for key in lines_of(self._file, "api_keys_file")]
        self._known, self._state = known, _state_of(self._file)


class Keys:
    """Around what is for those who hold a key: 401 to all others."""

    def __init__(self, app: ASGIApp, ring: KeyRing, open_paths: Collection[str] = OPEN_PATHS) -> None:
        self._app, self._ring, self._open_paths = app, ring, open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._open_paths:
            await self._app(scope, receive, send)
            return
        scheme, _, key = (header(scope, b"authorization") or "").partition(" ")
        who = self._ring.find(key.strip())
        if who is not None and scheme.lower() == "bearer":
            seen().who = who
            await self._app({**scope, WHO: who}, receive, send)
            return
        error = Unauthorized("Show one of this server's keys: `Authorization: Bearer KEY`.")
        await refuse(error, scope, receive, send, **{"www-authenticate": "Bearer"})


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _state_of(file: str) -> tuple[int, int, int]:
    """What is another after a change, of the file behind a link too: secrets are often exchanged by turning one."""
    found = os.stat(file)
    return found.st_mtime_ns, found.st_size, found.st_ino
