"""The array of Slurm's tasks that runs a study: its folder, and its state in Slurm's queue."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ablations.store.files import write_json
from ablations.store.reading import NotRead, read_json

SLURM, ARRAY = "slurm", "array.json"
"""Folder of the tasks and their logs in a study's folder, and file there that names the array."""


def write_array(folder: Path, job: str) -> None:
    """Note the array that runs a study.

    Args:
        folder: folder of the study.
        job: id of the array's job.
    """
    write_json(folder / SLURM / ARRAY, {"job": job})


def read_array(folder: Path) -> str | None:
    """Return the id of the last array of a study's folder; None: there is none."""
    try:
        return str(read_json(folder / SLURM / ARRAY)["job"])
    except (FileNotFoundError, NotRead, KeyError, TypeError):
        return None


def states(job: str) -> Sequence[str]:
    """Return the states of an array's tasks that wait or run; none if Slurm does not know it, or is not here."""
    if shutil.which("squeue") is None:
        return []
    command = ["squeue", "--noheader", "--format=%T", "--jobs", job]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []
