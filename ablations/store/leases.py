"""Who has a cell: several runners, on one machine or on several that share a folder, divide a study without a server.

A cell on its way is a folder ``cells/.partial/<id>.<n>/``, and to hold that folder is to hold the cell. Only two
operations decide, both atomic on a local and on a network file system: a folder that is renamed to a new name, and the
same where the name is taken, which fails. A runner writes its name into a scratch folder and renames that to
``<id>.1``; of a holder that has died it renames ``<id>.<n>`` to ``<id>.<n+1>``, and only one of several can; and it
renames the finished folder to its place among the cells. A runner that lost its cell finds that the folder is no more.

A holder touches ``lease.json`` every `HEARTBEAT_S`. It is taken for dead when its process is no more (on this machine),
or when an observer has seen no touch for `LEASE_S` of its own clock, so that clocks need not agree.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

HEARTBEAT_S = 5.0
"""Seconds between two signs of life."""

LEASE_S = 30.0
"""Seconds without a sign of life after which a holder is taken for dead."""

SURELY_DEAD_S = 3600.0
"""Seconds without a sign of life after which one look is enough, however much the clocks differ."""

REPLACED = "replaced-"
"""How the name of a record begins that is being replaced by another."""

OPENING = "study"
"""What a runner of a study holds beside its cells, of which it has none as it begins."""

CHECKPOINT = "checkpoint.ckpt"
LEASE = "lease.json"
RESUMED = "resumed.json"
"""What an attempt goes on from: read where its process dies without a word."""

KEPT_FILES = (LEASE, CHECKPOINT, "config.json", "log.txt")
"""Files of a cell that was cut short which the next attempt goes on with."""


class LeaseLost(Exception):
    """Another runner has taken a cell over, or has recorded it."""


@dataclass(frozen=True)
class Holder:
    """A runner.

    Args:
        runner: a name of its own.
        host: machine, since its start, and namespace of process numbers.
        pid: of its process.
        process_started: when that process began, as its system counts: a number may be given out again.
    """

    runner: str
    host: str
    pid: int
    process_started: str

    @staticmethod
    def here() -> Holder:
        """Return the holder that this process is."""
        return Holder(uuid.uuid4().hex[:12], _host(), os.getpid(), _started(os.getpid()) or "")

    def is_gone(self) -> bool:
        """Whether it is known to be dead: False on another machine, of which nothing is known."""
        return self.host == _host() and _started(self.pid) != self.process_started


@dataclass(frozen=True)
class Lease:
    """A cell that this runner holds.

    Args:
        cell: the cell's id.
        folder: the cell's, under ``.partial``.
        holder: this runner.
    """

    cell: str
    folder: Path
    holder: Holder

    def beat(self) -> None:
        """Give a sign of life.

        Raises:
            LeaseLost: another runner has the cell.
        """
        self.check()
        with contextlib.suppress(FileNotFoundError):  # the next beat tells
            os.utime(self.folder / LEASE)

    def check(self) -> None:
        """Check that the cell is still ours.

        Raises:
            LeaseLost: another runner has it.
        """
        holder = _read_holder(self.folder)
        if holder is None or holder.runner != self.holder.runner:
            raise LeaseLost("another runner has taken it over")

    def release(self, *, keep_checkpoint: bool) -> None:
        """Give the cell back; a checkpoint stays for whoever goes on with it."""
        with contextlib.suppress(LeaseLost, FileNotFoundError):
            self.check()
            if keep_checkpoint and (self.folder / CHECKPOINT).exists():
                (self.folder / LEASE).unlink()
            else:
                remove_tree(self.folder)


class Leases:
    """The cells of a study that are on their way.

    Args:
        partials: the folder ``cells/.partial``.
    """

    def __init__(self, partials: Path) -> None:
        self.partials = partials
        self.holder = Holder.here()
        self._seen: dict[str, tuple[int, float]] = {}

    def claim(self, cell: str) -> Lease | None:
        """Take a cell that nobody holds, or whose holder has died; None where another runner has it.

        The folder then holds what a former attempt left to go on with.
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
                if path.name not in KEPT_FILES:
                    path.unlink()
        except FileNotFoundError:  # another runner has taken it in its turn
            return None
        return Lease(cell, taken, self.holder)

    def running(self) -> Iterator[Path]:
        """Return the folder of every cell that a live runner holds, as far as one look can tell."""
        return (folder for folder in self._held() if folder.stem != OPENING)

    @property
    def is_opening(self) -> bool:
        """Whether a runner is about to run the study, as far as one look can tell."""
        return any(folder.stem == OPENING for folder in self._held())

    def _held(self) -> Iterator[Path]:
        for folder in sorted(self.partials.glob("*.*")):
            lease, holder = folder / LEASE, _read_holder(folder)
            with contextlib.suppress(FileNotFoundError):
                if holder is not None and not holder.is_gone() and time.time() - lease.stat().st_mtime < LEASE_S:
                    yield folder

    def left_behind(self) -> list[Path]:
        """Return what dead and released attempts have left; of other machines, whose clocks may differ, after long."""
        found = [p for p in sorted(self.partials.glob("*")) if not p.name.startswith(REPLACED) and p.stem != OPENING]
        return [path for path in found if not self._may_live(path)]

    def _may_live(self, folder: Path) -> bool:
        holder = _read_holder(folder)
        if holder is None or holder.is_gone():
            return False
        with contextlib.suppress(FileNotFoundError):
            return holder.host == _host() or time.time() - (folder / LEASE).stat().st_mtime < SURELY_DEAD_S
        return False

    def sweep(self) -> None:
        """Remove the scratch folders of runners that died; a live one claims its cell another time."""
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
        except FileNotFoundError:  # another runner has swept it away: another time
            return None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        lease = Lease(cell, folder, self.holder)
        if self._folders(cell)[-1] != folder:  # another runner had it, and was taking it over as we looked
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
        if holder is None or holder.is_gone():  # without a holder it was released
            return True
        try:
            with (folder / LEASE).open() as file:  # opening asks a network file system anew
                touched = os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return False
        before, since = self._seen.get(folder.name, (None, 0.0))
        if before != touched:
            self._seen[folder.name] = (touched, time.monotonic())
            return False
        return time.monotonic() - since >= LEASE_S


def rename(folder: Path, name: Path) -> bool:
    """Give a folder a name; False where it is no more, or another has that name: somebody else was faster."""
    try:
        folder.rename(name)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY):
            raise
        return False
    return True


def remove_tree(folder: Path) -> None:
    """Remove a folder so that it is gone at once for others."""
    gone = folder.with_name(f"gone-{uuid.uuid4().hex[:12]}")
    if rename(folder, gone):
        shutil.rmtree(gone, ignore_errors=True)


def _started(pid: int) -> str | None:
    """Return when a process began, by a count that the clock does not move where there is one; None: no process."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        if stat.parent.parent.exists():
            return stat.read_text().rpartition(")")[2].split()[19]  # ticks since the machine was started
        return str(round(psutil.Process(pid).create_time()))
    except (OSError, psutil.Error):
        return None


def _number(folder: Path) -> int:
    return int(folder.suffix[1:])


def _read_holder(folder: Path) -> Holder | None:
    try:
        return Holder(**json.loads((folder / LEASE).read_text()))
    except (FileNotFoundError, ValueError, TypeError):  # released, or not written before the power failed
        return None


def _host() -> str:
    """Name this machine since it was started; containers on one machine are different ones."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    since = boot.read_text().strip() if boot.exists() else ""
    processes = str(namespace.stat().st_ino) if namespace.exists() else ""
    return "/".join([socket.gethostname(), since, processes])
