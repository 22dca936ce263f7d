"""The fork server, which loads torch and Lightning once; a process that is forked from it starts in 0.06 s.

It is started before anything else, and loads while the runner plans.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import threading
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker, spawn
from multiprocessing.context import ForkServerProcess
from typing import Any

import psutil

from ablations.config import Interrupted
from ablations.engine.signals import interrupts_held

CONTEXT = multiprocessing.get_context("forkserver")


def start_server() -> None:
    """Start the server, unless it runs already, without waiting for it."""
    CONTEXT.set_forkserver_preload(["ablations.engine.preload"])
    atexit.register(_end_server)
    resource_tracker.ensure_running()  # which lets interrupts through again where the server has to start it
    with interrupts_held():  # it must outlive a Ctrl-C, which reaches it too
        forkserver.ensure_running()


def await_server(stopped: threading.Event) -> None:
    """Start the server, and wait until it has loaded all.

    Args:
        stopped: set when the user wants to stop.

    Raises:
        Interrupted: the user wanted to.
    """
    start_server()
    first = threading.Thread(target=_start_one, daemon=True)  # a start waits for the server, and for no signal
    first.start()
    while first.is_alive():
        first.join(0.1)
        if stopped.is_set():
            raise Interrupted


def start_process(process: ForkServerProcess) -> None:
    """Start a process that does not load the program that starts it.

    It would else import the user's script, which may train studies itself as it is imported, for multiprocessing has no
    option not to (github.com/python/cpython, Lib/multiprocessing/spawn.py, get_preparation_data).
    """
    with _preparing_without_main():
        process.start()


@contextlib.contextmanager
def _preparing_without_main() -> Iterator[None]:
    prepare = spawn.get_preparation_data

    def prepare_without_main(name: str) -> dict[str, Any]:
        return {key: value for key, value in prepare(name).items() if not key.startswith("init_main")}

    spawn.get_preparation_data = prepare_without_main
    try:
        yield
    finally:
        spawn.get_preparation_data = prepare


def _start_one() -> None:
    process = CONTEXT.Process(target=_nothing)
    start_process(process)
    process.join()


def _nothing() -> None:
    pass


def _end_server() -> None:
    """End a server that nobody needs any more: while it loads, it would not see that its runner has gone."""
    for child in psutil.Process().children():
        try:
            if any("multiprocessing.forkserver" in part for part in child.cmdline()):
                child.kill()
        except psutil.Error:  # gone by itself
            continue
