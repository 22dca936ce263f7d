"""What a worker is given: the tasks of claimed cells, and their folders."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from ablations.config import CellConfig, Study
from ablations.config.options import CellOptions, EngineOptions
from ablations.config.paths import real_path
from ablations.data import DataInfo
from ablations.engine.job import Placement
from ablations.engine.watcher import Watcher
from ablations.engine.worker import Task
from ablations.store import CHECKPOINT, LOGS, CellRecord, Lease, Store, cell_name, write_json
from ablations.store.provenance import plugin_hash
from ablations.training.limits import NO_ROOM


@dataclass(kw_only=True, eq=False)
class Preparation:
    """Prepares claimed cells of a study.

    Args:
        study: study of the cells.
        store: folder of the study.
        infos: data sets, by fingerprint.
        options: options of the run.
        records: record of each cell that has one, by cell id.
        numerics: numerics version of the code, by normaliser.
        watcher: observer of the run.
    """

    study: Study
    store: Store
    infos: Mapping[str, DataInfo]
    options: EngineOptions
    records: Mapping[str, CellRecord]
    numerics: Mapping[str, str]
    watcher: Watcher

    def __post_init__(self) -> None:
        self._plugin_hashes = {norm: plugin_hash(norm) for norm in self.numerics}

    def task(self, cell: CellConfig, lease: Lease, placement: Placement) -> Task:
        """Write a cell's configuration and checkpoint to its folder, and return its task.

        Args:
            cell: cell.
            lease: claim on the cell.
            placement: what the engine gives it.

        Raises:
            OSError: the folder cannot be written; it is gone if another runner has taken the cell over.
        """
        write_json(lease.folder / "config.json", cell.model_dump(mode="json"))
        self._copy_checkpoint(cell, lease)
        options = CellOptions(
            checkpoint_every=self.options.checkpoint_every,
            trainer=self.options.trainer,
            save_weights=self.options.save_weights,
            probe_steps=self.options.probe_steps,
            loggers=self.options.loggers,
            log_folder=str(real_path(self.store.folder) / LOGS / cell_name(self.study.arm_of(cell), cell)),
            memory_mib=placement.memory_mib,
            workers=placement.workers,
            weights=dict(self.options.weights).get(cell.net.norm, ""),
            mps=placement.mps,
        )
        return Task(
            config=cell,
            info=self.infos[cell.images.data_fingerprint],
            folder=real_path(lease.folder),
            device=placement.device,
            peers=placement.peers,
            options=options,
            numerics=self.numerics[cell.net.norm],
            plugins=self.study.plugins,
            plugin_hash=self._plugin_hashes[cell.net.norm],
        )

    def _copy_checkpoint(self, cell: CellConfig, lease: Lease) -> None:
        """Copy the checkpoint of a failed attempt if it has one; if it cannot be read, the cell restarts without it."""
        before, path = self.records.get(cell.id), lease.folder / CHECKPOINT
        if before is None or before.has_result or path.exists() or not (before.folder / CHECKPOINT).exists():
            return
        scratch = lease.folder / f"{CHECKPOINT}.partial"
        try:
            shutil.copy(before.folder / CHECKPOINT, scratch)
            scratch.replace(path)  # so that no partial copy has this name
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
            scratch.unlink(missing_ok=True)
            self.watcher.note(f"{self.study.title_of(cell)}: restarted, since its checkpoint cannot be read: {error}")
