"""The fork server, which loads torch and Lightning once; a process that is forked from it starts in 0.06 s.

It is started before anything else, and loads while the runner plans.
"""

from __future__ import annotations

import atexit
import multiprocessing
import threading
from multiprocessing import forkserver, resource_tracker

import psutil

from ablations.signals import interrupts_held
from ablations.study import Interrupted

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


def _start_one() -> None:
    process = CONTEXT.Process(target=_nothing)
    process.start()
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
