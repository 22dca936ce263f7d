"""The loop that trains a cell. Device and precision are Lightning Fabric's; all else stands here to be read.

It is not Lightning's Trainer, which makes some 3,400 more Python calls in each step: on a CPU, 5 % of a small net's
epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import nn

from ablations.callbacks import Callback, Epoch
from ablations.engine.checkpoint import Checkpoints
from ablations.recipes import build_optimizer, build_schedule
from ablations.study import CellConfig
from ablations.study.cell import COSINE, JOINT
from ablations.tasks.average import AveragedWeights
from ablations.tasks.task import Workload

MOST_GRAPHS = 1000
"""Compiled nets that a process keeps, one for each arm and shape; torch's own limit, 8, is a mistake's alarm."""


class Training:
    """A net and all that it is trained with.

    Args:
        work: the net with its first weights, and what it is trained on.
        config: the cell.
        device: to train on.
        callbacks: are told how it goes, in their order.
        checkpoints: kept at the ends of epochs, after the callbacks.

    Attributes:
        num_epochs: that are finished.
        steps: the loss and the measures.
    """

    def __init__(
        self,
        work: Workload[Any],
        *,
        config: CellConfig,
        device: torch.device,
        callbacks: Sequence[Callback],
        checkpoints: Checkpoints,
    ) -> None:
        net, train = work.net, work.data.train
        self.net, self.config, self.train, self.val = net, config, train, work.data.val
        self.callbacks, self.checkpoints = callbacks, checkpoints
        self.num_epochs = 0
        self.fabric = _fabric(device, config)
        self._precision = self.fabric.strategy.precision
        self.fabric.to_device(net)
        # A fused optimiser would undo the scaling of float16 by itself, after the gradients were clipped.
        fused = config.precision != "16-mixed" and device.type != "mps"
        optimizer = build_optimizer(net, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
        self.schedule = build_schedule(
            optimizer,
            num_steps=config.epochs * len(train),
            num_warmup_steps=config.warmup_epochs * len(train) + config.warmup_steps,
            min_share=config.min_lr_share,
            warmup_share=config.warmup_lr_share,
            decay_steps=_decay_steps(config, len(train)),
        )
        self._unwrapped_optimizer = optimizer
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        forward, self.optimizer = self.fabric.setup(net, optimizer, move_to_device=False)
        self.average = AveragedWeights(net, decay=config.ema_decay) if config.ema_decay else None
        averaged = self.average and self.fabric.setup_module(self.average.net, move_to_device=False)
        self.steps = work.steps(net=averaged or forward, train_net=self._compiled(net) if config.compile else forward)

    def fit(self) -> None:
        """Train the epochs that are missing.

        Raises:
            Diverged: a callback has seen that it is of no use.
        """
        if self.average is not None and not self.num_epochs:
            self.average.restart(self.net)
        while self.num_epochs < self.config.epochs:
            for callback in self.callbacks:
                callback.on_epoch_start()
            self._train_epoch()
            self._validate()
            self.num_epochs += 1
            epoch = Epoch(
                self.num_epochs,
                self._unwrapped_optimizer.param_groups[0]["lr"],
                self.steps.epoch_metrics(),
                self.steps.epoch_hashes[-1],
            )
            for callback in self.callbacks:
                callback.on_epoch_end(epoch)
            self.checkpoints.save_when_due(self.num_epochs, self.state_dict)

    @property
    def evaluated(self) -> nn.Module:
        """The net that is evaluated: with the averages of its weights where there are any."""
        return self.net if self.average is None else self.average.net

    @torch.inference_mode()
    def evaluate(self, batches: Iterable[Any], step: Callable[[Any], None]) -> None:
        """Take every batch through a step, with the net in evaluation mode."""
        self.net.eval()
        for batch in batches:
            step(batch)
        self.net.train()

    def state_dict(self) -> dict[str, Any]:
        """Return what a training at the end of an epoch can be gone on from, to the same numbers."""
        return {
            "num_epochs": self.num_epochs,
            "net": self.net.state_dict(),
            "optimizer": self._unwrapped_optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "precision": self._precision.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "epoch_hashes": self.steps.epoch_hashes,
            "callbacks": {type(callback).__name__: callback.state_dict() for callback in self.callbacks},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from where another training was."""
        self.num_epochs = state_dict["num_epochs"]
        self.net.load_state_dict(state_dict["net"])
        self._unwrapped_optimizer.load_state_dict(state_dict["optimizer"])
        self.schedule.load_state_dict(state_dict["schedule"])
        self._precision.load_state_dict(state_dict["precision"])
        if self.average is not None:
            self.average.restart(self.net)
            self.average.load_state_dict(state_dict["average"])
        self.steps.epoch_hashes = state_dict["epoch_hashes"]
        for callback in self.callbacks:
            callback.load_state_dict(state_dict["callbacks"][type(callback).__name__])

    def _compiled(self, net: nn.Module) -> nn.Module:
        """Compile a net, or take the code of an equal one that this process has compiled before.

        One graph for one shape, or an error: numbers must not depend on what the process has compiled before.
        """
        torch.compiler.config.recompile_limit = torch.compiler.config.accumulated_recompile_limit = MOST_GRAPHS
        compiled = cast("nn.Module", torch.compile(net, fullgraph=True, dynamic=False))
        return self.fabric.setup_module(compiled, move_to_device=False)

    def _train_epoch(self) -> None:
        self.steps.start_epoch(self.num_epochs)
        for index, batch in enumerate(self.train):
            loss = self.steps.training_step(batch, index)
            self.optimizer.zero_grad()
            self.fabric.backward(loss)
            self._precision.unscale_gradients(self._unwrapped_optimizer)
            if index == len(self.train) - 1:
                for callback in self.callbacks:
                    callback.on_last_gradients(self.net)
            if self.config.grad_clip:
                nn.utils.clip_grad_norm_(self._parameters, self.config.grad_clip)
            self.optimizer.step()
            self.schedule.step()
            if self.average is not None:
                self.average.update(self.net)
            for callback in self.callbacks:
                callback.on_step_end(self.num_epochs * len(self.train) + index + 1, loss)

        if self.fabric.device.type == "cuda":
            torch.cuda.synchronize(self.fabric.device)  # else validation's clock would run for the last steps

    def _validate(self) -> None:
        for callback in self.callbacks:
            callback.on_validation_start(self.evaluated)
        self.evaluate(self.val, self.steps.validation_step)
        for callback in self.callbacks:
            callback.on_validation_end()


def _decay_steps(config: CellConfig, num_batches: int) -> list[int] | None:
    """Return the steps from which the learning rate is lower; None: it follows a cosine."""
    if config.schedule == COSINE:
        return None
    return [int(epoch) * num_batches for epoch in config.schedule.split(JOINT)]


def _fabric(device: torch.device, config: CellConfig) -> Fabric:
    fabric = Fabric(
        accelerator=device.type,
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision=config.precision,
        plugins=[LightningEnvironment()],  # a cell is one process whatever surrounds it, also within a Slurm job
    )
    fabric.launch()  # makes the device the current one
    return fabric
