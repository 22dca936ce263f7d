"""The fork server: it imports torch and Lightning once, while the study is planned, and forks a process in 0.06 s."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
import threading
from collections.abc import Callable
from multiprocessing import forkserver, resource_tracker, spawn
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any, TypeVar

import psutil

from ablations.config import Interrupted
from ablations.engine.signals import interrupts_blocked

CONTEXT = multiprocessing.get_context("forkserver")

Returned = TypeVar("Returned")


def start_server() -> None:
    """Start the server unless it runs already; return before it is ready."""
    CONTEXT.set_forkserver_preload(["ablations.engine.preload"])
    atexit.register(_kill_server)
    # The server also gets a Ctrl-C, and what a cluster sends to all processes of a job; it ends with its runner.
    with interrupts_blocked(signal.SIGTERM):
        resource_tracker.ensure_running()
    with interrupts_blocked(signal.SIGTERM):  # which the start of the tracker has ended
        forkserver.ensure_running()


def await_server(stopped: threading.Event) -> None:
    """Start the server and wait until its imports are done.

    Args:
        stopped: event that is set when the user interrupts.

    Raises:
        Interrupted: the user interrupted.
    """
    start_server()
    first = threading.Thread(target=_start_empty_process, daemon=True)  # it blocks, and ignores signals
    first.start()
    while first.is_alive():
        first.join(0.1)
        if stopped.is_set():
            raise Interrupted


def start_process(process: ForkServerProcess) -> None:
    """Start a process that does not import the main module.

    The user's script may train studies when it is imported, and multiprocessing has no option to skip the import
    (github.com/python/cpython, Lib/multiprocessing/spawn.py, get_preparation_data).
    """
    prepare = spawn.get_preparation_data

    def prepare_without_main(name: str) -> dict[str, Any]:
        return {key: value for key, value in prepare(name).items() if not key.startswith("init_main")}

    spawn.get_preparation_data = prepare_without_main
    try:
        process.start()
    finally:
        spawn.get_preparation_data = prepare


def call(function: Callable[..., Returned], *arguments: Any, within_s: float | None = None) -> Returned:
    """Call a function in a process of its own, which ends with it.

    Args:
        function: function that the process can import by name.
        arguments: its arguments.
        within_s: time limit in seconds; None: no limit.

    Raises:
        RuntimeError: the function raised, its process died, or the time is over.
    """
    start_server()
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_answer, args=(theirs, function, arguments))
    start_process(process)
    theirs.close()
    try:
        if not ours.poll(within_s):
            raise RuntimeError(f"not done after {within_s:g} s")
        answer, error = ours.recv()
    except EOFError:
        raise RuntimeError("its process died") from None
    finally:
        process.kill()
        process.join()
        ours.close()
    if error:
        raise RuntimeError(error)
    returned: Returned = answer
    return returned


def _answer(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Send what a function returns, or its error in a line; this is the main function of a process of `call`."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        pipe.send((function(*arguments), ""))
    except Exception as error:
        pipe.send((None, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"))


def _start_empty_process() -> None:
    process = CONTEXT.Process()  # without a target it ends at once
    start_process(process)
    process.join()


def _kill_server() -> None:
    """Kill the server: while it imports, it would not notice the end of its runner."""
    for child in psutil.Process().children():
        try:
            if any("multiprocessing.forkserver" in part for part in child.cmdline()):
                child.kill()
        except psutil.Error:  # it has ended
            continue
