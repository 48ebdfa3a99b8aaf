"""A limit of time for one file."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

T = TypeVar("T")
#: The alarm rings again after this, s, for parsers that swallow any exception and go on.
_AGAIN_S = 0.5


class _Late(BaseException):
    """Not an Exception, which parsers of damaged files catch."""


def call_within(seconds: float, call: Callable[..., T], *arguments: Any) -> T:
    """call(*arguments), stopped after this time with TimeoutError.

    In the main thread by a signal, which ends any Python loop. Elsewhere the call is left running in a thread
    of its own.
    """
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        return _by_signal(seconds, call, arguments)
    return _by_thread(seconds, call, arguments)


def _by_signal(seconds: float, call: Callable[..., T], arguments: tuple) -> T:
    def ring(*_: Any) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, ring)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_S)
            return call(*arguments)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
    except _Late:
        raise _late(seconds) from None
    finally:
        signal.signal(signal.SIGALRM, before)


def _by_thread(seconds: float, call: Callable[..., T], arguments: tuple) -> T:
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    if not wait([future], seconds).done:
        raise _late(seconds)
    return future.result()


def _late(seconds: float) -> TimeoutError:
    return TimeoutError(f"took longer than {seconds:g} s")
