"""The command line as a whole: its entry, its exit codes, its errors in one line."""

from __future__ import annotations

import gc
import logging
import platform
import sys
from typing import Annotated

import typer

import ablations
from ablations.config.escape import visible, visible_lines
from ablations.config.platforms import UNSUPPORTED, is_supported
from ablations.engine.signals import remember_interrupts

OK, SOME_FAILED, USAGE, NO_OUTCOME, INTERRUPTED = 0, 1, 2, 3, 130

GC_THRESHOLDS = (50_000, 20, 100)
"""Thresholds of the collector of cycles, which would look through ten thousand records every few moments."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if not asked:
        return
    from ablations.config.packages import DISTRIBUTION, package_version

    torch = package_version("torch") or "(not installed)"
    typer.echo(f"{DISTRIBUTION} {ablations.__version__}, torch {torch}, Python {platform.python_version()}")
    raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the versions and exit.")
    ] = False,
) -> None:
    """Train a vision transformer under every attention normaliser, paired, and say how sure the result is."""


def main() -> None:
    """Run the command line and leave with its exit code; a usage error is one line on stderr."""
    if not is_supported():
        print(f"error: {UNSUPPORTED}", file=sys.stderr)
        sys.exit(USAGE)
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    remember_interrupts()
    gc.set_threshold(*GC_THRESHOLDS)
    if logging.lastResort is not None:  # prints the warnings of this process
        logging.lastResort.setFormatter(_Visible())
    try:
        code = app(standalone_mode=False)
    except Exception as error:
        if (line := _usage_line(error)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        code = USAGE
    if code == INTERRUPTED:  # what the option parser makes of a KeyboardInterrupt
        print("interrupted", file=sys.stderr)
    sys.exit(code or OK)


class _Visible(logging.Formatter):
    """Writes log records with controls as escapes."""

    def format(self, record: logging.LogRecord) -> str:
        return visible_lines(super().format(record))


def _usage_line(error: Exception) -> str | None:
    """Return the one line of an error that the user made; None where the error is ours."""
    if hasattr(error, "format_message"):  # the option parser's own errors
        return visible(" ".join(str(error.format_message()).split()))
    from ablations.config import UsageError
    from ufo.registry import UnknownNameError

    return visible(" ".join(str(error).split())) if isinstance(error, (UsageError, UnknownNameError)) else None
