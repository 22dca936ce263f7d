"""Run and time commands as processes, several at once or one with a time limit; no process outlives the call."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablations.engine.signals import interrupts_blocked

ROOT = Path(__file__).resolve().parents[2]

POLL_S = 0.01
"""Seconds between two checks of the processes, which take seconds each."""

GRACE_S = 5.0
"""Seconds that a stopped process has to stop its children."""

LAST_LINES = 20
"""Number of last output lines of a failed process in the message."""


class CommandFailed(Exception):
    """A command exited with a code other than 0; the message ends with its last output."""


@dataclass(frozen=True)
class _Running:
    command: Sequence[str]
    process: subprocess.Popen[bytes]
    log: Path


def run_all(commands: Sequence[Sequence[str]], *, at_once: int, logs: Path) -> float:
    """Run commands in the source folder; return the seconds from the first start to the last end.

    Args:
        commands: commands, in start order.
        at_once: number of commands that run at once.
        logs: folder for their standard output and error, created if missing.

    Raises:
        CommandFailed: a command failed; the others are stopped.
    """
    logs.mkdir(parents=True, exist_ok=True)
    waiting, running = deque(enumerate(commands)), list[_Running]()
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        while waiting or running:
            while waiting and len(running) < at_once:
                index, command = waiting.popleft()
                running.append(_start(command, logs / f"{index}.txt", stack))
            time.sleep(POLL_S)
            running = [one for one in running if not _has_ended(one)]
        return time.perf_counter() - started


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command with a time limit ended.

    Args:
        code: exit code; None: it was stopped at its limit.
        seconds: seconds from its start to its end.
        tail: last lines of its output and errors.
    """

    code: int | None
    seconds: float
    tail: list[str]


def run_limited(
    command: Sequence[str],
    *,
    limit_s: float,
    log: Path,
    grace_s: float = GRACE_S,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run a command in the source folder; stop it, with all that it started, at its time limit.

    Args:
        command: the command.
        limit_s: seconds after which it gets SIGTERM.
        log: file for its standard output and error.
        grace_s: seconds until it is killed then.
        environment: variables besides those of this process.
    """
    started = time.perf_counter()
    code: int | None = None
    with contextlib.ExitStack() as stack:
        one = _start(command, log, stack, grace_s=grace_s, environment=environment)
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = one.process.wait(limit_s)
    _kill_group(one.process)  # what it left running
    return Ended(code=code, seconds=time.perf_counter() - started, tail=_last_lines(log))


def python(module: str, *arguments: object) -> list[str]:
    """Return the command that runs a module with this interpreter.

    >>> python("ablations", "run", "--seeds", 8)[1:]
    ['-m', 'ablations', 'run', '--seeds', '8']
    """
    return [sys.executable, "-m", module, *map(str, arguments)]


def _start(
    command: Sequence[str],
    log: Path,
    stack: contextlib.ExitStack,
    *,
    grace_s: float = GRACE_S,
    environment: Mapping[str, str] | None = None,
) -> _Running:
    with log.open("wb") as file, interrupts_blocked():  # until `_stop` is registered
        # A new session is a process group, so that the process can be killed with its children.
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        stack.callback(_stop, process, grace_s)
    return _Running(command, process, log)


def _has_ended(one: _Running) -> bool:
    """Return whether a process has ended; raise CommandFailed if it failed."""
    code = one.process.poll()
    if code is None:
        return False
    if code:
        _kill_group(one.process)
        last = "\n".join(_last_lines(one.log))
        raise CommandFailed(f"exit code {code} of {' '.join(one.command)}\n{last}")
    return True


def _last_lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-LAST_LINES:]


def _stop(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """Stop a process that is still running, and its children."""
    if process.poll() is not None:
        return
    try:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    finally:  # also if a second Ctrl-C ends the wait
        _kill_group(process)
        process.wait()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
