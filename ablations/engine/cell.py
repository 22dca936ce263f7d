"""One cell: build the data and the net from its own streams, train, score once, write its folder."""

from __future__ import annotations

import logging
import math
import resource
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ablations.callbacks import Diverged, DivergenceGuard, History, Probes
from ablations.data import DataInfo
from ablations.engine.capacity import device_name
from ablations.engine.checkpoint import Checkpoints, trained_with
from ablations.engine.limits import is_disk_full, is_oom
from ablations.engine.log import logged
from ablations.engine.loggers import Loggers
from ablations.engine.options import CellOptions
from ablations.engine.result import TRACEBACK_LINES, Result, blank_fields
from ablations.engine.training import Training
from ablations.streams import forked_library
from ablations.study import CellConfig
from ablations.tasks.make import make_workload
from ablations.threads import cpu_threads
from ufo.init import shared_weights_hash
from ufo.scale import UnmatchableError


def run_cell(
    config: CellConfig,
    info: DataInfo,
    *,
    folder: Path,
    device: torch.device,
    options: CellOptions = CellOptions(),  # noqa: B008  # frozen
    source_hash: str = "",
) -> Result:
    """Run a cell and write its files, all but config.json and outcome.json; go on from a checkpoint that is there.

    An exception of the cell becomes a ``failed`` result: this is the one place where all of them are caught.

    Args:
        config: the cell.
        info: its data set, decoded in the cache.
        folder: an empty one, or with the checkpoint and the log of an attempt that was cut short.
        device: to train on.
        options: how it is run.
        source_hash: of the sources that can change its numbers; a checkpoint from others is not gone on from.
    """
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    fields = blank_fields(chance_pct=info.chance_pct, started=started, device=device_name(device))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    disk_full = False
    with logged(folder / "log.txt"), cpu_threads(config.threads_per_cell), forked_library(config.seed):
        cell: _Cell | None = None
        try:
            cell = _Cell(config, info, folder, device, options, source_hash, fields)
            outcome, kind, detail = cell.train_and_score()
            lines: list[str] = []
        except Exception as error:
            logging.exception("the cell failed")
            outcome, kind = "failed", "oom" if is_oom(error) else "error"
            detail = (str(error).splitlines() or [""])[0]
            detail = f"{type(error).__name__}: {detail}"
            lines = "".join(traceback.format_exception(error)).splitlines()[-TRACEBACK_LINES:]
            disk_full = is_disk_full(error, folder)
        finally:
            if cell is not None:
                cell.work.data.close()
    fields["seconds"] += time.perf_counter() - clock
    fields |= _memory(device)
    return Result(outcome, kind, detail, lines, fields, disk_full)


class _Cell:
    """The parts of a cell that is being run; ``fields`` is filled as it goes, so that a failure keeps what is known."""

    def __init__(
        self,
        config: CellConfig,
        info: DataInfo,
        folder: Path,
        device: torch.device,
        options: CellOptions,
        source_hash: str,
        fields: dict[str, Any],
    ) -> None:
        self.config, self.info, self.folder, self.options, self.fields = config, info, folder, options, fields
        workers, weights = options.workers, options.weights
        self.work = work = make_workload(config, info, device=device, workers=workers, weights=weights)
        fields["init_hash"] = shared_weights_hash(work.net)
        fields["split_hash"] = work.data.split_hash
        fields |= work.facts
        fields["num_parameters"] = sum(parameter.numel() for parameter in work.net.parameters())
        self.history = History(folder)
        self.loggers = Loggers(options.loggers, folder=Path(options.log_folder), config=config)
        guard = DivergenceGuard(chance=work.chance_loss, losses=work.losses, warmup_epochs=config.warmup_epochs)
        made_by = trained_with(source_hash=source_hash, device=device)
        self.checkpoints = Checkpoints(folder, every=options.checkpoint_every, made_by=made_by)
        self.training = Training(
            work,
            config=config,
            device=device,
            callbacks=[self.history, Probes(folder), self.loggers, guard],  # the guard may end it, so the others first
            checkpoints=self.checkpoints,
        )

    def train_and_score(self) -> tuple[str, str, str]:
        """Return outcome, kind and detail."""
        tested: dict[str, float] = {}
        is_ended = False
        try:
            if self.config.scale == "matched":
                self._match_scale()
            self._go_on()
            self.loggers.attach(num_epochs=self.training.num_epochs)
            self.training.fit()
            tested = self.work.test(self.training.steps, self.training.evaluate, self.folder)
            self.fields |= tested | self.work.validated(self.history.rows[-1])
            if self.options.save_weights:
                _save_weights(self.training.evaluated, self.folder / "weights.safetensors", self.config)
            is_ended = True
        except Diverged as divergence:
            is_ended = True
            return "diverged", divergence.kind, str(divergence)
        finally:
            self.loggers.finish(tested, status="success" if is_ended else "failed")
            self.fields["epochs_run"] = len(self.history.rows)
            self.fields["epoch_hashes"] = self.training.steps.epoch_hashes
            self.fields["resumed_after_epochs"] = self.checkpoints.resumed_after
            self.fields["seconds"] = self.checkpoints.seconds_before
        if not self.config.smoke and (seen := self.work.no_learning(self.history.rows)):
            return "diverged", "no_learning", seen
        return "ok", "", ""

    def _match_scale(self) -> None:
        """Match the attention outputs' scale to xnorm's, where that can be done."""
        try:
            self.work.match_scale()
        except UnmatchableError as error:
            if math.isfinite(error.rms):
                raise
            raise Diverged("nan", str(error)) from None

    def _go_on(self) -> None:
        """Take up the training of an attempt that was cut short, if there was one."""
        if (begun := self.checkpoints.load()) is not None:
            self.training.load_state_dict(begun)


def _save_weights(net: torch.nn.Module, path: Path, config: CellConfig) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    save_file(tensors, path, metadata={"config": config.model_dump_json()})


def _memory(device: torch.device) -> dict[str, float | None]:
    """Return the peaks of the device's memory in this cell, or on a CPU of this process since it began."""
    if device.type == "cuda":
        used, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        return {"peak_memory_mib": used / 2**20, "peak_reserved_mib": reserved / 2**20}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_memory_mib": peak / 2**20 if sys.platform == "darwin" else peak / 2**10, "peak_reserved_mib": None}
