"""Cells that differ only in their seeds, trained as one batched net: a step launches its kernels once for all of them.

The weights of all seeds are stacked, and each cell's net holds views of its own, so that validation, test, probes and
checkpoints are those of a single cell. Each seed has its own order, augmentation, weights, BatchNorm statistics,
clipping and moving average. Sums run in another order than in a single cell, so the last bits differ.

Dimension letters: S seeds, B batch.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from ablations.data.modules import CellDataModule
from ablations.training.callbacks import Diverged, History
from ablations.training.checkpoint import Checkpoints
from ablations.training.loop import LeanTrainer
from ablations.training.module import CellModule
from ablations.training.optimizer import build_adamw, split_by_decay

CLIP_EPS = 1e-6
"""Added to a gradient's norm before the limit is divided by it, as in torch's ``clip_grad_norm_``."""

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Names of AdamW's moments in its state."""


class Stack:
    """Training of several cells as one net.

    Args:
        trainers: trainers of the cells.
        checkpoints: callbacks of the trainers that save checkpoints; the first decides when all are saved.

    Attributes:
        diverged: divergence of each cell that diverged, by its place.
    """

    def __init__(self, trainers: Sequence[LeanTrainer], checkpoints: Sequence[Checkpoints]) -> None:
        self.trainers, self.checkpoints = trainers, checkpoints
        self._histories = [each for trainer in trainers for each in trainer.own_callbacks if isinstance(each, History)]
        self.diverged: dict[int, Diverged] = {}
        for each in checkpoints:
            each.num_sharing = len(checkpoints)

    def fit(
        self, modules: Sequence[CellModule], data: Sequence[CellDataModule], *, resumed: Sequence[dict[str, Any] | None]
    ) -> None:
        """Train the remaining epochs of every cell that does not diverge.

        Args:
            modules: modules with their initial weights.
            data: data modules of the cells.
            resumed: checkpoints of one step, to resume from; all None: start from scratch.
        """
        starts: dict[int, int] = {}

        def begin(place: int, trainer: LeanTrainer) -> None:
            starts[place] = trainer.begin(modules[place], data[place], resumed[place])

        self._each(begin)
        if not self._live:
            return
        first = starts[self._live[0]]
        nets = StackedNets({place: modules[place] for place in self._live}, self.trainers)
        while self._live and self._leader.current_epoch < self._leader.max_epochs:
            self._each(lambda _, trainer: trainer.begin_epoch(first))  # noqa: B023  # called at once
            self._train_epoch(nets, first)
            first = 0
            self._each(lambda _, trainer: trainer.end_epoch())
            if self._live and self._saves.is_due_at_end(self._leader):  # type: ignore[arg-type]
                self._save()
            for place in self._live:
                self.trainers[place].current_epoch += 1
        self._each(lambda _, trainer: trainer.end())

    @property
    def _live(self) -> list[int]:
        """Places of the cells that have not diverged."""
        return [place for place in range(len(self.trainers)) if place not in self.diverged]

    @property
    def _leader(self) -> LeanTrainer:
        """Trainer of the first live cell, in whose place any other would do."""
        return self.trainers[self._live[0]]

    @property
    def _saves(self) -> Checkpoints:
        """Callback that decides when the checkpoints of all cells are saved."""
        return self.checkpoints[self._live[0]]

    def _each(self, call: Callable[[int, LeanTrainer], None]) -> None:
        """Call a function with place and trainer of every live cell; one that diverges in it ends."""
        for place in self._live:
            try:
                call(place, self.trainers[place])
            except Diverged as divergence:
                self.diverged[place] = divergence

    def _train_epoch(self, nets: StackedNets, first: int) -> None:
        started = time.perf_counter()
        self._train_steps(nets, first)
        if self._live and self._leader.device.type == "cuda":
            torch.cuda.synchronize(self._leader.device)
        for place in self._live:
            self._histories[place].train_s = (time.perf_counter() - started) / len(self.trainers)

    def _train_steps(self, nets: StackedNets, first: int) -> None:
        loaders: list[Any] = [self.trainers[place].train_dataloader for place in nets.modules]
        for index, batches in enumerate(zip(*loaders, strict=True), first):
            self._train_step(nets, dict(zip(nets.modules, batches, strict=True)), index)
            if not self._live:
                return
            if self._saves.is_due_within(self._leader):  # type: ignore[arg-type]
                self._save()

    def _train_step(self, nets: StackedNets, batches: Mapping[int, Any], index: int) -> None:
        self._each(lambda place, trainer: trainer.begin_step(batches[place], index))
        losses = nets.step(batches, index, live=self._live)

        def end(place: int, trainer: LeanTrainer) -> None:
            trainer.module.record_loss(losses[place])
            trainer.end_step(losses[place], batches[place], index)

        self._each(end)

    def _save(self) -> None:
        self._each(lambda place, trainer: self.checkpoints[place].save(trainer))  # type: ignore[arg-type]


class StackedNets:
    """The nets of several cells as one: stacked parameters and buffers, of which every net holds views.

    A cell that diverges stays in the stack, where it reaches no other.

    Args:
        modules: modules of the cells, by place.
        trainers: trainers by place, each with an optimiser whose moments are restored or still to be created.
    """

    def __init__(self, modules: Mapping[int, CellModule], trainers: Sequence[LeanTrainer]) -> None:
        self.modules, self._trainers = modules, trainers
        nets = [module.net for module in modules.values()]
        one = next(iter(modules.values()))
        self._base = copy.deepcopy(nets[0]).to("meta")
        self._parameters = _stack([dict(net.named_parameters()) for net in nets])
        self._buffers = _stack([dict(net.named_buffers()) for net in nets])
        for parameter in self._parameters.values():
            parameter.requires_grad_()
        optim = one.config.optimisation
        decayed, exempt = ([self._parameters[name] for name in part] for part in split_by_decay(nets[0]))
        fused = trainers[0].optimizers[0].defaults["fused"]
        self._optimizer = build_adamw(decayed, exempt, lr=optim.lr, weight_decay=optim.weight_decay, fused=fused)
        self._largest_norm = optim.grad_clip
        self._stack_moments()

    def step(self, batches: Mapping[int, Any], index: int, *, live: Sequence[int]) -> dict[int, Tensor]:
        """Run a step of every cell; return their losses.

        Args:
            batches: batch of each cell.
            index: index of the batches in the epoch.
            live: places of the cells that have not diverged.
        """
        trainer, module = self._trainers[live[0]], self.modules[live[0]]
        drawn = [each.net_inputs(batches[place], index) for place, each in self.modules.items()]
        inputs = [torch.stack(part) for part in zip(*drawn, strict=True) if part[0] is not None]

        def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *inputs: Tensor) -> Tensor:
            images, targets, *keep = inputs
            return module.loss_of(functional_call(self._base, (parameters, buffers), (images, *keep)), targets)

        self._base.train()
        with trainer.strategy.precision.forward_context():
            losses = vmap(loss)(self._parameters, self._buffers, *inputs)  # (S,)
        self._optimizer.zero_grad()
        torch.autograd.backward(losses.sum())
        if trainer.is_last_batch:
            self._show_gradients(live)
        self._clip()
        for group in self._optimizer.param_groups:
            group["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        self._optimizer.step()
        return dict(zip(self.modules, losses.detach().unbind(), strict=True))

    def _stack_moments(self) -> None:
        """Stack the optimisers' moments, and let each optimiser hold views, for checkpoints."""
        optimizers: list[Any] = [self._trainers[place].optimizers[0] for place in self.modules]
        for optimizer in optimizers:
            optimizer._opt_called = True  # otherwise its schedule warns that no step precedes its own
        owns = [dict(module.net.named_parameters()) for module in self.modules.values()]
        for name, parameter in self._parameters.items():
            states = [optimizer.state[own[name]] for optimizer, own in zip(optimizers, owns, strict=True)]
            if states[0]:
                moments = {key: torch.stack([state[key] for state in states]) for key in MOMENTS}
                step = states[0]["step"].clone()
            else:
                moments = {key: torch.zeros_like(parameter) for key in MOMENTS}
                step = torch.zeros((), device=parameter.device)
            self._optimizer.state[parameter] = {"step": step, **moments}
            for row, state in enumerate(states):
                state |= {"step": step, **{key: value[row] for key, value in moments.items()}}

    def _show_gradients(self, live: Sequence[int]) -> None:
        """Call the hooks before the update with every net's own gradients."""
        for row, (place, module) in enumerate(self.modules.items()):
            if place not in live:
                continue
            trainer, own = self._trainers[place], dict(module.net.named_parameters())
            for name, parameter in own.items():
                gradient = self._parameters[name].grad
                parameter.grad = None if gradient is None else gradient[row]
            for listener in trainer.listeners["on_before_optimizer_step"]:
                listener(trainer, module, trainer.optimizers[0])
            for parameter in own.values():
                parameter.grad = None

    def _clip(self) -> None:
        """Clip each seed's gradient norm at the cell's limit; 0: none."""
        if not self._largest_norm:
            return
        gradients = [each.grad for each in self._parameters.values() if each.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(each.flatten(1), dim=1) for each in gradients])
        factors = (self._largest_norm / (torch.linalg.vector_norm(norms, dim=0) + CLIP_EPS)).clamp(max=1.0)  # (S,)
        for each in gradients:
            each.mul_(factors.view(-1, *[1] * (each.dim() - 1)))


def _stack(owns: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack tensors by name, and make each a view of its stack."""
    stacks = {name: torch.stack([own[name].detach() for own in owns]) for name in owns[0]}
    for row, own in enumerate(owns):
        for name, tensor in own.items():
            tensor.data = stacks[name][row]
    return stacks
