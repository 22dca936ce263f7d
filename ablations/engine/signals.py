"""Interrupts: the first Ctrl-C lets running cells finish; the second stops at once, and SIGTERM soon."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

SAVE_SIGNAL = signal.SIGUSR2
"""Signal on which a worker saves a checkpoint after its step."""

TWICE_S = 1.0
"""Time within which a second signal is the first once more, in seconds: Slurm's daemon and srun both send one."""

_REMEMBERED = threading.Event()


def remember_interrupts() -> None:
    """Let Ctrl-C raise KeyboardInterrupt and record it, since a library may swallow the exception on import.

    Clears an earlier record: call it when a command begins.
    """
    _REMEMBERED.clear()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _remember)


def _remember(number: int, frame: FrameType | None) -> None:
    _REMEMBERED.set()
    signal.default_int_handler(number, frame)


class Stops:
    """The requests to stop so far.

    Attributes:
        soft: Set when no more cells may start.
        hard: Set when running cells must stop.
        saves: Set when they may save a checkpoint first: after a SIGTERM, as before the end of a machine or of a
            cluster's time limit, until a further signal that comes later than `TWICE_S`.
    """

    def __init__(self) -> None:
        self.soft = threading.Event()
        self.hard = threading.Event()
        self.saves = threading.Event()
        self._ended = 0.0  # time of `hard`

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.hard.is_set():
            if time.monotonic() - self._ended > TWICE_S:
                self.saves.clear()
        elif number == signal.SIGTERM:
            self.saves.set()
        if not self.hard.is_set() and (number == signal.SIGTERM or self.soft.is_set()):
            self.hard.set()
            self._ended = time.monotonic()
        self.soft.set()


@contextlib.contextmanager
def stoppable() -> Iterator[Stops]:
    """Handle SIGINT and SIGTERM as requests to stop; has no effect outside the main thread.

    A Ctrl-C recorded by `remember_interrupts` counts as the first.
    """
    stops = Stops()
    if _REMEMBERED.is_set():
        stops.soft.set()
    if threading.current_thread() is not threading.main_thread():
        yield stops
        return
    before = {number: signal.signal(number, stops.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interrupts_blocked(*others: signal.Signals) -> Iterator[None]:
    """Block Ctrl-C and `SAVE_SIGNAL` in this block; a process started in it never receives them.

    A cluster sends its notice of a time limit to every process of a job, and it would end those that do not know it.

    Args:
        others: further signals to block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, SAVE_SIGNAL, *others})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
