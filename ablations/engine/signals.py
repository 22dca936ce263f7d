"""The user's wish to stop: the first Ctrl-C lets what runs finish, the second stops at once, as SIGTERM does."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_REMEMBERED = threading.Event()


def remember_interrupts() -> None:
    """Have Ctrl-C raise KeyboardInterrupt as ever, but also be remembered: a library may swallow it as it is loaded.

    What was remembered before is forgotten: a command begins.
    """
    _REMEMBERED.clear()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _remember)


def _remember(number: int, frame: FrameType | None) -> None:
    _REMEMBERED.set()
    signal.default_int_handler(number, frame)


class Stops:
    """What has been asked for so far.

    Attributes:
        soft: no more cells are to be started.
        hard: those that run are to be ended.
    """

    def __init__(self) -> None:
        self.soft = threading.Event()
        self.hard = threading.Event()

    def ask(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal."""
        if number == signal.SIGTERM or self.soft.is_set():
            self.hard.set()
        self.soft.set()


@contextlib.contextmanager
def stoppable() -> Iterator[Stops]:
    """Take SIGINT and SIGTERM as wishes to stop, where signals can be handled at all: in the main thread.

    A Ctrl-C that came before, and was swallowed, counts.
    """
    stops = Stops()
    if _REMEMBERED.is_set():
        stops.soft.set()
    if threading.current_thread() is not threading.main_thread():
        yield stops
        return
    before = {number: signal.signal(number, stops.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back for a moment; a process that is started meanwhile does not hear of it for good."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
