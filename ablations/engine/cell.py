"""Run one cell: build data and net from its random streams, train, test once, and write its files."""

from __future__ import annotations

import logging
import resource
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
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
from ablations.store.leases import STEPS_FILE
from ablations.tasks.make import make_module
from ablations.tasks.trained import save_weights
from ablations.training.callbacks import Diverged, History
from ablations.training.checkpoint import Checkpoints, load_alike, trained_with
from ablations.training.cuda_settings import cuda_settings
from ablations.training.lightning import LightningTrainer
from ablations.training.limits import is_disk_full, is_oom
from ablations.training.loggers import Loggers
from ablations.training.loop import LeanTrainer
from ablations.training.parallel import Share, join, leave
from ablations.training.stacked import Stack
from ablations.training.step_probes import StepProbes
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
    """Run one cell; arguments as of `run_cells`."""
    return run_cells([config], info, folders=[folder], device=device, options=[options], numerics=numerics)[0]


def run_cells(
    configs: Sequence[CellConfig],
    info: DataInfo,
    *,
    folders: Sequence[Path],
    device: torch.device,
    options: Sequence[CellOptions],
    numerics: str = "",
    share: Share | None = None,
) -> list[Result]:
    """Run a cell, or several as one stack, and write their files, except config.json and outcome.json.

    They resume from the checkpoints in their folders. An exception becomes a ``failed`` result of every cell that it
    ends: this is the only place that catches all of them.

    Args:
        configs: configurations of the cells, which differ only in their seeds.
        info: their data set, decoded in the cache.
        folders: folders to write to, which may hold the checkpoint and the log of an interrupted attempt.
        device: device to train on.
        options: options of the run, for each cell.
        numerics: numerics version of the code; a checkpoint of another version is ignored.
        share: part of this process in a cell; None: it has no other process.
    """
    clock, run = time.perf_counter(), configs[0].run
    if device.type == "cuda":
        torch.cuda.set_device(device)  # starts CUDA, on this GPU only
        torch.cuda.reset_peak_memory_stats(device)
    fields = [blank_fields(info, device_name(device)) for _ in configs]
    cells: list[_Cell] = []
    with (
        logged(*(folder / "log.txt" for folder in folders)),
        cpu_threads(run.threads_per_cell),
        forked_library(configs[0].seed),
    ):
        try:
            with cuda_settings(run, device, mps=options[0].mps) as settings:
                for own in fields:
                    own["cuda_settings"] = settings
                if share is not None:
                    join(share)
                    fields[0]["cuda_settings"] = {**(settings or {}), "gpus": len(share.devices)}
                for parts in zip(configs, folders, options, fields, strict=True):
                    cells.append(_Cell(info, device, numerics, share, *parts))  # noqa: PERF401  # to end those that exist
                results = [_attempt(cell, train) for cell, train in zip(cells, _trainings(cells), strict=True)]
        except Exception as error:
            results = [_failed(error, own, folder) for own, folder in zip(fields, folders, strict=True)]
        finally:
            for cell in cells:
                cell.data.teardown()  # ends the decoding processes
    if share is not None and results[0].outcome != "failed":  # else the others may not answer
        try:
            leave()
        except Exception as error:
            results = [_failed(error, fields[0], folders[0])]
    for own in fields:
        own["seconds"] += (time.perf_counter() - clock) / len(configs)
        own |= _memory(device)
    return results


def _trainings(cells: Sequence[_Cell]) -> list[Callable[[], None]]:
    """Return what trains each cell; of a stack, which is trained here, what raises a cell's error or divergence."""
    if cells[0].config.run.stack == 1:
        return [cell.train for cell in cells]
    seeds = [cell.config.seed for cell in cells]
    for cell in cells:
        cell.fields["stacked_seeds"] = seeds
    stack = Stack([cell.lean_trainer for cell in cells], [cell.checkpoints for cell in cells])
    error: Exception | None = None
    try:
        resumed = load_alike([cell.checkpoints for cell in cells])
        stack.fit([cell.module for cell in cells], [cell.data for cell in cells], resumed=resumed)
    except Exception as raised:
        error = raised
    return [partial(_raise, error or stack.diverged.get(place)) for place in range(len(cells))]


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error


def _attempt(cell: _Cell, train: Callable[[], None]) -> Result:
    try:
        return Result(*cell.train_and_score(train), fields=cell.fields)
    except Exception as error:
        return _failed(error, cell.fields, cell.folder)


def _failed(error: Exception, fields: dict[str, Any], folder: Path) -> Result:
    logging.error("the cell failed", exc_info=error)
    kind = "oom" if is_oom(error) else "error"
    detail = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    lines = "".join(traceback.format_exception(error)).splitlines()[-TRACEBACK_LINES:]
    return Result("failed", kind, detail, lines, fields, is_disk_full(error, folder))


class _Cell:
    """The parts of a running cell; it updates ``fields`` as it runs, so that a failed cell has what is known so far."""

    def __init__(
        self,
        info: DataInfo,
        device: torch.device,
        numerics: str,
        share: Share | None,
        config: CellConfig,
        folder: Path,
        options: CellOptions,
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
        num_processes = 1 if share is None else len(share.devices)
        made_by = trained_with(numerics=numerics, device=device, trainer=options.trainer, num_processes=num_processes)
        self.checkpoints = Checkpoints(folder, every=options.checkpoint_every, made_by=made_by)
        probes = [StepProbes(folder, options.probe_steps)] if options.probe_steps else []
        callbacks = [self.history, self.loggers, *probes, self.checkpoints]
        self.trainer: LeanTrainer | LightningTrainer
        if options.trainer == "lean":
            self.trainer = LeanTrainer(config, device=device, callbacks=callbacks, log_dir=folder, share=share)
        else:
            self.trainer = LightningTrainer(config, device=device, callbacks=callbacks, log_dir=folder)
        self.data.trainer = self.trainer  # type: ignore[assignment]  # its device holds the images
        fields["split_hash"] = self.data.split_hash

    @property
    def lean_trainer(self) -> LeanTrainer:
        """The trainer, of a cell that needs the lean loop."""
        assert isinstance(self.trainer, LeanTrainer)
        return self.trainer

    def train(self) -> None:
        """Train the cell, from its checkpoint if it has one."""
        checkpoint = self.checkpoints.load()
        if checkpoint is None:
            (self.folder / STEPS_FILE).unlink(missing_ok=True)  # of an attempt that recorded single steps
        self.trainer.fit(self.module, self.data, checkpoint=checkpoint)

    def train_and_score(self, train: Callable[[], None]) -> tuple[str, str, str]:
        """Return outcome, kind and detail.

        Args:
            train: function that trains the cell, or raises how its training ended.
        """
        module, trainer = self.module, self.trainer
        tested: dict[str, float] = {}
        is_ended = False
        try:
            train()
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
