"""First steps of a cell, with the probes of its layers at each of them, and its curvature before and after."""

from __future__ import annotations

import copy
import itertools
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.hooks import RemovableHandle

from ablations.bench.curvature import Extremes, adam_preconditioner, extreme_eigenvalues, flat, preconditioned_product
from ablations.config import CellConfig
from ablations.data import DataInfo
from ablations.data.modules import CellDataModule, make_data
from ablations.data.streams import forked_library, library_state, restore_library
from ablations.engine.threads import cpu_threads
from ablations.tasks.make import make_module
from ablations.training.callbacks import Diverged, grad_norms, record_rms
from ablations.training.cuda_settings import cuda_settings
from ablations.training.loop import LeanTrainer
from ablations.training.module import CellModule
from ablations.training.optimizer import build_optimizer
from ablations.training.tensor_step import TensorStep, as_tensor_step
from ufo.attention import UFOAttention
from ufo.init import keyed_generator
from ufo.scale import attention_layers

NOT_MEASURED = Extremes(math.nan, math.nan, converged=False, num_products=0)

Inputs = tuple[Tensor, Tensor, Tensor | None]
"""Images, targets, and which samples keep which branch, if any is dropped."""


def take_first_steps(config: CellConfig, info: DataInfo, *, steps: int, device: torch.device) -> FirstSteps:
    """Build a cell as the engine does, take its first steps, and measure it before each of them and after the last.

    Args:
        config: configuration of the cell, a classifier.
        info: its data set, in the cache.
        steps: number of steps K, from 1 to one less than the cell has: the last gradients are those of batch K + 1.
        device: device of the net.
    """
    with (
        tempfile.TemporaryDirectory() as nowhere,  # the module's own callbacks write to it
        cpu_threads(config.run.threads_per_cell),
        forked_library(config.seed),
        cuda_settings(config.run, device, mps=False),
    ):
        data, others = make_data(config, info), make_data(config, info)
        module = make_module(config, info)
        watch = FirstSteps(steps, others)
        trainer = LeanTrainer(config, device=device, callbacks=[watch], log_dir=Path(nowhere))
        data.trainer = others.trainer = trainer  # type: ignore[assignment]  # its device holds the images
        try:
            trainer.fit(module, data)
        except (_Done, Diverged):
            pass
        finally:
            data.teardown()
            others.teardown()
    return watch


class _Done(Exception):
    """The steps are taken."""


class FirstSteps(pl.Callback):
    """Callback that measures a cell before each of its first steps, and ends the training after them.

    Args:
        steps: number of steps.
        data: data of the cell, apart from those that it trains on, whose position stays unchanged.

    Attributes:
        steps: number of steps.
        taken: number of steps taken.
        blocks: layers of self-attention, in forward order.
        values: value by step, probe and layer.
        curvatures: extreme eigenvalues at the start and after the last step, by step.
        beta1: decay of the optimiser's first moment.
    """

    def __init__(self, steps: int, data: CellDataModule) -> None:
        self.steps, self.taken, self.beta1 = steps, 0, math.nan
        self.blocks: list[str] = []
        self.values: dict[tuple[int, str, str], float] = {}
        self.curvatures: dict[int, Extremes] = {}
        self._data = data
        self._shares: list[float] = []
        self._fixed: Inputs
        self._hooks: list[RemovableHandle] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Measure the curvature at the start, and have the RMS of the step's forward pass recorded."""
        if not self.taken:
            layers = attention_layers(pl_module.net)
            self.blocks = [name for name, layer in layers.items() if isinstance(layer, UFOAttention)]
            self.beta1 = trainer.optimizers[0].param_groups[0]["betas"][0]
            self._measure_start(pl_module)
        self._hooks = record_rms(pl_module.net, self._keep_rms)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Record the gradient norms; after the last step, measure the curvature and end the training."""
        for hook in self._hooks:
            hook.remove()  # of a layer that the step left out
        for layer, norm in grad_norms(pl_module.net).items():
            self.values[self.taken, "grad_norm", layer] = norm.item()
        if self.taken == self.steps:
            preconditioner = _unclipped_preconditioner(optimizer, pl_module.net, self._shares)
            self.curvatures[self.steps] = curvature(pl_module, self._fixed, preconditioner)
            raise _Done
        self._shares.append(clip_share(pl_module.net, pl_module.config))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the step."""
        self.taken += 1

    def _keep_rms(self, layer: str, value: Tensor) -> None:
        self.values[self.taken, "output_rms", layer] = value.item()

    def _measure_start(self, module: CellModule) -> None:
        """Measure the curvature with the second moment of the gradients of the first batches, without a step."""
        self._data.setup("fit")
        loader = self._data.train_dataloader()
        loader.set_epoch(0)
        step = as_tensor_step(module)
        with _restored(step):
            batches = enumerate(itertools.islice(loader, self.steps))
            inputs = [step.net_inputs(batch, index) for index, batch in batches]
            preconditioner = _resting_preconditioner(module, inputs)
        self._fixed = inputs[0]
        self.curvatures[0] = curvature(module, self._fixed, preconditioner)


def clip_share(net: nn.Module, config: CellConfig) -> float:
    """Return the share of a net's gradients that its cell's clipping leaves, in (0, 1]."""
    largest = config.optimisation.grad_clip
    norm = nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None]).item()
    return min(1.0, largest / norm) if largest and norm else 1.0


def curvature(module: CellModule, inputs: Inputs, preconditioner: Mapping[str, Tensor]) -> Extremes:
    """Return the extreme eigenvalues of the preconditioned Hessian of a batch's loss, in training mode.

    Args:
        module: module, which stays unchanged.
        inputs: inputs of its net.
        preconditioner: diagonal of P, in the shape of each parameter that training moves, by its name; the others are
            constants.
    """
    diagonal = flat(preconditioner.values())
    if not torch.isfinite(diagonal).all():
        return NOT_MEASURED
    step, net = as_tensor_step(module), copy.deepcopy(module.net)  # a forward pass changes running statistics
    with _restored(step), sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
        parameters = dict(net.named_parameters())
        moved = [parameters[name] for name in preconditioner]
        product = preconditioned_product(_loss(step, net, inputs), moved, diagonal)
        generator = keyed_generator(module.config.seed, "foresee")
        start = torch.randn(len(diagonal), generator=generator).to(diagonal.device)
        return extreme_eigenvalues(product, start)


def _resting_preconditioner(module: CellModule, inputs: Sequence[Inputs]) -> dict[str, Tensor]:
    """Return P of the gradients of some batches at the present weights, divided by the share that clipping leaves."""
    step, net, shares = as_tensor_step(module), copy.deepcopy(module.net), list[float]()
    optimizer = build_optimizer(net, lr=0.0, weight_decay=0.0, fused=False)  # only its state changes
    for each in inputs:
        optimizer.zero_grad()
        torch.autograd.backward(_loss(step, net, each))
        shares.append(clip_share(net, module.config))
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
    return _unclipped_preconditioner(optimizer, net, shares)


def _unclipped_preconditioner(
    optimizer: torch.optim.AdamW, net: nn.Module, shares: Sequence[float]
) -> dict[str, Tensor]:
    """Return P, divided by the mean share of the gradients that clipping has left."""
    share = sum(shares) / len(shares)
    return {name: own / share for name, own in adam_preconditioner(optimizer, dict(net.named_parameters())).items()}


def _loss(step: TensorStep, net: nn.Module, inputs: Inputs) -> Tensor:
    images, targets, keep = inputs
    return step.loss_of(net(images) if keep is None else net(images, keep), targets)


@contextmanager
def _restored(step: TensorStep) -> Iterator[None]:
    """Restore all generators that a step draws from."""
    own, library = [generator.get_state() for generator in step.step_generators()], library_state()
    try:
        yield
    finally:
        restore_library(library)
        for generator, state in zip(step.step_generators(), own, strict=True):
            generator.set_state(state)
