"""`gemma3n doctor`: everything looked at that is between a client and an answer, and what to do where something is wrong."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from gemma3n_sgl.client import endpoint_of
from gemma3n_sgl.endpoint import Gemma3nEndpoint
from gemma3n_sgl.errors import Gemma3nError
from gemma3n_sgl.settings import Settings
from gemma3n_sgl.terminal import engine_checks, machine_checks
from gemma3n_sgl.terminal.findings import SIGNS, STYLES, Finding, problem
from gemma3n_sgl.terminal.showing import FAILED, OK, Waiting, print_json, say


def examine(read_settings: Callable[[], Settings], environ: Mapping[str, str], *, as_json: bool = False) -> int:
    """Look at everything and tell it. Returns the exit code: 0 where nothing is a problem; warnings are none."""
    findings: list[Finding] = []

    def tell(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            say(f"{SIGNS[finding.state]} {finding.what:9} {finding.text}", STYLES[finding.state], stderr=False)
            if finding.advice:
                say(f"  {'':9} → {finding.advice}", stderr=False)

    asyncio.run(_examine(read_settings, environ, tell))
    wrong = sum(finding.state == "problem" for finding in findings)
    if as_json:
        print_json({"ok": not wrong, "findings": [asdict(finding) for finding in findings]})
    else:
        say("All is well." if not wrong else f"{wrong} problem{'s' if wrong > 1 else ''}.", "bold", stderr=False)
    return FAILED if wrong else OK


async def _examine(read_settings: Callable[[], Settings], environ: Mapping[str, str], tell: Callable[[Finding], None]) -> None:
    try:
        settings = read_settings()
    except Gemma3nError as error:
        tell(problem("settings", error.message, "Correct it; the rest is looked at then."))
        return
    for what, check in _of_the_machine(settings, environ):
        for finding in await _looked("", what, check):
            tell(finding)
    try:
        endpoint = endpoint_of(settings)
    except Gemma3nError as error:
        tell(problem("settings", error.message, "Correct it; the engine is asked then."))
        return
    try:
        async for finding in _of_the_engine(endpoint):
            tell(finding)
    finally:
        await endpoint.client.aclose()


def _of_the_machine(settings: Settings, environ: Mapping[str, str]) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "settings", partial(machine_checks.settings, settings, environ)
    yield "keys", partial(machine_checks.keys, settings)
    yield "packages", machine_checks.packages
    yield "programs", partial(machine_checks.programs, settings)
    yield "port", partial(machine_checks.port, settings)
    yield "disk", partial(machine_checks.disk, settings)
    yield "gpu", machine_checks.gpu


async def _of_the_engine(endpoint: Gemma3nEndpoint) -> AsyncIterator[Finding]:
    info: dict[str, Any] = {}

    async def reached() -> Finding:
        nonlocal info
        finding, info = await engine_checks.reached(endpoint)
        return finding

    yield (await _looked("looking for the engine…", "engine", reached))[0]
    if not info:
        return
    checks: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("version", partial(engine_checks.release, endpoint)),
        ("model", partial(engine_checks.model, info)),
        ("media", partial(engine_checks.media, info)),
        ("template", partial(engine_checks.template, endpoint)),
        *((name, partial(engine_checks.answer, endpoint, name)) for name in engine_checks.QUESTIONS),
    )
    for what, check in checks:
        for finding in await _looked(f"asking the engine ({what})…", what, check):
            yield finding


async def _looked(waiting: str, what: str, check: Callable[[], Any]) -> list[Finding]:
    """What a check finds. One that fails itself is a problem, never a traceback."""
    sign = Waiting(waiting)
    if waiting:
        sign.begin()
    try:
        found = check()
        found = await found if inspect.isawaitable(found) else found
        return found if isinstance(found, list) else [found]
    except Exception as error:
        return [problem(what, f"this could not be looked at ({type(error).__name__})", "That is a bug of the doctor's: please report it.")]
    finally:
        sign.end()
