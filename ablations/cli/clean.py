"""The command that removes leftovers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ablations.cli.app import OK, app
from ablations.cli.command import command
from ablations.cli.options import StudyArgument
from ablations.cli.printing import make_console, print_lines
from ablations.config.declare import Option
from ablations.config.values import plural


class CleanOptions(StudyArgument):
    """Options of ``clean``."""

    yes: Annotated[bool, Option("Remove without asking.")] = False
    dry_run: Annotated[bool, Option("List what would be removed, and exit.")] = False


@command(app, CleanOptions)
def clean(options: CleanOptions) -> int:
    """Remove unfinished cells, checkpoints, logs of Slurm's tasks, and the study's decoded data from the cache.

    It lists them and asks first. Results stay.
    """
    from ablations.config import UsageError
    from ablations.data import cached
    from ablations.store import Store
    from ablations.store.cleaning import find_leftovers

    store, console = Store(Path(options.study)), make_console(as_json=False)
    leftovers = find_leftovers(store, cached=cached)
    for leftover in leftovers:
        print_lines(console, [f"{leftover.path}  {leftover.num_bytes / 2**20:.1f} MiB  {leftover.description}"])
    if held := list(store.leases.running()):
        print_lines(console, [f"left unchanged, since they are running: {plural(len(held), 'cell')}"])
    if not leftovers or options.dry_run:
        print_lines(console, [] if leftovers else ["nothing to remove"])
        return OK
    if not options.yes and not sys.stdin.isatty():
        raise UsageError("clean asks before it removes anything, and there is no terminal: give --yes")
    if not options.yes and not typer.confirm("remove them?"):
        return OK
    still = set(find_leftovers(store, cached=cached))  # a runner may have begun to use some while we asked
    removed = [leftover for leftover in leftovers if leftover in still]
    for leftover in removed:
        leftover.remove()
    print_lines(console, [f"removed: {len(removed)}"])
    if len(removed) < len(leftovers):
        print_lines(console, [f"kept, since a runner uses them by now: {len(leftovers) - len(removed)}"])
    return OK
