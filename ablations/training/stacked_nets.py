"""The nets of several cells as one net of stacked weights, and its training step.

Dimension letters: S cells, B batch.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from ablations.data import Batch
from ablations.training.loop import LeanTrainer
from ablations.training.module import CellModule
from ablations.training.optimizer import build_adamw, split_by_decay
from ablations.training.tensor_step import as_tensor_step

CLIP_EPS = 1e-6
"""Added to a gradient's norm before the limit is divided by it, as in torch's ``clip_grad_norm_``."""

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Names of AdamW's moments in its state."""


class StackedNets:
    """The nets of several cells as one: stacked parameters and buffers, of which every net holds views.

    A cell that diverges stays in the stack, where it reaches no other.

    Args:
        modules: modules of the cells, by place.
        trainers: trainers by place, each with an optimiser whose moments are restored or still to be created.

    Attributes:
        steps: the modules' steps, by place.
    """

    def __init__(self, modules: Mapping[int, CellModule], trainers: Sequence[LeanTrainer]) -> None:
        self.modules, self._trainers = modules, trainers
        self.steps = {place: as_tensor_step(module) for place, module in modules.items()}
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
        device = next(iter(self._parameters.values())).device
        self._lr = torch.tensor(optim.lr, device=device) if one.config.run.cuda_graph else None
        lr = optim.lr if self._lr is None else self._lr
        self._optimizer = build_adamw(decayed, exempt, lr=lr, weight_decay=optim.weight_decay, fused=fused)
        self._largest_norm = optim.grad_clip
        self._stack_moments()

    def set_lr(self, lr: float | Tensor) -> None:
        """Set the learning rate of the next step."""
        if self._lr is not None:
            self._lr.copy_(torch.as_tensor(lr))
            return
        for group in self._optimizer.param_groups:
            group["lr"] = lr

    def step(self, batch: Batch, index: int | Tensor, *, live: Sequence[int]) -> Tensor:
        """Run a step of every cell; return their losses (S,).

        Args:
            batch: images (S B, C, H, W) and labels (S B,) of the cells in a row.
            index: index of their batches in the epoch, an integer or a tensor (1,) on the device.
            live: places of the cells that have not diverged.
        """
        trainer, (one, *others) = self._trainers[live[0]], self.steps.values()
        images, targets, keep = one.net_inputs(batch, index, others=others)
        inputs = [part.view(len(self.modules), -1, *part.shape[1:]) for part in (images, targets)]
        inputs += [] if keep is None else [keep]

        def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *inputs: Tensor) -> Tensor:
            images, targets, *keep = inputs
            return one.loss_of(functional_call(self._base, (parameters, buffers), (images, *keep)), targets)

        self._base.train()
        with trainer.strategy.precision.forward_context():
            losses = vmap(loss)(self._parameters, self._buffers, *inputs)  # (S,)
        self._optimizer.zero_grad()
        torch.autograd.backward(losses.sum())
        if trainer.is_last_batch:
            self._show_gradients(live)
        self._clip()
        self._optimizer.step()
        return losses.detach()

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
