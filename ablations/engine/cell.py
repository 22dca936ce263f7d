"""One cell: build the data and the net from its own streams, train, test once, write its folder."""

from __future__ import annotations

import logging
import resource
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from safetensors.torch import save_file

from ablations.callbacks import Diverged, DivergenceGuard, History, Probes, has_not_learned
from ablations.data import DataInfo, EvalBatches, Scale, TrainBatches, load_splits, split_hash
from ablations.engine.capacity import device_name
from ablations.engine.checkpoint import Checkpoints, find_checkpoint, trained_with
from ablations.engine.limits import is_disk_full, is_oom
from ablations.engine.log import logged, rearm_dumps
from ablations.engine.loggers import Loggers
from ablations.engine.options import CellOptions
from ablations.engine.result import TRACEBACK_LINES, Result, blank_fields
from ablations.streams import forked_library
from ablations.study import CellConfig
from ablations.tasks.classify import Classifier
from ablations.tasks.net import build_net
from ufo.init import shared_weights_hash


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
    with logged(folder / "log.txt"), _threads(config.threads_per_cell), forked_library(config.seed):
        try:
            cell = _Cell(config, info, folder, device, options, source_hash, fields)
            outcome, kind, detail = cell.train_and_test()
            lines: list[str] = []
        except Exception as error:
            logging.exception("the cell failed")
            outcome, kind = "failed", "oom" if is_oom(error) else "error"
            detail = (str(error).splitlines() or [""])[0]
            detail = f"{type(error).__name__}: {detail}"
            lines = "".join(traceback.format_exception(error)).splitlines()[-TRACEBACK_LINES:]
            disk_full = is_disk_full(error, folder)
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
        self.config, self.folder, self.options, self.fields = config, folder, options, fields
        self.num_classes = len(info.classes)
        self.splits = load_splits(info, train_limit=config.train_limit, device=device)
        self.scale = Scale(info.mean, info.std, device=device)
        train = TrainBatches(
            self.splits["train"],
            scale=self.scale,
            batch_size=config.batch_size,
            augment=config.augment,
            seed=config.seed,
        )
        net = build_net(config, image_shape=info.image_shape, num_classes=self.num_classes)
        fields["init_hash"] = shared_weights_hash(net)
        fields["split_hash"] = split_hash(self.splits)
        fields["num_parameters"] = sum(parameter.numel() for parameter in net.parameters())
        self.module = Classifier(net, config=config, num_classes=self.num_classes, train_batches=train)
        self.history = History(folder)
        self.loggers = Loggers(options.loggers, folder=Path(options.log_folder), config=config)
        guard = DivergenceGuard(num_classes=self.num_classes, warmup_epochs=config.warmup_epochs)
        made_by = trained_with(source_hash=source_hash, device=device)
        self.checkpoints = Checkpoints(folder, every=options.checkpoint_every, made_by=made_by)
        callbacks = [self.history, Probes(folder), guard, self.loggers, self.checkpoints]
        self.trainer = _trainer(config, device, folder, callbacks)

    def train_and_test(self) -> tuple[str, str, str]:
        """Return outcome, kind and detail."""
        tested: dict[str, float] = {}
        is_ended = False
        try:
            self._fit()
            tested = self._test()
            is_ended = True
        except Diverged as divergence:
            is_ended = True
            return "diverged", divergence.kind, str(divergence)
        finally:
            self.loggers.finish(tested, status="success" if is_ended else "failed")
            self.fields["epochs_run"] = len(self.history.rows)
            self.fields["epoch_hashes"] = self.module.epoch_hashes
            self.fields["resumed_after_epochs"] = self.checkpoints.resumed_after
            self.fields["seconds"] = self.checkpoints.seconds_before
        config = self.config
        if not config.smoke and has_not_learned(
            self.history.rows, num_classes=self.num_classes, warmup_epochs=config.warmup_epochs
        ):
            return "diverged", "no_learning", "validation cross-entropy stayed at chance"
        return "ok", "", ""

    def _fit(self) -> None:
        val = EvalBatches(self.splits["val"], scale=self.scale)
        resume = find_checkpoint(self.folder, made_by=self.checkpoints.made_by)
        self.trainer.fit(self.module, self.module.train_batches, val, ckpt_path=resume, weights_only=True)
        rearm_dumps()

    def _test(self) -> dict[str, float]:
        self.trainer.test(self.module, EvalBatches(self.splits["test"], scale=self.scale), verbose=False)
        rearm_dumps()
        correct = torch.cat(self.module.test_correct).cpu().numpy()
        np.save(self.folder / "correct.npy", correct)
        if self.options.save_weights:
            _save_weights(self.module.net, self.folder / "weights.safetensors", self.config)
        tested = {
            "test_accuracy_pct": 100 * float(correct.mean()),
            "test_loss": self.module.test_loss.compute().item(),
        }
        self.fields |= tested
        return tested


def _save_weights(net: torch.nn.Module, path: Path, config: CellConfig) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    save_file(tensors, path, metadata={"config": config.model_dump_json()})


def _trainer(config: CellConfig, device: torch.device, folder: Path, callbacks: list[pl.Callback]) -> pl.Trainer:
    return pl.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision=config.precision,
        max_epochs=config.epochs,
        gradient_clip_val=config.grad_clip or None,
        callbacks=callbacks,
        # A cell is one process whatever surrounds it: within a Slurm job Lightning would requeue the job by itself, and
        # load what other cells left in the current folder.
        plugins=[LightningEnvironment()],
        default_root_dir=folder,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _memory(device: torch.device) -> dict[str, float | None]:
    """Return the peaks of the device's memory in this cell, or on a CPU of this process since it began."""
    if device.type == "cuda":
        used, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        return {"peak_memory_mib": used / 2**20, "peak_reserved_mib": reserved / 2**20}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_memory_mib": peak / 2**20 if sys.platform == "darwin" else peak / 2**10, "peak_reserved_mib": None}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
