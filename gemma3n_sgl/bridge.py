"""Plain synchronous code that waits on an event loop, without a thread for each waiter.

A program runs as a greenlet (`spawn`). Where it has to wait, `wait(awaitable)` switches to the loop and comes back with the result,
as SQLAlchemy's asyncio bridge does. Code that is no greenlet (a notebook, SGLang's own worker threads) calls the same `wait`, which
then hands the awaitable to one background loop: so there is one transport and one way of waiting for both worlds.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import greenlet

T = TypeVar("T")


class Interrupted(BaseException):
    """Raised in the middle of a program that holds up the loop. `error` is what comes of it; a program's `except Exception` does not stop it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Escaped(Exception):
    """Raised for what a program raises that would end more than itself: SystemExit, KeyboardInterrupt and the like. Its cause is that."""


class _Program(greenlet.greenlet):
    """A greenlet whose parent drives it from a coroutine."""


async def spawn(fn: Callable[..., T], *args: Any) -> T:
    """Run `fn` as a greenlet on the running loop. What it raises is raised here; cancelling this raises CancelledError inside it.

    Raises Escaped for what is no Exception and was not raised inside it by us.
    """
    program = _Program(fn)
    program.gr_context = contextvars.copy_context()
    thrown: BaseException | None = None
    try:
        pending = program.switch(*args)
        while not program.dead:
            try:
                value = await pending
            except BaseException as error:
                thrown = error
                pending = program.throw(error)
            else:
                pending = program.switch(value)
    except Interrupted as interrupted:
        raise interrupted.error from None
    except BaseException as error:
        if isinstance(error, Exception) or isinstance(thrown, type(error)):
            raise
        raise Escaped from error
    finally:
        thrown = None  # its traceback leads here: in that circle it would keep all that the program held until the garbage collector comes round
    return pending


def in_program() -> bool:
    """Whether the caller runs as a greenlet of `spawn`."""
    return isinstance(greenlet.getcurrent(), _Program)


def wait(awaitable: Awaitable[T]) -> T:
    """The result of `awaitable`, for code that is written synchronously. Blocks nobody else when called within `spawn`."""
    if in_program():
        return greenlet.getcurrent().parent.switch(awaitable)
    if on_background():
        raise RuntimeError("wait() was called on the background loop itself, where it would never return")
    return background().result(_as_coroutine(awaitable))


def offload(fn: Callable[..., T], *args: Any) -> T:
    """`fn(*args)` for work that takes long (decoding, computing): in a thread of a small pool while the loop goes on with others."""
    if not in_program():
        return fn(*args)
    return wait(in_pool(fn, *args))


async def in_pool(fn: Callable[..., T], *args: Any) -> T:
    """`offload` for coroutines."""
    return await asyncio.get_running_loop().run_in_executor(_pool(), fn, *args)


def in_thread(fn: Callable[[], T]) -> asyncio.Future[T]:
    """What comes of `fn()` in a thread of its own, which the end of the process does not wait for, unlike those of a pool."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        try:
            value = fn()
        except BaseException as error:
            tell(_settle, future.set_exception, error)
        else:
            tell(_settle, future.set_result, value)

    def tell(how: Callable[..., None], *what: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(how, *what)

    def _settle(how: Callable[[Any], None], what: Any) -> None:
        if not future.done():  # nobody waits for it any more
            how(what)

    threading.Thread(target=contextvars.copy_context().run, args=[work], name="gemma3n-thread", daemon=True).start()
    return future


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 2), thread_name_prefix="gemma3n-offload")


class Background:
    """One event loop in a thread of its own, for callers that have none."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="gemma3n-loop", daemon=True)
        self.thread.start()
        self._closers: list[Callable[[], Coroutine[Any, Any, None]]] = []
        atexit.register(self._shut)

    def at_exit(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have `close()` run on this loop before the process ends."""
        self._closers.append(close)

    def forget(self) -> None:
        """In a child of this process, which has the loop but not its thread."""
        atexit.unregister(self._shut)

    def _shut(self) -> None:
        for close in self._closers:
            self.result(close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def result(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` there and wait for it here; leaving early (Ctrl-C) cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


_started = cache(Background)
_starting = threading.RLock()  # the garbage collector may come round within, and end a run


def background() -> Background:
    """The background loop of this process, started at first use."""
    with _starting:  # `cache` alone would start one for each of two threads that come at once
        return _started()


def _begin_anew() -> None:
    global _starting
    if _started.cache_info().currsize:
        _started().forget()
    _starting = threading.RLock()
    _started.cache_clear()
    _pool.cache_clear()


os.register_at_fork(after_in_child=_begin_anew)


def on_background() -> bool:
    """Whether the caller runs on the background loop."""
    return _started.cache_info().currsize > 0 and threading.current_thread() is _started().thread


async def _as_coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable
