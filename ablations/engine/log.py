"""A cell's log: everything that a cell, its libraries and their C code say goes to log.txt, and not to the terminal."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
    """Send log lines and warnings to a file, and nothing to the terminal; of Lightning's, warnings and worse."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root, *lightning = (logging.getLogger(name) for name in ("", "lightning_fabric", "pytorch_lightning"))
    before = [(logger, logger.level, logger.handlers, logger.propagate) for logger in (root, *lightning)]
    one_line = warnings.formatwarning
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for logger in lightning:
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.formatwarning = _format_warning
            logging.captureWarnings(True)
            yield
    finally:
        logging.captureWarnings(False)
        warnings.formatwarning = one_line
        for logger, level, handlers, propagate in before:
            logger.setLevel(level)
            logger.handlers, logger.propagate = handlers, propagate
        handler.close()


def take_over_output(path: Path) -> None:
    """Send this process's output and errors to a file, and its stack when it crashes or is asked for it.

    A crash is a signal such as SIGSEGV; `DUMP_SIGNAL` asks. Nothing is undone: it is for a worker process.
    """
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # the process leaves without emptying its buffers
    faulthandler.enable(file=2, all_threads=False)
    faulthandler.register(DUMP_SIGNAL, file=2, all_threads=False)


DUMP_SIGNAL = signal.SIGUSR1
"""Makes a worker write the stack of its main thread into its cell's log."""


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Write a warning on one line, without the place where Python is installed."""
    return f"{Path(filename).name}:{lineno}: {category.__name__}: {message}"
