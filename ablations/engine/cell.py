"""One cell: build the data and the net from its own streams, train, test once, write its folder."""

from __future__ import annotations

import contextlib
import logging
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from ablations.callbacks import Diverged, DivergenceGuard, History, Probes, has_not_learned
from ablations.data import DataInfo, EvalBatches, Scale, Split, TrainBatches, load_splits, split_hash
from ablations.streams import forked_library
from ablations.study import CellConfig
from ablations.tasks.classify import Classifier
from ablations.tasks.net import build_net
from ufo.init import shared_weights_hash

TRACEBACK_LINES = 20
"""Last lines of a traceback that the record keeps; log.txt has all of it."""


@dataclass(frozen=True)
class Result:
    """What a cell came to: fields of outcome.json.

    Args:
        outcome: ``ok``, ``diverged`` or ``failed``.
        kind: of divergence or failure; empty for ``ok``.
        detail: one line with what was seen.
        traceback: its last lines, where the cell failed.
        fields: everything measured.
    """

    outcome: str
    kind: str
    detail: str
    traceback: list[str]
    fields: dict[str, Any]


def run_cell(config: CellConfig, info: DataInfo, *, folder: Path, device: torch.device) -> Result:
    """Run a cell and write its files, all but config.json and outcome.json.

    An exception of the cell becomes a ``failed`` result: this is the one place where all of them are caught.

    Args:
        config: the cell.
        info: its data set, decoded in the cache.
        folder: an empty one.
        device: to train on.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    fields: dict[str, Any] = {
        "test_accuracy_pct": None,
        "test_loss": None,
        "chance_pct": info.chance_pct,
        "init_hash": None,
        "split_hash": None,
        "epoch_hashes": [],
        "epochs_run": 0,
        "num_parameters": None,
        "started": started.isoformat(timespec="seconds"),
        "device": _device_name(device),
    }
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with _logged(folder / "log.txt"), _threads(config.threads_per_cell), forked_library(config.seed):
        try:
            outcome, kind, detail = _train_and_test(config, info, folder, device, fields)
            lines: list[str] = []
        except Exception as error:
            logging.exception("the cell failed")
            outcome, kind = "failed", "oom" if _is_oom(error) else "error"
            detail = (str(error).splitlines() or [""])[0]
            detail = f"{type(error).__name__}: {detail}"
            lines = "".join(traceback.format_exception(error)).splitlines()[-TRACEBACK_LINES:]
    fields["seconds"] = time.perf_counter() - clock
    fields["peak_memory_mib"] = _peak_memory_mib(device)
    return Result(outcome, kind, detail, lines, fields)


def _train_and_test(
    config: CellConfig, info: DataInfo, folder: Path, device: torch.device, fields: dict[str, Any]
) -> tuple[str, str, str]:
    num_classes = len(info.classes)
    splits = load_splits(info, train_limit=config.train_limit, device=device)
    scale = Scale(info.mean, info.std, device=device)
    train = TrainBatches(
        splits["train"], scale=scale, batch_size=config.batch_size, augment=config.augment, seed=config.seed
    )
    net = build_net(config, image_shape=info.image_shape, num_classes=num_classes)
    fields["init_hash"] = shared_weights_hash(net)
    fields["split_hash"] = split_hash(splits)
    fields["num_parameters"] = sum(parameter.numel() for parameter in net.parameters())
    module = Classifier(net, config=config, num_classes=num_classes, train_batches=train)
    history = History(folder)
    guard = DivergenceGuard(num_classes=num_classes, warmup_epochs=config.warmup_epochs)
    trainer = _trainer(config, device, [history, Probes(folder), guard])
    try:
        trainer.fit(module, train, EvalBatches(splits["val"], scale=scale))
    except Diverged as divergence:
        return "diverged", divergence.kind, str(divergence)
    finally:
        fields["epochs_run"] = len(history.rows)
        fields["epoch_hashes"] = module.epoch_hashes
    _test(trainer, module, splits["test"], scale, folder, fields)
    if not config.smoke and has_not_learned(history.rows, num_classes=num_classes, warmup_epochs=config.warmup_epochs):
        return "diverged", "no_learning", "validation cross-entropy stayed at chance"
    return "ok", "", ""


def _test(
    trainer: pl.Trainer, module: Classifier, split: Split, scale: Scale, folder: Path, fields: dict[str, Any]
) -> None:
    trainer.test(module, EvalBatches(split, scale=scale), verbose=False)
    correct = torch.cat(module.test_correct).cpu().numpy()
    np.save(folder / "correct.npy", correct)
    fields["test_accuracy_pct"] = 100 * float(correct.mean())
    fields["test_loss"] = module.test_loss.compute().item()


def _trainer(config: CellConfig, device: torch.device, callbacks: list[pl.Callback]) -> pl.Trainer:
    return pl.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision=config.precision,
        max_epochs=config.epochs,
        gradient_clip_val=config.grad_clip or None,
        callbacks=callbacks,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _is_oom(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _device_name(device: torch.device) -> str:
    return f"cuda {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def _peak_memory_mib(device: torch.device) -> float:
    """Peak of the device's memory in this cell, or on a CPU of this process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send log lines and warnings to a file, and nothing to the terminal; of Lightning's, warnings and worse."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    lightning, root = logging.getLogger("pytorch_lightning"), logging.getLogger()
    before = [(logger, logger.level, logger.handlers, logger.propagate) for logger in (lightning, root)]
    one_line = warnings.formatwarning
    lightning.handlers, lightning.propagate, root.handlers = [], True, [handler]
    lightning.setLevel(logging.WARNING)
    root.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.formatwarning = _format_warning
            logging.captureWarnings(True)
            yield
    finally:
        logging.captureWarnings(False)
        warnings.formatwarning = one_line
        for logger, level, handlers, propagate in before:
            logger.setLevel(level)
            logger.handlers, logger.propagate = handlers, propagate
        handler.close()


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Write a warning on one line, without the place where Python is installed."""
    return f"{Path(filename).name}:{lineno}: {category.__name__}: {message}"
