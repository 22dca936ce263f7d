"""Options of the running of cells, none of which changes a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from ablations.config import parsing
from ablations.config.declare import Option, Options, reads
from ablations.config.errors import UsageError
from ablations.config.options import EngineName, EngineOptions, Retry, SlurmOptions, TrainerName


class ProbeOption(Options):
    """The steps whose probes are recorded."""

    probe_steps: Annotated[
        str | int | Sequence[int] | None,
        reads(partial(parsing.numbers, least=1)),
        Option(
            "Training steps, counted from 1 over all epochs, at which output, gradient and loss are recorded.",
            "none",
            metavar="STEP,...",
        ),
    ] = None


class SlurmFlags(Options):
    """What Slurm is asked for."""

    slurm_partition: Annotated[str | None, Option("Partition of the tasks.", "Slurm's own", metavar="NAME")] = None
    slurm_time: Annotated[
        str | float | timedelta,
        reads(parsing.seconds),
        Option("Time limit of a task, at which it saves its cells and is queued again: 90m, 4h.", metavar="TIME"),
    ] = "4h"
    slurm_gpus_per_task: Annotated[
        int | None, BeforeValidator(parsing.whole), Field(ge=1), Option("GPUs of each task.", "none", metavar="N")
    ] = None
    slurm_cpus_per_task: Annotated[
        int | None,
        BeforeValidator(parsing.whole),
        Field(ge=1),
        Option("CPUs of each task.", "Slurm's own", metavar="N"),
    ] = None
    slurm_max_parallel: Annotated[
        int | None, BeforeValidator(parsing.whole), Field(ge=1), Option("Most tasks.", "32", metavar="N")
    ] = None
    slurm: Annotated[
        Mapping[str, str] | Sequence[str],
        reads(parsing.settings),
        Option("Any other option of sbatch, by its long name. Repeatable.", metavar="KEY=VALUE", repeatable=True),
    ] = ()
    detach: Annotated[bool, Option("End once the tasks are submitted; the same command attaches again.")] = False

    @property
    def slurm_options(self) -> SlurmOptions:
        """What Slurm is asked for."""
        seconds = parsing.seconds(self.slurm_time)
        assert seconds is not None
        return SlurmOptions(
            partition=self.slurm_partition,
            time_min=max(1, round(seconds / 60)),
            gpus_per_task=self.slurm_gpus_per_task,
            cpus_per_task=self.slurm_cpus_per_task,
            max_parallel=self.slurm_max_parallel,
            more=parsing.settings(self.slurm),
            detach=self.detach,
        )


class EngineFlags(ProbeOption, SlurmFlags):
    """The running of the cells; none of it changes a number."""

    engine: Annotated[
        EngineName,
        Option("What runs the cells: processes of this machine, a Ray cluster ('.[ray]') or Slurm ('.[slurm]')."),
    ] = "local"
    ray_address: Annotated[
        str | None,
        Option(
            "Ray cluster: HOST:PORT or ray://HOST:PORT.", "this machine's, started if there is none", metavar="ADDRESS"
        ),
    ] = None
    jobs: Annotated[
        int | str,
        reads(parsing.count),
        Option("Concurrent cells on a CPU; auto: one for each core, at most 8.", metavar="N"),
    ] = parsing.AUTO
    jobs_per_gpu: Annotated[
        int | str,
        reads(parsing.count),
        Option("Concurrent cells on each GPU; auto: as memory allows, at most one for each core, and 8.", metavar="N"),
    ] = parsing.AUTO
    gpus_per_cell: Annotated[
        int,
        BeforeValidator(parsing.whole),
        Field(ge=1),
        Option("GPUs that share each cell, by data parallelism.", metavar="N"),
    ] = 1
    timeout: Annotated[
        str | float | timedelta | None,
        reads(parsing.seconds),
        Option("Time limit of a cell: 90s, 30m, 2h.", "none", metavar="TIME"),
    ] = None
    memory_per_cell: Annotated[
        str | float | None,
        reads(parsing.mebibytes),
        Option("Memory limit of a cell: 800MiB, 4GiB.", "free memory, divided by the concurrent cells", metavar="SIZE"),
    ] = None
    fail_fast: Annotated[bool, Option("Start no more cells after the first failure.")] = False
    max_failures: Annotated[
        int | None,
        BeforeValidator(parsing.whole),
        Field(ge=1),
        Option("Start no more cells after this many failures.", "no limit", metavar="N"),
    ] = None
    checkpoint_every: Annotated[
        str | int | timedelta,
        reads(parsing.interval),
        Option("Epochs between checkpoints, or time, also within an epoch: 10m; auto; 0: none.", metavar="N|TIME"),
    ] = parsing.AUTO
    trainer: Annotated[
        TrainerName, Option("Training loop: the lean one, or Lightning's Trainer; the numbers are the same.")
    ] = "lean"
    save_weights: Annotated[
        Literal["none", "last"], Option("Weights to keep; last: weights.safetensors in each cell's folder.")
    ] = "none"
    log: Annotated[
        str | Sequence[str],
        reads(parsing.names),
        Option("Loggers of Lightning to attach: tensorboard,wandb.", metavar="NAME,..."),
    ] = ()
    workers: Annotated[
        int | str,
        reads(partial(parsing.count, least=0)),
        Option("Processes of each cell that decode streamed images; auto: one for each unused core.", metavar="N"),
    ] = parsing.AUTO

    @model_validator(mode="after")
    def _has_one_limit(self) -> EngineFlags:
        if self.fail_fast and self.max_failures is not None:
            raise UsageError("give --fail-fast or --max-failures, not both")
        if self.ray_address is not None and self.engine != "ray":
            raise UsageError(f"--ray-address is for --engine ray, and not for --engine {self.engine}")
        if self.engine != "slurm" and self.slurm_options != SlurmOptions():
            raise UsageError(f"--slurm, --slurm-... and --detach are for --engine slurm, and not for {self.engine}")
        return self

    def engine_options(self, *, retry: Retry) -> EngineOptions:
        """Return what the engine takes.

        Args:
            retry: which cells of earlier runs are run again.
        """
        return EngineOptions(
            jobs=parsing.count(self.jobs),
            jobs_per_gpu=parsing.count(self.jobs_per_gpu),
            gpus_per_cell=self.gpus_per_cell,
            timeout_s=parsing.seconds(self.timeout),
            memory_per_cell_mib=parsing.mebibytes(self.memory_per_cell),
            retry=retry,
            max_failures=1 if self.fail_fast else self.max_failures,
            checkpoint_every=parsing.interval(self.checkpoint_every),
            trainer=self.trainer,
            save_weights=self.save_weights == "last",
            probe_steps=() if self.probe_steps is None else parsing.numbers(self.probe_steps, least=1),
            loggers=parsing.names(self.log),
            workers=parsing.count(self.workers, least=0),
            name=self.engine,
            ray_address=self.ray_address,
            slurm=self.slurm_options,
        )
