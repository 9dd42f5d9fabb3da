"""What is asked of an engine over HTTP while it is started: is it ready, and what does it serve."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from http.client import HTTPException
from typing import Any
from urllib.request import ProxyHandler, build_opener

import psutil

from gemma3n_sgl.engine.launch import HOST
from gemma3n_sgl.errors import SettingsError

_open = build_opener(ProxyHandler({})).open
_TIMEOUT = 5.0


def is_ready(url: str) -> bool:
    """Whether an engine answers. `/health` generates one token, so this is asked while waiting for one to start, not later."""
    try:
        with _open(url + "/health", timeout=_TIMEOUT) as response:
            return bool(response.status == 200)
    except (OSError, HTTPException):
        return False


def serves(url: str) -> str | None:
    """The name of the model an engine serves there; None where no engine answers."""
    try:
        with _open(url + "/model_info", timeout=_TIMEOUT) as response:
            info: Any = json.load(response)
    except (OSError, HTTPException, ValueError):
        return None
    return str(info.get("served_model_name") or "a model without a name") if isinstance(info, dict) and "model_path" in info else None


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as candidate:
        candidate.bind((HOST, 0))
        return int(candidate.getsockname()[1])


def check_port(port: int) -> None:
    """SettingsError that says who has the port, if somebody has."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((HOST, port))
            return
        except PermissionError:
            raise SettingsError(f"Port {port} is not for ordinary users. Choose one above 1023.") from None
        except OSError:
            pass
    url = f"http://{HOST}:{port}"
    if name := serves(url):
        raise SettingsError(f"An engine that serves {name} already answers at {url}. Use that one, or start this one on another port.")
    raise SettingsError(f"Port {port} is taken by {_owner(port)}. Choose another port for the engine, such as {port + 1}.")


def _owner(port: int) -> str:
    """The process that listens on the port, as far as we may see it."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"another program ({psutil.Process(connection.pid).name()}, process {connection.pid})"
    return "another program"
