"""Data parallelism: the processes that share a cell, each with a device of its own, under Fabric's DDP.

Each gets its own part of every batch (`ablations.data.Rank`); DDP averages their gradients, so that a step is that of
the whole batch, but for rounding. The first process writes the cell's files.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, distributed, nn

from ablations.config import CellConfig
from ablations.config.nets import is_foreign, is_timm
from ablations.training.half import FabricHalf, TrainerHalf, precision_of


@dataclass(frozen=True)
class Share:
    """Part of a process in a cell.

    Args:
        number: rank of the process, from 0.
        devices: devices of all the processes, by rank.
        meeting: path of a file by which they find each other; it must not exist before.
    """

    number: int
    devices: tuple[torch.device, ...]
    meeting: Path

    @property
    def device(self) -> torch.device:
        """Device of the process."""
        return self.devices[self.number]


class _Joined(LightningEnvironment):
    """Environment of a process that others have started."""

    def __init__(self, share: Share) -> None:
        super().__init__()
        self._share = share

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def local_rank(self) -> int:
        return self._share.number

    def node_rank(self) -> int:
        return 0


def join(share: Share) -> None:
    """Wait for the other processes of a cell, and let torch.distributed connect them."""
    is_cuda = share.device.type == "cuda"
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # whatever the machine is called
    distributed.init_process_group(
        "nccl" if is_cuda else "gloo",
        init_method=f"file://{share.meeting}",  # torch does not decode a quoted path
        rank=share.number,
        world_size=len(share.devices),
        device_id=share.device if is_cuda else None,
    )


def leave() -> None:
    """Wait until the other processes have ended the cell too, and disconnect from them."""
    distributed.barrier()
    distributed.destroy_process_group()


def placement(
    config: CellConfig,
    device: torch.device,
    *,
    half: type[FabricHalf] | type[TrainerHalf] = FabricHalf,
    share: Share | None = None,
) -> dict[str, Any]:
    """Return the device and precision arguments of a Fabric or a Trainer.

    Args:
        config: configuration of the cell.
        device: device to train on.
        half: plugin for float16.
        share: part of this process in the cell; None: it has no other process.
    """
    arguments = precision_of(config.run.precision, device, half)
    devices = (device,) if share is None else share.devices
    arguments["accelerator"] = device.type
    arguments["devices"] = [each.index or 0 for each in devices] if device.type == "cuda" else len(devices)
    if share is None:
        arguments["plugins"].append(LightningEnvironment())  # also within a job of Slurm, whose processes are not ours
        return arguments
    arguments["plugins"].append(_Joined(share))
    # Images without objects leave parts of a detector without a gradient, and nets of timm may have unused ones.
    may_be_unused = config.task == "detect" or is_foreign(config.net.model)
    return {**arguments, "strategy": DDPStrategy(find_unused_parameters=may_be_unused)}


def with_shared_statistics(net: nn.Module, config: CellConfig) -> nn.Module:
    """Return a net whose batch normalisation takes its statistics over the processes, which torch does on GPUs only.

    Args:
        net: net of the cell; a detector's batch normalisation is frozen or shared already.
        config: configuration of the cell.
    """
    convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
    if is_timm(config.net.model) and config.task == "classify":
        convert = importlib.import_module("timm.layers").convert_sync_batchnorm  # keeps the activations of its layers
    return convert(net)


def over_processes(loss: Tensor, world_size: int) -> Tensor:
    """Return the sum of a loss over all processes, so that they draw the same conclusion."""
    if world_size > 1:
        loss = loss.detach().clone()
        distributed.all_reduce(loss)
    return loss
