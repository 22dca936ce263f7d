"""The command that tidies up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ablations.cli.app import OK, app
from ablations.cli.printing import make_console, print_lines


@app.command()
def clean(
    study: Annotated[Path, typer.Argument(help="Folder of the study.")],
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and end.")] = False,
) -> int:
    """Remove cells that were cut short, checkpoints, and the study's decoded data from the machine's cache.

    It says what, and asks first. Results stay.
    """
    from ablations.config import UsageError
    from ablations.data import cached
    from ablations.store import Store
    from ablations.store.cleaning import find_leftovers

    store, console = Store(study), make_console(as_json=False)
    leftovers = find_leftovers(store, cached=cached)
    for leftover in leftovers:
        print_lines(console, [f"{leftover.path}  {leftover.num_bytes / 2**20:.1f} MiB  {leftover.description}"])
    if held := list(store.leases.running()):
        print_lines(console, [f"{len(held)} cells are being run, and are left alone"])
    if not leftovers or dry_run:
        print_lines(console, [] if leftovers else ["nothing to remove"])
        return OK
    if not yes and not sys.stdin.isatty():
        raise UsageError("clean asks before it removes anything, and there is no terminal to ask on: give --yes")
    if not yes and not typer.confirm("remove them?"):
        return OK
    still = set(find_leftovers(store, cached=cached))  # while we asked, a runner may have come to need some
    removed = [leftover for leftover in leftovers if leftover in still]
    for leftover in removed:
        leftover.remove()
    print_lines(console, [f"removed: {len(removed)}"])
    if len(removed) < len(leftovers):
        print_lines(console, [f"left alone, since a runner needs them by now: {len(leftovers) - len(removed)}"])
    return OK
