"""The study folder: layout, atomic writes, records.

All other files can be rebuilt from ``cells/``. A cell's folder is written under ``cells/.partial/`` and then renamed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ablations.config import CellConfig, Study, UsageError
from ablations.config.errors import first_error
from ablations.config.yaml_file import dump_yaml, parse_yaml
from ablations.store.digests import with_digests, with_own_digest
from ablations.store.files import clean_log, sync, write_json, write_text
from ablations.store.leases import LEASE, LOG, OPENING, REPLACED, Lease, LeaseLost, Leases, remove_tree, rename, tidy
from ablations.store.reading import check_inside, exists, links, read_bytes, reason_of
from ablations.store.record import CellRecord, read_record, unreadable

TRIALS = "tuning"
"""Folder of a tuning's trials, which are a study, within the study that confirms the winners."""

PACKED = "cells.tar.xz"
"""Archive that can hold the cells of a study in place of their folder."""

LOGS = "logs"
"""Folder of the files of Lightning's loggers, with a folder for each cell."""

Stamp = tuple[int, ...] | None
"""Inode, size and time of change (ns) of a file; None: there is none."""

READ_RETRIES, READ_RETRY_S = 3, 0.1
"""Number of retries for a record that cannot be read, and seconds before each."""


_READ: dict[Path, tuple[tuple[Stamp, ...], CellRecord]] = {}
"""Records that this process has read, with the stamps of their files: a run reads them for its plan and its report."""


class Store:
    """The folder of a study.

    Args:
        folder: path of the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cells = folder / "cells"
        self.leases = Leases(self.cells / ".partial")

    @property
    def nearest_folder(self) -> Path:
        """The folder, or its nearest ancestor that exists."""
        return next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())

    @property
    def exists(self) -> bool:
        """Whether the folder holds a study.

        Raises:
            UsageError: the folder cannot be read.
        """
        return exists(self.folder / "study.yaml")

    def read_study(self) -> Study:
        """Read study.yaml.

        Raises:
            UsageError: the file does not exist or cannot be read, or the cells are packed.
        """
        path = self.folder / "study.yaml"
        if self.folder.name == TRIALS:
            check_inside(self.folder, self.folder.parent)
        if not exists(path):
            trials = self.folder / TRIALS
            hint = f"; the trials of its tuning are in {trials}" if exists(trials / "study.yaml") else ""
            raise UsageError(f"no study in {self.folder}: it has no study.yaml{hint}")
        self._check_unpacked()
        try:
            return Study.model_validate(parse_yaml(read_bytes(path), path, dumped=True))
        except ValidationError as error:
            raise UsageError(f"{path} is not a valid study: {first_error(error)}") from error
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {reason_of(error)}") from error

    def _check_unpacked(self) -> None:
        """Reject cells that are in an archive in place of their folder, with the command that unpacks them."""
        if exists(self.folder / PACKED) and not exists(self.cells):
            folder = shlex.quote(str(self.folder))
            command = f"tar -xJf {shlex.quote(str(self.folder / PACKED))} -C {folder}"
            raise UsageError(f"the cells of {self.folder} are packed; unpack them first: {command}")

    @property
    def study_text(self) -> str:
        """Content of study.yaml; empty if it does not exist."""
        try:
            return read_bytes(self.folder / "study.yaml").decode(errors="replace")
        except OSError:
            return ""

    def check_layout(self) -> None:
        """Check that the study's folders do not lead outside it.

        Raises:
            UsageError: one does, by a symbolic link.
        """
        for path in (self.cells, self.leases.partials, self.folder / "study.yaml"):
            check_inside(path, self.folder)

    def check_writable(self) -> None:
        """Check that nothing which a run writes to or removes leads outside the study's folder.

        Raises:
            UsageError: something does, by a symbolic link.
        """
        self.check_layout()
        if self.folder.name == TRIALS:
            check_inside(self.folder, self.folder.parent)
        for path in (self.folder / TRIALS, *links(self.leases.partials)):
            check_inside(path, self.folder)

    def check_logs(self) -> None:
        """Check that no folder of the logs leads outside the study's folder.

        Links to files are left alone: W&B makes some, and no logger writes to a file that is there.

        Raises:
            UsageError: one does, by a symbolic link.
        """
        logs = self.folder / LOGS
        check_inside(logs, self.folder)
        for path in links(logs, folders_only=True):
            check_inside(path, self.folder)

    def write_study(self, study: Study) -> None:
        """Write study.yaml atomically.

        Raises:
            UsageError: the folder cannot be written, or leads elsewhere.
        """
        self.check_writable()
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / "study.yaml", dump_yaml(study.model_dump(mode="json")))
            sync(self.folder)
        except OSError as error:
            raise self._cannot_be_written(error) from error

    @contextlib.contextmanager
    def opened(self) -> Iterator[bool]:
        """Hold the lease on the study as a whole, so that other runners see it before its first cell starts.

        Yields:
            Whether no other runner holds it.

        Raises:
            UsageError: the folder cannot be written.
        """
        try:
            lease = self.leases.claim(OPENING)
        except OSError as error:
            raise self._cannot_be_written(error) from error
        try:
            yield lease is not None
        finally:
            with contextlib.suppress(OSError):  # take over from another runner that died meanwhile
                lease = lease or self.leases.claim(OPENING)
            if lease is not None:
                lease.release(keep_checkpoint=False)

    def _cannot_be_written(self, error: OSError) -> UsageError:
        return UsageError(f"{self.folder} cannot be written: {error.strerror}; give another --out")

    def publish(
        self, lease: Lease, config: CellConfig, outcome: dict[str, Any], *, name: str, replaces: CellRecord | None
    ) -> CellRecord:
        """Write a cell's record and rename its folder to its final name, replacing an earlier record.

        The files are synced before the rename, so that a power failure leaves no partial record.

        Args:
            lease: lease of the cell, which this ends.
            config: configuration of the cell.
            outcome: content of outcome.json.
            name: final name of the folder.
            replaces: record to replace; None: there is none.

        Raises:
            LeaseLost: another runner has taken the cell over or recorded it; this result is discarded.
        """
        lease.check()
        folder, old = self.cells / name, self.leases.partials / f"{REPLACED}{name}"
        try:
            write_json(lease.folder / "config.json", json.loads(config.model_dump_json()))
            clean_log(lease.folder / LOG)
            outcome = with_digests(outcome, lease.folder)
            write_json(lease.folder / "outcome.json", outcome)
            for path in (*lease.folder.iterdir(), lease.folder):
                sync(path)
        except FileNotFoundError as error:
            raise LeaseLost("another runner has taken it over") from error
        if replaces is not None:
            shutil.rmtree(old, ignore_errors=True)  # left by a runner that died after its rename
            rename(replaces.folder, old)
        if not rename(lease.folder, folder):
            rename(old, folder)
            lease.release(keep_checkpoint=False)
            raise LeaseLost("another runner has taken it over or recorded it")
        sync(self.cells)
        tidy(folder, is_failed=outcome["outcome"] == "failed")
        if replaces is not None:
            remove_tree(old)
        return CellRecord(folder, config, outcome)

    def repair(self) -> None:
        """Complete or undo what dead runners left unfinished, without touching the cells of live ones.

        Raises:
            UsageError: a folder of the study leads elsewhere.
        """
        self.check_writable()
        self.leases.sweep()
        live = {folder.stem for folder in self.leases.running()}
        for old in self.leases.partials.glob(f"{REPLACED}*"):
            name = old.name.removeprefix(REPLACED)
            if name.rpartition("-")[2] not in live and not rename(old, self.cells / name):
                remove_tree(old)
        for lease in self.cells.glob(f"[!.]*/{LEASE}"):
            check_inside(lease.parent, self.folder)
            tidy(lease.parent, is_failed=read_record(lease.parent).outcome["outcome"] == "failed")

    def find(self, name: str) -> CellRecord | None:
        """Read the record in a cell's folder, if there is one.

        Raises:
            UsageError: the record cannot be read.
        """
        folder = self.cells / name
        if not exists(folder / "outcome.json"):
            return None
        check_inside(folder, self.folder)
        for _ in range(READ_RETRIES):
            with contextlib.suppress(UsageError):
                return read_record(folder)
            time.sleep(READ_RETRY_S)
        return read_record(folder)

    def add_attempt(self, record: CellRecord, attempt: dict[str, Any]) -> CellRecord:
        """Add a failed attempt to the record of a cell, which keeps its result."""
        outcome = {**record.outcome, "attempts": [*record.outcome["attempts"], attempt]}
        if "digests" in outcome:
            outcome = with_own_digest(outcome)
        write_json(record.folder / "outcome.json", outcome)
        return CellRecord(record.folder, record.config, outcome)

    def records(self) -> dict[str, CellRecord]:
        """Return the records of all finished cells, by id.

        Raises:
            UsageError: a record cannot be read.
        """
        records, problems = self.read_records()
        if problems:
            raise UsageError(f"{self.folder}: {problems[0]}")
        return records

    def read_records(self) -> tuple[dict[str, CellRecord], list[str]]:
        """Return the readable records of finished cells, by id, and one message for each unreadable one.

        Raises:
            UsageError: the folder of the cells leads outside that of the study.
        """
        folders = self.cell_folders()
        read = {folder: self._read(folder) for folder in folders}
        for _ in range(READ_RETRIES):  # a runner may be replacing some
            if not (failed := [folder for folder, record in read.items() if isinstance(record, UsageError)]):
                break
            time.sleep(READ_RETRY_S)
            read |= {folder: self._read(folder) for folder in failed}
        records: dict[str, CellRecord] = {}
        problems = []
        for folder, record in read.items():
            if not isinstance(record, UsageError) and (other := records.get(record.config.id)) is not None:
                record = unreadable(folder, f"it duplicates {other.folder.name}")
            if isinstance(record, UsageError):
                problems.append(str(record))
            else:
                records[record.config.id] = record
        return records, problems

    def cell_folders(self) -> list[Path]:
        """Return the folders of finished cells, in the order of their names.

        Raises:
            UsageError: the folder of the cells leads outside that of the study, or cannot be read, or they are packed.
        """
        check_inside(self.cells, self.folder)
        try:
            with os.scandir(self.cells) as found:
                names = sorted(each.name for each in found if not each.name.startswith(".") and _may_be_folder(each))
        except FileNotFoundError:
            self._check_unpacked()
            return []
        except OSError as error:
            raise UsageError(f"{self.cells} cannot be read: {reason_of(error)}") from error
        exists(self.leases.partials)  # it raises if names can be listed and nothing be read
        return [self.cells / name for name in names]

    def _read(self, folder: Path) -> CellRecord | UsageError:
        """Read the record of a cell, unless this process has read it; return the error if it cannot be read."""
        try:
            if folder.is_symlink():
                check_inside(folder, self.folder)
            stamps = tuple(_stamp(f"{folder}/{name}") for name in ("outcome.json", "config.json"))
            known, record = _READ.get(folder, (None, None))
            if record is None or known != stamps:
                record = read_record(folder)
                _READ[folder] = stamps, record
            if not folder.name.endswith(f"-{record.config.id}"):  # a copy, or another configuration
                return unreadable(folder, f"its config.json has the id {record.config.id}")
        except UsageError as error:
            return error
        return record


def _may_be_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a folder, or a link of which this cannot be known; reading it says why."""
    try:
        return entry.is_dir()
    except OSError:
        return True


def _stamp(path: str) -> Stamp:
    try:
        found = os.lstat(path)  # a Path takes as long to make as the call
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
