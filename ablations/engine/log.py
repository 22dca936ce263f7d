"""Redirect the output of a cell, its libraries and their C code to log.txt."""

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

from ablations.config.privacy import private


@contextlib.contextmanager
def logged(*paths: Path) -> Iterator[None]:
    """Write log records and warnings only to files; of Lightning's, warnings and above."""
    handlers: list[logging.Handler] = [logging.FileHandler(path) for path in paths]
    for handler in handlers:
        handler.setFormatter(_Private("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root, *lightning = (logging.getLogger(name) for name in ("", "lightning_fabric", "pytorch_lightning"))
    before = [(logger, logger.level, logger.handlers, logger.propagate) for logger in (root, *lightning)]
    format_before = warnings.formatwarning
    root.handlers = handlers
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
        warnings.formatwarning = format_before
        for logger, level, handlers, propagate in before:
            logger.setLevel(level)
            logger.handlers, logger.propagate = handlers, propagate
        for handler in handlers:
            handler.close()


class _Private(logging.Formatter):
    """Writes log records without the folders and names of user and machine."""

    def format(self, record: logging.LogRecord) -> str:
        return private(super().format(record))


def redirect_output(path: Path) -> None:
    """Append this worker process's stdout and stderr to a file, until the next call.

    A crash (a signal such as SIGSEGV) and `DUMP_SIGNAL` append the stack trace.
    """
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # the process exits without flushing
    faulthandler.enable(file=2, all_threads=False)
    faulthandler.register(DUMP_SIGNAL, file=2, all_threads=False)


DUMP_SIGNAL = signal.SIGUSR1
"""Signal on which a worker dumps the stack trace of its main thread to the cell log."""


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Format a warning as one line, without the folder of its file."""
    return f"{Path(filename).name}:{lineno}: {category.__name__}: {message}"
