"""How a study is run: what of a run changes no result, and so stands in no cell's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

Retry = Literal["failed", "oom", "all", "none"]
"""Which cells of earlier runs are run again: those that failed, those that failed for want of memory, those that
diverged too, or none. With ``none`` a cell gets no second attempt within a run either."""


InMemory = Literal["auto", "on", "off"]
"""Whether folders of images are decoded once and kept in memory, streamed, or the former if they are small enough."""

TrainerName = Literal["lean", "lightning"]

LOGGERS = ("tensorboard", "wandb")
"""Lightning's loggers that can be attached; each is named as the package that it needs."""


@dataclass(frozen=True, kw_only=True)
class CellOptions:
    """How one cell is run.

    Args:
        checkpoint_every: epochs between two checkpoints, or time, within an epoch too; 0: none; None: at the end of an
            epoch when a minute has passed since the last, within one when ten have.
        trainer: that trains it: our lean loop, or Lightning's Trainer, to the same numbers.
        save_weights: whether the last weights are kept, as safetensors.
        loggers: names of Lightning's loggers to attach.
        log_folder: where loggers write; its name is the run's, and that two levels above it the project's.
        memory_mib: limit of the memory that the cell allocates, of the device's on a GPU; None: none.
        workers: processes that decode streamed images; 0: the cell's own does.
        weights: file of the weights that its net starts from; empty: from its seed's.
    """

    checkpoint_every: int | timedelta | None = None
    trainer: TrainerName = "lean"
    save_weights: bool = False
    loggers: tuple[str, ...] = ()
    log_folder: str = ""
    memory_mib: float | None = None
    workers: int = 0
    weights: str = ""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How the cells of a study are run.

    Args:
        jobs: cells side by side on a CPU; None: one for each core, 8 at most.
        jobs_per_gpu: cells side by side on each GPU; None: from the memory that the first cell takes.
        timeout_s: seconds after which an attempt is ended; None: none.
        memory_per_cell_mib: limit of a cell's memory; None: what is free, divided by the cells side by side.
        retry: which cells of earlier runs are run again.
        max_failures: failed cells after which no more are started; None: no limit.
        checkpoint_every: as in `CellOptions`.
        trainer: as in `CellOptions`.
        save_weights: whether the last weights are kept.
        loggers: names of Lightning's loggers to attach.
        workers: processes of a cell that decode streamed images; None: the cores that the cells themselves leave.
        weights: normaliser, and file of the weights that its nets start from.
    """

    jobs: int | None = None
    jobs_per_gpu: int | None = None
    timeout_s: float | None = None
    memory_per_cell_mib: float | None = None
    retry: Retry = "failed"
    max_failures: int | None = None
    checkpoint_every: int | timedelta | None = None
    trainer: TrainerName = "lean"
    save_weights: bool = False
    loggers: tuple[str, ...] = ()
    workers: int | None = None
    weights: tuple[tuple[str, str], ...] = ()
