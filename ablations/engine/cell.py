"""Run one cell: build data and net from its random streams, train, test once, and write its files."""

from __future__ import annotations

import logging
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from ablations.config import CellConfig
from ablations.config.options import CellOptions
from ablations.data import DataInfo
from ablations.data.modules import make_data
from ablations.data.streams import forked_library
from ablations.engine.devices import device_name
from ablations.engine.log import logged
from ablations.engine.result import TRACEBACK_LINES, Result, blank_fields
from ablations.engine.threads import cpu_threads
from ablations.tasks.make import make_module
from ablations.tasks.trained import save_weights
from ablations.training.callbacks import Diverged, History
from ablations.training.checkpoint import Checkpoints, trained_with
from ablations.training.cuda_settings import cuda_settings
from ablations.training.lightning import LightningTrainer
from ablations.training.limits import is_disk_full, is_oom
from ablations.training.loggers import Loggers
from ablations.training.loop import LeanTrainer
from ufo.init import shared_weights_hash


def run_cell(
    config: CellConfig,
    info: DataInfo,
    *,
    folder: Path,
    device: torch.device,
    options: CellOptions = CellOptions(),  # noqa: B008  # frozen
    numerics: str = "",
) -> Result:
    """Run a cell and write its files, except config.json and outcome.json; resume from a checkpoint in its folder.

    An exception of the cell becomes a ``failed`` result: this is the only place that catches all of them.

    Args:
        config: configuration of the cell.
        info: its data set, decoded in the cache.
        folder: folder to write to, which may hold the checkpoint and the log of an interrupted attempt.
        device: device to train on.
        options: options of the run.
        numerics: numerics version of the code; a checkpoint of another version is ignored.
    """
    clock = time.perf_counter()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # starts CUDA, on this GPU only
        torch.cuda.reset_peak_memory_stats(device)
    fields = blank_fields(info, device_name(device))
    disk_full = False
    with logged(folder / "log.txt"), cpu_threads(config.run.threads_per_cell), forked_library(config.seed):
        cell: _Cell | None = None
        try:
            with cuda_settings(config.run, device, mps=options.mps) as fields["cuda_settings"]:
                cell = _Cell(config, info, folder, device, options, numerics, fields)
                outcome, kind, detail = cell.train_and_score()
            lines: list[str] = []
        except Exception as error:
            logging.exception("the cell failed")
            outcome, kind = "failed", "oom" if is_oom(error) else "error"
            detail = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            lines = "".join(traceback.format_exception(error)).splitlines()[-TRACEBACK_LINES:]
            disk_full = is_disk_full(error, folder)
        finally:
            if cell is not None:
                cell.data.teardown()  # ends the decoding processes
    fields["seconds"] += time.perf_counter() - clock
    fields |= _memory(device)
    return Result(outcome, kind, detail, lines, fields, disk_full)


class _Cell:
    """The parts of a running cell; it updates ``fields`` as it runs, so that a failed cell has what is known so far."""

    def __init__(
        self,
        config: CellConfig,
        info: DataInfo,
        folder: Path,
        device: torch.device,
        options: CellOptions,
        numerics: str,
        fields: dict[str, Any],
    ) -> None:
        self.config, self.folder, self.options, self.fields = config, folder, options, fields
        self.data = make_data(config, info, workers=options.workers)
        self.module = module = make_module(config, info, weights=options.weights)
        fields["init_hash"] = shared_weights_hash(module.net)
        if config.images.classes is not None:
            fields["classes"] = info.classes
        fields["num_parameters"] = sum(parameter.numel() for parameter in module.net.parameters())
        self.history = History(folder)
        self.loggers = Loggers(options.loggers, folder=Path(options.log_folder), config=config)
        made_by = trained_with(numerics=numerics, device=device, trainer=options.trainer)
        self.checkpoints = Checkpoints(folder, every=options.checkpoint_every, made_by=made_by)
        callbacks = [self.history, self.loggers, self.checkpoints]
        make = LeanTrainer if options.trainer == "lean" else LightningTrainer
        self.trainer = make(config, device=device, callbacks=callbacks, log_dir=folder)
        self.data.trainer = self.trainer  # type: ignore[assignment]  # its device holds the images
        fields["split_hash"] = self.data.split_hash

    def train_and_score(self) -> tuple[str, str, str]:
        """Return outcome, kind and detail."""
        module, trainer = self.module, self.trainer
        tested: dict[str, float] = {}
        is_ended = False
        try:
            trainer.fit(module, self.data, checkpoint=self.checkpoints.load())
            if self.config.run.scored_on == "test":
                trainer.test(module, self.data)
                module.write_test(self.folder)
                tested = module.test_metrics()
            self.fields |= tested | module.validated(self.history.rows[-1])
            if self.options.save_weights:
                save_weights(module, self.folder)
            is_ended = True
        except Diverged as divergence:
            is_ended = True
            return "diverged", divergence.kind, str(divergence)
        finally:
            self.loggers.finish(tested, status="success" if is_ended else "failed")
            self.fields["epochs_run"] = len(self.history.rows)
            self.fields["epoch_hashes"] = module.epoch_hashes
            self.fields["resumed_after_epochs"] = self.checkpoints.resumed_after
            self.fields["seconds"] = self.checkpoints.seconds_before
        if not self.config.run.smoke and (seen := module.no_learning(self.history.rows)):
            return "diverged", "no_learning", seen
        return "ok", "", ""


def _memory(device: torch.device) -> dict[str, float | None]:
    """Return peak memory in MiB: of the device in this cell, or on a CPU of this process since its start."""
    if device.type == "cuda":
        used, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        return {"peak_memory_mib": used / 2**20, "peak_reserved_mib": reserved / 2**20}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_memory_mib": peak / 2**20 if sys.platform == "darwin" else peak / 2**10, "peak_reserved_mib": None}
