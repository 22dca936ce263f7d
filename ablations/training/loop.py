"""Lean training loop: it drives a cell's LightningModule hook by hook like Lightning's Trainer, to the same bits.

It saves the Trainer's 3,400 or so additional Python calls per step: on a CPU, 5 % of a small net's epoch. Lightning
Fabric handles device and precision; `LeanTrainer` provides what modules and callbacks read from their trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric import Fabric
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ablations.config import CellConfig
from ablations.data import EpochBatches
from ablations.data.modules import CellDataModule
from ablations.training.average import MovingAverage
from ablations.training.captured import CapturedStep
from ablations.training.module import CellModule
from ablations.training.optimizer import place_lr
from ablations.training.parallel import Share, placement, with_shared_statistics
from ablations.training.tensor_step import TensorStep, as_tensor_step

STEP_HOOKS = ("on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end")
"""Hooks of callbacks that are called in each step."""


class LeanTrainer(Fabric):
    """Trainer of a cell, which the module and its callbacks use in place of Lightning's.

    Args:
        config: configuration of the cell.
        device: device to train on.
        callbacks: callbacks besides the module's, called before them; those that save checkpoints are called last.
        log_dir: folder that callbacks write to.
        share: part of this process in the cell; None: it has no other process.

    Attributes:
        current_epoch: current epoch, from 0; outside training, the number of finished epochs.
        global_step: number of finished steps.
        is_last_batch: whether the step is the last of its epoch.
        callback_metrics: metrics that the module logged last.
    """

    sanity_checking = False
    accumulate_grad_batches = 1

    def __init__(
        self,
        config: CellConfig,
        *,
        device: torch.device,
        callbacks: Sequence[pl.Callback],
        log_dir: Path,
        share: Share | None = None,
    ) -> None:
        super().__init__(**placement(config, device, share=share))
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
        self._captured: CapturedStep | None = None
        self._tensor_step: TensorStep
        self._average: MovingAverage | None = None

    @property
    def num_training_batches(self) -> int:
        """Number of batches in an epoch."""
        return len(self.train_dataloader)

    @property
    def estimated_stepping_batches(self) -> int:
        """Number of steps in the whole training."""
        return self.max_epochs * self.num_training_batches

    def log_dict(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Keep the metrics that a module logs."""
        self.callback_metrics.update(metrics)

    def fit(self, module: CellModule, data: CellDataModule, *, checkpoint: dict[str, Any] | None = None) -> None:
        """Train the remaining epochs.

        Args:
            module: module with its initial weights.
            data: data module of the cell.
            checkpoint: content that `save_checkpoint` wrote, to resume from; None: start from scratch.

        Raises:
            Diverged: training stopped by the divergence guard.
        """
        first = self.begin(module, data, checkpoint)
        while self.current_epoch < self.max_epochs:
            self.begin_epoch(first)
            with self._steps_captured() as captured:
                if captured is None:
                    self._train_epoch(first)
                else:
                    self._train_captured(captured)
            first = 0
            self.end_epoch()
            self.current_epoch += 1
        self.end()

    def begin(self, module: CellModule, data: CellDataModule, checkpoint: dict[str, Any] | None) -> int:
        """Prepare the training; return the index of the first batch in its epoch."""
        self._connect(data, "fit")
        self.train_dataloader, self.val_dataloaders = data.train_dataloader(), data.val_dataloader()
        if self.world_size > 1 and self.device.type == "cuda":
            module.net = with_shared_statistics(module.net, module.config)
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
        wrapped, self._fabric_optimizer = self.setup(module, *self.optimizers, move_to_device=False)
        self._step = module.training_step if self.world_size == 1 else wrapped.training_step  # which calls DDP
        self._call("on_fit_start")
        first = 0 if checkpoint is None else self._restore_training(checkpoint)
        self._call("on_train_start")
        self.listeners = {hook: self._listeners_of(hook) for hook in STEP_HOOKS}
        return first

    def begin_epoch(self, first: int) -> None:
        """Draw the epoch, and call the hooks of its start unless it is resumed at a later batch than its first."""
        self.train_dataloader.set_epoch(self.current_epoch)
        if not first:  # otherwise the interrupted attempt has called the hook
            self._call("on_train_epoch_start")

    def end_epoch(self) -> None:
        """Validate, and call the hooks of the epoch's end."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # otherwise the validation clock would include the last steps
        self._validate()
        self._call("on_train_epoch_end")

    def end(self) -> None:
        """Call the hooks of the end of the training."""
        self._call("on_train_end")
        self._call("on_fit_end")

    def test(self, module: CellModule, data: CellDataModule) -> None:
        """Evaluate the module on every test batch, once."""
        self._connect(data, "test")
        self.test_dataloaders = data.test_dataloader()
        self._call("on_test_start")
        self._call("on_test_epoch_start")
        self._evaluate(self.test_dataloaders, module.test_step)
        self._call("on_test_epoch_end")
        self._call("on_test_end")

    def save_checkpoint(self, path: Path) -> None:
        """Save the state needed to resume bit-identically, also within an epoch."""
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
        torch.save(tree_map_only(Tensor, _alone, checkpoint), path)

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
        self.to_device(self.module)  # the states of metrics were replaced by those of the checkpoint, on the CPU

    def _restore_training(self, checkpoint: dict[str, Any]) -> int:
        """Restore optimiser, schedule and position; return the index of the next batch in its epoch."""
        self.optimizers[0].load_state_dict(checkpoint["optimizer_states"][0])
        place_lr(self.optimizers[0], self.device)
        self.schedule.load_state_dict(checkpoint["lr_schedulers"][0])
        self.strategy.precision.load_state_dict(checkpoint["precision"])
        self.train_dataloader.load_state_dict(checkpoint["loader"])
        self.current_epoch, self.global_step = checkpoint["epoch"], checkpoint["global_step"]
        given: int = checkpoint["loader"]["batches"]
        if given == self.num_training_batches:
            self.current_epoch += 1
            return 0
        return given

    def begin_step(self, batch: Any, index: int) -> None:
        """Call the hooks before a step.

        Args:
            batch: batch of the step; None if the step makes it.
            index: index of the batch in the epoch.
        """
        self.is_last_batch = index == self.num_training_batches - 1
        for listener in self.listeners["on_train_batch_start"]:
            listener(self, self.module, batch, index)
        self.module.on_train_batch_start(batch, index)

    def end_step(self, loss: Tensor, batch: Any, index: int) -> None:
        """Count a step, set the learning rate of the next, and call the hooks after it."""
        self.global_step += 1
        self.schedule.step()
        outputs = {"loss": loss.detach()}
        for listener in self.listeners["on_train_batch_end"]:
            listener(self, self.module, outputs, batch, index)

    def _train_epoch(self, first: int) -> None:
        for index, batch in enumerate(self.train_dataloader, first):
            self.begin_step(batch, index)
            with self.strategy.precision.forward_context():
                loss = self._step(batch, index)
            self._update(loss)
            self.end_step(loss, batch, index)

    def _update(self, loss: Tensor, *, has_listeners: bool = True) -> None:
        """Update the weights by the gradient of a loss."""
        optimizer = self.optimizers[0]
        self._fabric_optimizer.zero_grad()
        self.backward(loss)
        self.strategy.precision.unscale_gradients(optimizer)
        if has_listeners:
            for listener in self.listeners["on_before_optimizer_step"]:
                listener(self, self.module, optimizer)
        self.module.configure_gradient_clipping(optimizer)
        self._fabric_optimizer.step()

    @contextmanager
    def _steps_captured(self) -> Iterator[CapturedStep | None]:
        """Yield the steps to replay, on their stream, if the cell asks for a CUDA graph."""
        if not self.module.config.run.cuda_graph:
            yield None
            return
        if self._captured is None:
            self._tensor_step = as_tensor_step(self.module)
            generators = self._tensor_step.step_generators
            self._captured = CapturedStep(self._whole_step, device=self.device, generators=generators)
            self._average = next((each for each in self.callbacks if isinstance(each, MovingAverage)), None)
            self._share = torch.zeros((), device=self.device)
            if self._average is not None:
                self._average.is_in_step = True
        with self._captured.stream():
            yield self._captured

    def _train_captured(self, captured: CapturedStep) -> None:
        for index in self.train_dataloader.indices():
            self.begin_step(None, index)
            if self._average is not None:
                self._share.fill_(self._average.share(self.global_step + 1))
            loss = captured(index, replay=not self.is_last_batch)  # probes read the last one's gradients
            self._tensor_step.record_loss(loss)
            self.end_step(loss, None, index)

    def _whole_step(self, index: Tensor) -> Tensor:
        """Run a step from the draws of the epoch to the moving average; return the loss.

        Args:
            index: (1,) index of the batch in the epoch.
        """
        batches: Any = self.train_dataloader
        with self.strategy.precision.forward_context():
            loss = self._tensor_step.loss(batches.batch(index), index)
        self._update(loss, has_listeners=self.is_last_batch)
        if self._average is not None:
            self._average.blend(self.module, self._share)
        return loss.detach()

    def _validate(self) -> None:
        self._call("on_validation_start")
        self._call("on_validation_epoch_start")
        self._evaluate(self.val_dataloaders, self.module.validation_step)
        self._call("on_validation_epoch_end")
        self._call("on_validation_end")

    @torch.inference_mode()
    def _evaluate(self, batches: Iterable[Any], step: Callable[[Any, int], Any]) -> None:
        """Run a step on every batch, in evaluation mode."""
        forward: Callable[[], AbstractContextManager[Any]] = self.strategy.precision.forward_context
        self.module.eval()
        for index, batch in enumerate(batches):
            with forward():
                step(batch, index)
        self.module.train()

    def _call(self, hook: str, *arguments: Any) -> None:
        """Call the callbacks, the module, then the callbacks that save checkpoints, in the Trainer's order."""
        for callback in self.callbacks:
            if not isinstance(callback, Checkpoint):
                getattr(callback, hook)(self, self.module, *arguments)
        getattr(self.module, hook)(*arguments)
        for callback in self.callbacks:
            if isinstance(callback, Checkpoint):
                getattr(callback, hook)(self, self.module, *arguments)

    def _listeners_of(self, hook: str) -> list[Callable[..., Any]]:
        """Return a hook of the callbacks that override it: in most steps there is none to call."""
        return [getattr(callback, hook) for callback in self.callbacks if is_overridden(hook, callback, pl.Callback)]


def _alone(tensor: Tensor) -> Tensor:
    """Copy a tensor that is part of a larger one, which torch would save as a whole."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
