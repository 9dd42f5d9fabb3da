"""What the doctor looks at on this machine: the settings and where each comes from, packages, programs, the port, the disk, a GPU."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires, version

from gemma3n_sgl.engine.choice import detect
from gemma3n_sgl.errors import SettingsError
from gemma3n_sgl.registry import Registry
from gemma3n_sgl.settings import PREFIX, Settings, lines_of, without_login
from gemma3n_sgl.terminal.findings import Finding, fine, problem, warning

SECRET = ("api_keys", "runtime_api_key")
"""Settings that are never shown."""

OUTPUT_TIMEOUT = 3.0
"""Seconds nvidia-smi may take: it hangs where a driver is broken."""


def settings(found: Settings, environ: Mapping[str, str]) -> Finding:
    """Each setting that is not as by default, with where it comes from."""
    told, read = [], Settings.from_env(environ)
    for name, field in Settings.model_fields.items():
        value, variable = getattr(found, name), PREFIX + name.upper()
        if value == field.get_default() and variable not in environ:
            continue
        shown = "…" if name in SECRET else ",".join(map(str, value)) if isinstance(value, tuple) else without_login(str(value))
        told.append(f"{name}={shown} ({variable if value == getattr(read, name) else 'flag'})")
    return fine("settings", f"{'; '.join(told)}; all else as by default" if told else "all as by default")


def keys(found: Settings) -> Finding:
    """Whether strangers are kept out, and the files of keys can be read."""
    try:
        for name in ("api_keys_file", "runtime_api_key_file"):
            if file := getattr(found, name):
                lines_of(file, name)
    except SettingsError as error:
        return problem("keys", error.message, "Correct the setting, or the file.")
    if found.api_keys or found.api_keys_file:
        return fine("keys", "clients must show one")
    if found.host in ("127.0.0.1", "::1", "localhost"):
        return fine("keys", "none are asked for; only this machine reaches the server")
    return warning("keys", f"none are asked for, and {found.host} can be reached from elsewhere", "Set GEMMA3N_API_KEYS or GEMMA3N_API_KEYS_FILE.")


def packages() -> Finding:
    """Python and what is installed, against what this release declares."""
    python = ".".join(map(str, sys.version_info[:3]))
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        return problem("packages", f"Python {python} will not do", "Use Python 3.11 or 3.12: make distclean, then make serve PYTHON=python3.12")
    wrong = []
    for requirement in requires("gemma3n-sgl") or []:
        parsed = re.match(r"([\w.-]+)(?:\[[^]]*\])?(?:==([\w.]+))?", requirement)
        if parsed is None or "extra ==" in requirement:
            continue
        name, pinned = parsed.groups()
        try:
            installed = version(name)
            if pinned and installed != pinned:
                wrong.append(f"{name} is {installed} instead of {pinned}")
        except PackageNotFoundError:
            wrong.append(f"{name} is missing")
    if wrong:
        return problem("packages", "; ".join(wrong), "Install them as this release has them: pip install --require-hashes -r requirements.lock")
    return fine("packages", f"gemma3n-sgl {version('gemma3n-sgl')}, Python {python}, SGLang's frontend {version('sglang')}")


def programs(found: Settings) -> list[Finding]:
    """The programs that would be served, and those that are left out."""
    registry = Registry.discover(found.programs)
    findings = [fine("programs", f"{len(registry.programs)}: {', '.join(registry.programs)}")]
    return findings + [problem("programs", str(left_out), "Correct the file; it is left out until then.") for left_out in registry.problems]


def port(found: Settings) -> Finding:
    """Whether the server could listen now. A server that does is no problem."""
    with socket.socket(socket.AF_INET6 if ":" in found.host else socket.AF_INET) as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((found.host, found.port))
        except OSError as error:
            text = f"{found.host}:{found.port} can't be listened on: {(error.strerror or 'unknown reason').lower()}"
            return warning("port", text, f"If it is not this server that runs already: gemma3n serve --port {found.port + 1}")
    return fine("port", f"{found.host}:{found.port} is free")


def disk(found: Settings) -> Finding:
    """Room for the largest upload, which goes to disk while it is heard."""
    try:
        free = shutil.disk_usage(tempfile.gettempdir()).free / 2**20
    except FileNotFoundError:  # what tempfile says where it can't write anywhere
        free = 0.0
    text = f"{free / 1024:.1f} GB free for uploads of up to {found.max_upload_mb / 1024:g} GB"
    if free < found.max_upload_mb:
        return warning("disk", text, "Make room, set TMPDIR to another disk, or lower GEMMA3N_MAX_UPLOAD_MB.")
    return fine("disk", text)


def gpu() -> Finding:
    """The GPU that an engine on this machine would run on; none is no problem, as the engine may be elsewhere."""
    if detect() == "cpu":
        return fine("gpu", "none here; an engine on this machine runs on the CPU")
    command = ["nvidia-smi", "--query-gpu=name,memory.total,memory.used", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=OUTPUT_TIMEOUT, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return warning("gpu", "there is a device, but nvidia-smi tells nothing of it", "Look at the driver: nvidia-smi")
    return fine("gpu", "; ".join(told.strip().splitlines()))
