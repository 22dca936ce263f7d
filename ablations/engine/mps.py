"""NVIDIA's Multi-Process Service (MPS): under it, kernels of several processes run on a GPU at the same time.

Its control program (docs.nvidia.com/deploy/mps) starts a daemon, which programs find by a folder of pipes that an
environment variable names when CUDA starts in them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

CONTROL = "nvidia-cuda-mps-control"
"""Control program."""

PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
"""Environment variables that name the folders of a daemon."""

DEFAULT_PIPES = Path("/tmp/nvidia-mps")  # NVIDIA's
"""Folder of pipes if the environment names none."""

CONTROL_S = 10.0
"""Longest time that the control program may take, in seconds."""


@contextlib.contextmanager
def mps_service(note: Callable[[str], None]) -> Iterator[Mapping[str, str] | None]:
    """Use the daemon that is already there, or start one and end it with this block.

    Args:
        note: is called with the reason if there is no daemon.

    Yields:
        Environment variables that a process needs before CUDA starts in it; None: there is no daemon.
    """
    program = shutil.which(CONTROL)
    if _has_daemon(program):
        yield {}
        return
    if program is None:
        note(_without(f"{CONTROL} is not on PATH"))
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="mps-", dir=_short_folder(), ignore_cleanup_errors=True) as folder:
        environment = {PIPES: f"{folder}/pipes", LOGS: f"{folder}/logs"}
        for path in environment.values():
            Path(path).mkdir()
        if reason := _start(program, environment):
            note(_without(reason))
            yield None
            return
        try:
            yield environment
        finally:
            if reason := _ask(program, "quit", environment):
                _kill(environment)
                note(f"the daemon of NVIDIA's Multi-Process Service was killed, since it did not end: {reason}")


def _without(reason: str) -> str:
    return f"concurrent cells take turns on a GPU, without NVIDIA's Multi-Process Service: {reason}"


def _has_daemon(program: str | None) -> bool:
    """Tell whether a daemon answers; without its program, which a container may lack, whether it has a pipe."""
    if not (Path(os.environ.get(PIPES, DEFAULT_PIPES)) / "control").exists():
        return False
    return program is None or not _ask(program, "get_server_list", {})


def _start(program: str, environment: Mapping[str, str]) -> str:
    """Start the daemon; return the reason if that fails, or an empty text."""
    try:
        reason = _run([program, "-d"], "", environment) or _ask(program, "get_server_list", environment)
    except BaseException:
        _kill(environment)
        raise
    if reason:
        _kill(environment)
    return reason


def _ask(program: str, command: str, environment: Mapping[str, str]) -> str:
    """Give the daemon a command; return the reason if that fails, or an empty text."""
    return _run([program], f"{command}\n", environment)


def _run(line: list[str], text: str, environment: Mapping[str, str]) -> str:
    """Run the control program on a text; return the reason if it fails, or an empty text.

    Its output goes to a file, since the daemon would keep a pipe open. A Ctrl-C does not reach it. The daemon serves
    all GPUs: it would number those of CUDA_VISIBLE_DEVICES from 0, and a worker choose among them by its own numbers.
    """
    others = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as given:
        given.write(text)
        given.seek(0)
        try:
            code = subprocess.run(
                line,
                stdin=given,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**others, **environment},
                timeout=CONTROL_S,
                start_new_session=True,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return f"{CONTROL} takes more than {CONTROL_S:g} s"
        except OSError as error:
            return f"{CONTROL} cannot be run: {error.strerror}"
        output.seek(0)
        said = output.read().split("\n")
    return "" if code == 0 else f"{CONTROL} says: {said[0] or f'exit code {code}'}"


def _kill(environment: Mapping[str, str]) -> None:
    """Kill the daemon of a folder, which holds its process id."""
    with contextlib.suppress(OSError, ValueError):
        os.kill(int((Path(environment[PIPES]) / f"{CONTROL}.pid").read_text()), signal.SIGKILL)


def _short_folder() -> str | None:
    """Return a folder with a short path: that of a pipe may have some 100 characters."""
    return "/tmp" if os.access("/tmp", os.W_OK) else None
