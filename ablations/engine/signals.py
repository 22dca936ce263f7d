"""The user's wish to stop: the first Ctrl-C lets what runs finish, the second stops at once, as SIGTERM does."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


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
    """Take SIGINT and SIGTERM as wishes to stop, where signals can be handled at all: in the main thread."""
    stops = Stops()
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
def no_interrupt() -> Iterator[None]:
    """Ignore SIGINT, as a process that is started meanwhile will for good."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
