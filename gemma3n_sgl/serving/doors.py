"""The door to whatever runs something: a POST waits here for its place, before a byte of its body is looked at, and gives it back at its end."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma3n_sgl.errors import Overloaded, ServerFull, ShuttingDown
from gemma3n_sgl.serving.admission import Admission, Pace
from gemma3n_sgl.serving.closing import Closing
from gemma3n_sgl.serving.refusing import refuse
from gemma3n_sgl.serving.watching import seen

LEASE = "gemma3n.lease"
"""Where a request's scope holds its `Lease`."""

WHO = "gemma3n.who"
"""Where a request's scope says which key was shown; the address of the client counts where there are no keys."""


class Lease:
    """A request's place among those that run."""

    def __init__(self, admission: Admission, who: str) -> None:
        self._admission, self._who = admission, who
        self._runs = self._held = 0

    async def widen(self, runs: int) -> None:
        """Hold places for so many runs. Those held before are given back first, so that nobody holds some and waits for more."""
        if runs == self._runs:
            return
        self.leave()
        if (admitted := self._admission.admit(self._who, runs)) is not None:
            with seen().waits():
                await self._admitted(runs, admitted)
        self._runs = runs

    async def _admitted(self, runs: int, admitted: asyncio.Future[None]) -> None:
        await self._admission.admitted(self._who, runs, admitted)
        self._runs = runs  # here already, so that the place is given back however the waiting ends

    async def enter(self, client: Receive) -> Receive | None:
        """Come in, with what the client goes on to send; None where it leaves while it waits. What it sends is read no further than it must be."""
        if (admitted := self._admission.admit(self._who)) is not None:
            waiting = _Waiting(client)
            with seen().waits():
                stayed = await waiting.until(asyncio.ensure_future(self._admitted(1, admitted)))
            return waiting.receive if stayed else None
        self._runs = 1
        return client

    def hold(self, size: int) -> None:
        """The request's body has so many bytes more. Raises ServerFull beyond what all together may hold."""
        self._admission.hold(size)
        self._held += size

    def end(self) -> None:
        """The request is over, and its body gone."""
        self.leave()
        self._admission.hold(-self._held)
        self._held = 0

    def leave(self) -> None:
        if self._runs:
            self._admission.leave(self._who, self._runs)
            self._runs = 0


def hold(scope: Scope, size: int) -> None:
    """So many bytes more of a request's body are in memory. Raises ServerFull beyond what all together may hold."""
    if isinstance(lease := scope.get(LEASE), Lease):
        lease.hold(size)


def give_back(scope: Scope) -> None:
    """Give a request's place back before its last word, so that a client which hears that and asks again finds it free."""
    if isinstance(lease := scope.get(LEASE), Lease):
        lease.leave()


class Doors:
    """Around the application: every POST needs a place, and has it until its answer is out."""

    def __init__(self, app: ASGIApp, admission: Admission, closing: Closing) -> None:
        self._app, self._admission, self._closing, self._pace = app, admission, closing, Pace()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        seen().client = who = scope.get(WHO) or address_of(scope.get("client"))
        lease = Lease(self._admission, who)
        try:
            with self._closing.waiting():
                request = await lease.enter(receive)
                if request is not None:
                    await self._pace.begin()
            if request is not None:
                scope[LEASE] = lease
                await self._app(scope, request, send)
        except (Overloaded, ServerFull, ShuttingDown) as error:
            await refuse(error, scope, receive, send)
        finally:
            lease.end()


class _Waiting:
    """A client that waits: it may leave, and what it has sent meanwhile is kept for whoever reads its request."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._first: Message | None = None

    async def receive(self) -> Message:
        first, self._first = self._first, None
        return first or await self._receive()

    async def until(self, admitted: asyncio.Future[Any]) -> bool:
        """Whether the client stayed until it was admitted; raises what refuses it."""
        coming: asyncio.Future[Any] | None = None
        try:
            while not admitted.done():
                if self._first and self._first.get("more_body"):
                    await asyncio.wait({admitted})  # more of its body would have to be kept to see whether it is still there
                    break
                coming = asyncio.ensure_future(self._receive())
                await asyncio.wait({admitted, coming}, return_when=asyncio.FIRST_COMPLETED)
                if coming.done():
                    self._first = self._first or coming.result()
                    if coming.result()["type"] == "http.disconnect":
                        break
            return admitted.done() and admitted.result() is None
        finally:
            for task in (admitted, coming):
                if task is not None and not task.done():
                    task.cancel()
                    await asyncio.wait({task})


def address_of(client: tuple[str, int] | None) -> str:
    """The client's address; of IPv6 the network, in which one client has as many addresses as it likes."""
    address = client[0] if client else ""
    return ":".join(address.split(":")[:4]) if ":" in address else address
