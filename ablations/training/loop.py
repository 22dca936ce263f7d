"""The lean loop: it drives a cell's LightningModule as Lightning's Trainer does, hook by hook, to the same bits.

It is not the Trainer, which makes some 3,400 more Python calls in each step: on a CPU, 5 % of a small net's epoch.
Device and precision are Lightning Fabric's, whose modules find in `LeanTrainer` what they ask their trainer for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities.model_helpers import is_overridden

from ablations.config import CellConfig
from ablations.data import EpochBatches
from ablations.data.modules import CellDataModule
from ablations.training.module import CellModule

STEP_HOOKS = ("on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end")
"""That callbacks have in each step."""


class LeanTrainer(Fabric):
    """Trains and tests a cell's module; to the module and its callbacks it is their trainer.

    Args:
        config: the cell.
        device: to train on.
        callbacks: beside those that the module brings; they are told first, but for checkpoints, which are told last.
        log_dir: where callbacks write.

    Attributes:
        current_epoch: from 0; while nothing is trained, how many are finished.
        global_step: steps that are done.
        is_last_batch: whether the step is its epoch's last.
        callback_metrics: what the module has logged last.
    """

    sanity_checking = False
    accumulate_grad_batches = 1

    def __init__(
        self, config: CellConfig, *, device: torch.device, callbacks: Sequence[pl.Callback], log_dir: Path
    ) -> None:
        super().__init__(**placement(config, device))
        self.launch()  # makes the device the current one
        self.max_epochs, self.precision, self.log_dir = config.optimisation.epochs, config.run.precision, str(log_dir)
        self.own_callbacks, self.callbacks = list(callbacks), list[pl.Callback]()
        self.current_epoch = self.global_step = 0
        self.is_last_batch = False
        self.callback_metrics: dict[str, Any] = {}
        self.optimizers: list[torch.optim.Optimizer] = []
        self.train_dataloader: EpochBatches[Any]
        self.val_dataloaders: Iterable[Any]
        self.test_dataloaders: Iterable[Any]

    @property
    def num_training_batches(self) -> int:
        """Batches of an epoch."""
        return len(self.train_dataloader)

    @property
    def estimated_stepping_batches(self) -> int:
        """Steps of the whole training."""
        return self.max_epochs * self.num_training_batches

    def log_dict(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Keep what a module logs."""
        self.callback_metrics.update(metrics)

    def fit(self, module: CellModule, data: CellDataModule, *, checkpoint: dict[str, Any] | None = None) -> None:
        """Train the epochs that are missing.

        Args:
            module: with its first weights.
            data: its batches.
            checkpoint: what `save_checkpoint` has written, from which to go on; None: from the start.

        Raises:
            Diverged: the guard has seen that it is of no use.
        """
        self._connect(data, "fit")
        self.train_dataloader, self.val_dataloaders = data.train_dataloader(), data.val_dataloader()
        callbacks = self.own_callbacks + module.configure_callbacks()
        self.callbacks = sorted(callbacks, key=lambda callback: isinstance(callback, Checkpoint))
        self.module = module
        self.to_device(module)
        self._call("setup", "fit")
        module.fabric = self
        if checkpoint is not None:
            self._restore_module(checkpoint)
        configured: Any = module.configure_optimizers()
        self.optimizers, self.schedule = [configured["optimizer"]], configured["lr_scheduler"]["scheduler"]
        _, self._stepped = self.setup(module, *self.optimizers, move_to_device=False)
        self._call("on_fit_start")
        first = 0 if checkpoint is None else self._restore_training(checkpoint)
        self._call("on_train_start")
        self._listeners = {hook: self._listening(hook) for hook in STEP_HOOKS}
        while self.current_epoch < self.max_epochs:
            self.train_dataloader.set_epoch(self.current_epoch)
            if not first:  # else the hook was called by the attempt that was cut short
                self._call("on_train_epoch_start")
            self._train_epoch(first)
            first = 0
            self._validate()
            self._call("on_train_epoch_end")
            self.current_epoch += 1
        self._call("on_train_end")
        self._call("on_fit_end")

    def test(self, module: CellModule, data: CellDataModule) -> None:
        """Take every test batch through the module, once."""
        self._connect(data, "test")
        self.test_dataloaders = data.test_dataloader()
        self._call("on_test_start")
        self._call("on_test_epoch_start")
        self._evaluate(self.test_dataloaders, module.test_step)
        self._call("on_test_epoch_end")
        self._call("on_test_end")

    def save_checkpoint(self, path: Path) -> None:
        """Write what a training can be gone on from, to the same numbers; within an epoch too."""
        checkpoint: dict[str, Any] = {
            "epoch": self.current_epoch,
            "global_step": self.global_step,
            "loader": self.train_dataloader.state_dict(),
            "state_dict": self.module.state_dict(),
            "optimizer_states": [optimizer.state_dict() for optimizer in self.optimizers],
            "lr_schedulers": [self.schedule.state_dict()],
            "precision": self.strategy.precision.state_dict(),
            "callbacks": {callback.state_key: callback.state_dict() for callback in self.callbacks},
        }
        for callback in self.callbacks:
            callback.on_save_checkpoint(self, self.module, checkpoint)  # type: ignore[arg-type]
        self.module.on_save_checkpoint(checkpoint)
        torch.save(checkpoint, path)

    def _connect(self, data: CellDataModule, stage: str) -> None:
        data.trainer = self  # type: ignore[assignment]
        data.setup(stage)

    def _restore_module(self, checkpoint: dict[str, Any]) -> None:
        self.module.on_load_checkpoint(checkpoint)
        self.module.load_state_dict(checkpoint["state_dict"])
        for callback in self.callbacks:
            callback.on_load_checkpoint(self, self.module, checkpoint)  # type: ignore[arg-type]
            if state := checkpoint["callbacks"].get(callback.state_key):
                callback.load_state_dict(state)

    def _restore_training(self, checkpoint: dict[str, Any]) -> int:
        """Take up optimiser, schedule and place; return the number of the batch in its epoch that comes next."""
        self.optimizers[0].load_state_dict(checkpoint["optimizer_states"][0])
        self.schedule.load_state_dict(checkpoint["lr_schedulers"][0])
        self.strategy.precision.load_state_dict(checkpoint["precision"])
        self.train_dataloader.load_state_dict(checkpoint["loader"])
        self.current_epoch, self.global_step = checkpoint["epoch"], checkpoint["global_step"]
        given: int = checkpoint["loader"]["batches"]
        if given == self.num_training_batches:
            self.current_epoch += 1
            return 0
        return given

    def _train_epoch(self, first: int) -> None:
        module, (optimizer,), precision = self.module, self.optimizers, self.strategy.precision
        last = self.num_training_batches - 1
        listeners = self._listeners
        for index, batch in enumerate(self.train_dataloader, first):
            self.is_last_batch = index == last
            for listener in listeners["on_train_batch_start"]:
                listener(self, module, batch, index)
            module.on_train_batch_start(batch, index)
            with precision.forward_context():
                loss = module.training_step(batch, index)
            self._stepped.zero_grad()
            self.backward(loss)
            precision.unscale_gradients(optimizer)
            for listener in listeners["on_before_optimizer_step"]:
                listener(self, module, optimizer)
            module.configure_gradient_clipping(optimizer)
            self._stepped.step()
            self.global_step += 1
            self.schedule.step()
            outputs = {"loss": loss.detach()}
            for listener in listeners["on_train_batch_end"]:
                listener(self, module, outputs, batch, index)

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # else validation's clock would run for the last steps

    def _validate(self) -> None:
        self._call("on_validation_start")
        self._call("on_validation_epoch_start")
        self._evaluate(self.val_dataloaders, self.module.validation_step)
        self._call("on_validation_epoch_end")
        self._call("on_validation_end")

    @torch.inference_mode()
    def _evaluate(self, batches: Iterable[Any], step: Callable[[Any, int], Any]) -> None:
        """Take every batch through a step, with the module in evaluation mode."""
        forward: Callable[[], AbstractContextManager[Any]] = self.strategy.precision.forward_context
        self.module.eval()
        for index, batch in enumerate(batches):
            with forward():
                step(batch, index)
        self.module.train()

    def _call(self, hook: str, *arguments: Any) -> None:
        """Tell the callbacks, then the module, then those callbacks that save checkpoints, in the Trainer's order."""
        for callback in self.callbacks:
            if not isinstance(callback, Checkpoint):
                getattr(callback, hook)(self, self.module, *arguments)
        getattr(self.module, hook)(*arguments)
        for callback in self.callbacks:
            if isinstance(callback, Checkpoint):
                getattr(callback, hook)(self, self.module, *arguments)

    def _listening(self, hook: str) -> list[Callable[..., Any]]:
        """Return a hook of those callbacks that have one of their own: most steps have nobody to tell."""
        return [getattr(callback, hook) for callback in self.callbacks if is_overridden(hook, callback, pl.Callback)]


def placement(config: CellConfig, device: torch.device) -> dict[str, Any]:
    """Return what a Fabric and a Trainer are told of a cell's device and precision alike."""
    return {
        "accelerator": device.type,
        "devices": [device.index or 0] if device.type == "cuda" else 1,
        "precision": config.run.precision,
        "plugins": [LightningEnvironment()],  # a cell is one process whatever surrounds it, also within a Slurm job
    }
