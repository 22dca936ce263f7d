"""Options of the engine: how cells are run. None of them changes a result, so no cell's configuration has them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

Retry = Literal["failed", "oom", "all", "none"]
"""Failed cells of earlier runs to run again; ``oom``: only those without enough memory; ``all``: diverged ones too.

With ``none``, a cell has no second attempt within a run either.
"""

InMemory = Literal["auto", "on", "off"]
"""Whether folders of images are decoded once and kept in memory, streamed, or the former if they are small enough."""

TrainerName = Literal["lean", "lightning"]

EngineName = Literal["local", "ray", "slurm"]
"""What runs the cells: processes of this machine, a Ray cluster, or jobs of Slurm."""

LOGGERS = ("tensorboard", "wandb")
"""Loggers of Lightning that can be attached, by the name of the package that each needs."""


@dataclass(frozen=True, kw_only=True)
class CellOptions:
    """Options of one cell.

    Args:
        checkpoint_every: epochs between checkpoints, or time, also within an epoch; 0: none; None: at the end of an
            epoch after a minute, within an epoch after ten.
        trainer: the lean loop, or Lightning's Trainer; the numbers are the same.
        save_weights: whether the last weights are kept as safetensors.
        probe_steps: steps, counted from 1 over all epochs, whose probes are recorded in ``steps.csv``.
        loggers: names of Lightning's loggers to attach.
        log_folder: folder of the loggers; its name is the run's, and the name two levels above it the project's.
        memory_mib: limit of the memory that the cell allocates, on the device; None: no limit.
        workers: number of processes that decode streamed images; 0: the cell's own process decodes.
        weights: file of the weights that the net starts from; empty: weights drawn from the seed.
        mps: whether the GPU is shared through NVIDIA's Multi-Process Service.
    """

    checkpoint_every: int | timedelta | None = None
    trainer: TrainerName = "lean"
    save_weights: bool = False
    probe_steps: tuple[int, ...] = ()
    loggers: tuple[str, ...] = ()
    log_folder: str = ""
    memory_mib: float | None = None
    workers: int = 0
    weights: str = ""
    mps: bool = False


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """What Slurm is asked for.

    Args:
        partition: partition; None: Slurm's default.
        time_min: time limit of a task in minutes, at which it is requeued.
        gpus_per_task: GPUs of each task; None: none.
        cpus_per_task: CPUs of each task; None: Slurm's default.
        max_parallel: largest number of tasks; None: by the cells.
        more: further options of sbatch, by their long names.
        detach: whether the command ends once the jobs are submitted.
    """

    partition: str | None = None
    time_min: int = 240
    gpus_per_task: int | None = None
    cpus_per_task: int | None = None
    max_parallel: int | None = None
    more: tuple[tuple[str, str], ...] = ()
    detach: bool = False


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Options of a study's cells; those not described here are as in `CellOptions`.

    Args:
        jobs: number of concurrent cells on a CPU; None: one for each core, at most 8.
        jobs_per_gpu: number of concurrent cells on each GPU; None: from the memory of the first cell.
        gpus_per_cell: number of GPUs that share each cell.
        timeout_s: time limit of an attempt in seconds; None: no limit.
        memory_per_cell_mib: memory limit of a cell; None: the free memory divided by the concurrent cells.
        retry: cells of earlier runs to run again.
        max_failures: number of failed cells after which no more are started; None: no limit.
        workers: number of decoding processes of a cell; None: the cores that the cells leave unused.
        weights: pairs of a normaliser and the file of the weights that its nets start from.
        name: what runs the cells.
        ray_address: address of a Ray cluster; None: that of this machine, started if there is none.
        slurm: what Slurm is asked for.
    """

    jobs: int | None = None
    jobs_per_gpu: int | None = None
    gpus_per_cell: int = 1
    timeout_s: float | None = None
    memory_per_cell_mib: float | None = None
    retry: Retry = "failed"
    max_failures: int | None = None
    checkpoint_every: int | timedelta | None = None
    trainer: TrainerName = "lean"
    save_weights: bool = False
    probe_steps: tuple[int, ...] = ()
    loggers: tuple[str, ...] = ()
    workers: int | None = None
    weights: tuple[tuple[str, str], ...] = ()
    name: EngineName = "local"
    ray_address: str | None = None
    slurm: SlurmOptions = SlurmOptions()
