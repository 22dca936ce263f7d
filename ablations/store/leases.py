"""Leases of cells: several runners, on machines that share a folder, divide a study without a server.

A running cell is a folder ``cells/.partial/<id>.<n>/``, whose owner holds the cell. Ownership only changes by renaming
a folder, which is atomic on local and network file systems and fails if the name is taken. To claim a cell, a runner
writes its name into a scratch folder and renames it to ``<id>.1``; to take over from a dead holder, it renames
``<id>.<n>`` to ``<id>.<n+1>``; to publish, it renames the folder to its place among the cells. A runner that lost its
cell finds the folder missing.

A holder touches ``lease.json`` every `HEARTBEAT_S`. It counts as dead when its process (on this machine) has ended, or
when an observer has seen no touch for `LEASE_S` on its own clock, so that clocks may differ.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import psutil
from pydantic import Field, TypeAdapter

from ablations.store.files import clean_log
from ablations.store.reading import NotRead, read_json, reason_of

HEARTBEAT_S = 5.0
"""Seconds between two heartbeats."""

LEASE_S = 30.0
"""Seconds without a heartbeat after which a holder counts as dead."""

SURELY_DEAD_S = 3600.0
"""Age of a heartbeat, in seconds, beyond which a holder is dead whatever the clocks' difference."""

REPLACED = "replaced-"
"""Prefix of the folder of a record that is being replaced."""

OPENING = "study"
"""Name of the lease on a study as a whole, which a runner holds from before its first cell."""

CHECKPOINT = "checkpoint.ckpt"
LEASE = "lease.json"
RESUMED = "resumed.json"
"""State that an attempt resumed from; read if its process dies."""

LOG = "log.txt"

STEPS_FILE = "steps.csv"
"""Probes of single steps, of a cell in its folder and of a study in its report."""

KEPT_FILES = (LEASE, CHECKPOINT, "config.json", LOG)
"""Files of an interrupted attempt that the next attempt keeps."""


class LeaseLost(Exception):
    """Another runner has taken a cell over, or has recorded it."""


Text = Annotated[str, Field(strict=True, max_length=100)]


@dataclass(frozen=True)
class Holder:
    """A runner that holds cells.

    Args:
        runner: unique name.
        host: hashes of the machine with its boot, and of its process namespace, which name neither.
        pid: id of its process.
        process_started: start time of the process on the system's count, since ids are reused.
    """

    runner: Text
    host: Text
    pid: Annotated[int, Field(strict=True, ge=1, lt=2**31)]
    process_started: Text

    @staticmethod
    def here() -> Holder:
        """Return a holder for this process."""
        return Holder(uuid.uuid4().hex[:12], _host(), os.getpid(), _started(os.getpid()) or "")

    def is_gone(self) -> bool:
        """Return whether its process has ended; False if it is on another machine, where this is unknown."""
        return self.host == _host() and _started(self.pid) != self.process_started


HOLDER = TypeAdapter(Holder)


@dataclass(frozen=True)
class Lease:
    """A cell that this runner holds.

    Args:
        cell: id of the cell.
        folder: folder of the cell, under ``.partial``.
        holder: this runner.
    """

    cell: str
    folder: Path
    holder: Holder

    def beat(self) -> None:
        """Send a heartbeat.

        Raises:
            LeaseLost: another runner holds the cell.
        """
        self.check()
        with contextlib.suppress(FileNotFoundError):  # the next heartbeat raises
            os.utime(self.folder / LEASE)

    def check(self) -> None:
        """Check that this runner holds the cell.

        Raises:
            LeaseLost: another runner holds it.
        """
        holder = _read_holder(self.folder)
        if holder is None or holder.runner != self.holder.runner:
            raise LeaseLost("another runner has taken it over")

    def release(self, *, keep_checkpoint: bool) -> None:
        """Release the cell, with or without its checkpoint for the next attempt."""
        with contextlib.suppress(LeaseLost, FileNotFoundError):
            self.check()
            if keep_checkpoint and (self.folder / CHECKPOINT).exists():
                clean_log(self.folder / LOG)
                (self.folder / LEASE).unlink()
            else:
                remove_tree(self.folder)


class Leases:
    """The leases of a study's running cells.

    Args:
        partials: the folder ``cells/.partial``.
    """

    def __init__(self, partials: Path) -> None:
        self.partials = partials
        self.holder = Holder.here()
        self._seen: dict[str, tuple[int, float]] = {}

    def claim(self, cell: str) -> Lease | None:
        """Claim a cell that has no live holder; return None if another runner holds it.

        The folder of the lease keeps the `KEPT_FILES` of an earlier attempt.
        """
        folders = self._folders(cell)
        if not folders:
            return self._begin(cell)
        last = folders[-1]
        if not self._is_free(last):
            return None
        taken = last.with_name(f"{cell}.{_number(last) + 1}")
        if not rename(last, taken):
            return None
        try:
            self._sign(taken)
            for path in taken.iterdir():
                if path.name not in KEPT_FILES or not is_own_file(path):
                    remove(path)
            lease = Lease(cell, taken, self.holder)
            lease.check()
        except (FileNotFoundError, LeaseLost):  # another runner has taken it over from us
            return None
        return lease

    def running(self) -> Iterator[Path]:
        """Return the folder of each cell with a recent heartbeat of a live holder."""
        return (folder for folder in self._held() if folder.stem != OPENING)

    @property
    def is_opening(self) -> bool:
        """Whether a live runner holds the lease on the study as a whole."""
        return any(folder.stem == OPENING for folder in self._held())

    def _held(self) -> Iterator[Path]:
        for folder in sorted(self.partials.glob("*.*")):
            if folder.is_symlink():
                continue
            with contextlib.suppress(OSError):
                lease, holder = folder / LEASE, _read_holder(folder)
                if holder is not None and not holder.is_gone() and time.time() - lease.stat().st_mtime < LEASE_S:
                    yield folder

    def abandoned(self) -> list[Path]:
        """Return the folders of dead and released attempts; on other machines, only those long dead."""
        found = [p for p in sorted(self.partials.glob("*")) if not p.name.startswith(REPLACED) and p.stem != OPENING]
        return [path for path in found if not self._may_live(path)]

    def _may_live(self, folder: Path) -> bool:
        try:
            holder = _read_holder(folder)
        except OSError as error:
            logging.getLogger(__name__).warning(
                "%s cannot be read: %s; its holder may be running", folder, reason_of(error)
            )
            return True
        if holder is None or holder.is_gone():
            return False
        with contextlib.suppress(FileNotFoundError):
            return holder.host == _host() or time.time() - (folder / LEASE).stat().st_mtime < SURELY_DEAD_S
        return False

    def sweep(self) -> None:
        """Remove all scratch folders; a live runner that loses one claims its cell later."""
        for path in [*self.partials.glob("new-*"), *self.partials.glob("gone-*")]:
            shutil.rmtree(path, ignore_errors=True)

    def _begin(self, cell: str) -> Lease | None:
        scratch = self.partials / f"new-{uuid.uuid4().hex[:12]}"
        folder = self.partials / f"{cell}.1"
        scratch.mkdir(parents=True)
        try:
            self._sign(scratch)
            if not rename(scratch, folder):
                return None
        except FileNotFoundError:  # removed by the `sweep` of another runner; claimed later
            return None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        lease = Lease(cell, folder, self.holder)
        if self._folders(cell)[-1] != folder:  # another runner was taking it over meanwhile
            lease.release(keep_checkpoint=False)
            return None
        return lease

    def _sign(self, folder: Path) -> None:
        scratch = folder / f"{LEASE}.{self.holder.runner}"
        scratch.write_text(json.dumps(asdict(self.holder)))
        scratch.replace(folder / LEASE)

    def _folders(self, cell: str) -> list[Path]:
        found = [path for path in self.partials.glob(f"{cell}.*") if path.suffix[1:].isdecimal()]
        return sorted(found, key=_number)

    def _is_free(self, folder: Path) -> bool:
        holder = _read_holder(folder)
        if holder is None or holder.is_gone():  # no holder: it was released
            return True
        try:
            with (folder / LEASE).open() as file:  # opening makes a network file system refresh its attributes
                touched = os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return False
        before, since = self._seen.get(folder.name, (None, 0.0))
        if before != touched:
            self._seen[folder.name] = (touched, time.monotonic())
            return False
        return time.monotonic() - since >= LEASE_S


def rename(folder: Path, name: Path) -> bool:
    """Rename a folder; return False if it is gone or the name is taken, since another runner was faster."""
    try:
        folder.rename(name)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY):
            raise
        return False
    return True


def remove_tree(folder: Path) -> None:
    """Remove a folder, renaming it first so that it vanishes atomically."""
    gone = folder.with_name(f"gone-{uuid.uuid4().hex[:12]}")
    if rename(folder, gone):
        shutil.rmtree(gone, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if there is one; what a link leads to is kept."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def is_own_file(path: Path) -> bool:
    """Tell whether a path is a regular file, and no link to one."""
    return path.is_file() and not path.is_symlink()


def tidy(folder: Path, *, is_failed: bool) -> None:
    """Remove the temporary files of a finished cell; a failed one keeps its checkpoint for a retry."""
    for path in (*folder.glob("*.partial"), *folder.glob(f".{RESUMED}.*"), folder / RESUMED):
        remove(path)
    if not is_failed:
        remove(folder / CHECKPOINT)
    remove(folder / LEASE)  # last, since `Store.repair` finds untidy cells by it


def _started(pid: int) -> str | None:
    """Return a process's start time, if possible from a count that no clock change affects; None: no such process."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        if stat.parent.parent.exists():
            return stat.read_text().rpartition(")")[2].split()[19]  # ticks since boot
        return str(round(psutil.Process(pid).create_time()))
    except (OSError, psutil.Error, IndexError):
        return None


def _number(folder: Path) -> int:
    return int(folder.suffix[1:])


def _read_holder(folder: Path) -> Holder | None:
    try:
        return HOLDER.validate_python(read_json(folder / LEASE))
    except (FileNotFoundError, NotADirectoryError, NotRead, ValueError):  # released or lost
        return None


def _host() -> str:
    """Identify this machine, its boot and its process namespace, so that containers differ."""
    boot, pids = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    since = boot.read_text().strip() if boot.exists() else ""
    processes = str(pids.stat().st_ino) if pids.exists() else ""
    machine, namespace = f"{socket.gethostname()}/{since}", f"{socket.gethostname()}/{since}/{processes}"
    return "/".join(hashlib.sha256(part.encode()).hexdigest()[:12] for part in (machine, namespace))


def machine_id() -> str:
    """Return a hash that tells this machine, with its boot, from others, and names neither."""
    return _host().partition("/")[0]


def host_name(host: str) -> str:
    """Return the name of a holder's machine if it is this one, otherwise the beginning of its hash."""
    machine, here = host.partition("/")[0], _host().partition("/")[0]
    return socket.gethostname() if machine == here else machine[:8]
