"""What each arm of a study costs, measured alone and not in a packed grid.

Of the whole net: multiply-adds of an image, inference time of an image, time of a training step. Of the normaliser
alone, at growing numbers of tokens: multiply-adds and time, which tell whether its cost is linear in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ablations.bench.measure import count_multiply_adds, time_call
from ablations.config import CellConfig
from ablations.config.values import value_name
from ablations.data import DataInfo, Rank
from ablations.data.objects.load import load_objects
from ablations.engine.threads import cpu_threads
from ablations.planning.plan import Plan
from ablations.tasks.net import build_net, make_net
from ablations.training.optimizer import build_optimizer
from ufo.norms import AttentionNorm

TOKENS = (256, 512, 1024, 2048, 4096)
"""Numbers of tokens at which a normaliser is measured: where it is linear, the last takes 16 times the first."""


class Cost(NamedTuple):
    """A row of cost.csv: times in seconds, of an image or of a step; `tokens` is None for a whole net."""

    condition: str
    arm: str
    quantity: str
    tokens: int | None
    round: int
    value: float


def measure_costs(
    plan: Plan, *, rounds: int, on_round: Callable[[int], None], on_failure: Callable[[str], None]
) -> list[Cost]:
    """Measure every arm of a plan in every condition, by turns: each once in a round.

    An arm that raises is told of and left out; the others are measured.

    Args:
        plan: of a study; its first device is taken.
        rounds: how often each time is measured.
        on_round: is told that a round has ended.
        on_failure: is told which arm cannot be measured, and why.
    """
    device = plan.devices[0]
    measured = []
    for subject in _subjects(plan):
        try:
            measured.append((subject, [*_count(*subject), *_time(*subject, device=device, number=0)]))
        except Exception as error:  # an arm may do anything; its cells have recorded it
            on_failure(f"{subject[1]}{' at ' * bool(subject[0])}{subject[0]}: {type(error).__name__}: {error}")
    on_round(0)
    for number in range(1, rounds):
        for subject, own in measured:
            own += _time(*subject, device=device, number=number)
        on_round(number)
    return [row for _, own in measured for row in own]


def _subjects(plan: Plan) -> Iterator[tuple[str, str, CellConfig, DataInfo]]:
    """Give condition, arm, configuration and data of the first cell of each arm and condition."""
    seen = set[tuple[str, str]]()
    for cell in plan.cells:
        key = (plan.study.condition_of(cell), value_name(cell[plan.study.compare]))
        if key not in seen:
            seen.add(key)
            yield *key, cell, plan.infos[cell.images.data_fingerprint]


def _count(condition: str, arm: str, cell: CellConfig, info: DataInfo) -> Iterator[Cost]:
    """Count the multiply-adds of matrix products and convolutions, half of what torch counts as operations."""
    net = _Net(cell, info, torch.device("cpu"))
    yield Cost(condition, arm, "multiply_adds", None, 0, count_multiply_adds(net.module.eval(), net.one))
    if (norm := _normaliser(net.module)) is None:
        return
    for tokens in TOKENS:
        yield Cost(condition, arm, "multiply_adds", tokens, 0, count_multiply_adds(norm, *_qkv(norm, tokens)))


def _time(
    condition: str, arm: str, cell: CellConfig, info: DataInfo, *, device: torch.device, number: int
) -> Iterator[Cost]:
    with cpu_threads(cell.run.threads_per_cell):
        yield from _time_alone(condition, arm, cell, info, device=device, number=number)


def _time_alone(
    condition: str, arm: str, cell: CellConfig, info: DataInfo, *, device: torch.device, number: int
) -> Iterator[Cost]:
    net = _Net(cell, info, device)
    optimizer = build_optimizer(net.module, lr=1e-9, weight_decay=0.0, fused=device.type == "cuda")

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(net.loss())
        optimizer.step()

    net.module.train()
    yield Cost(condition, arm, "training_step_s", None, number, time_call(step, device))
    net.module.eval()
    with torch.no_grad():
        seconds = time_call(lambda: net.module(net.evaluated), device)
        yield Cost(condition, arm, "inference_s", None, number, seconds / len(net.evaluated))
        if (norm := _normaliser(net.module)) is None:
            return
        for tokens in TOKENS:
            q, k, v = (part.to(device) for part in _qkv(norm, tokens))
            yield Cost(condition, arm, "time_s", tokens, number, time_call(lambda: norm(q, k, v), device))  # noqa: B023


class _Net:
    """A cell's net as its seed makes it, with what it is measured on: noise, or a detector's first images.

    Attributes:
        module: the net.
        one: an image in the form that it takes.
        evaluated: images of an evaluation.
    """

    def __init__(self, cell: CellConfig, info: DataInfo, device: torch.device) -> None:
        self.one: Any
        self.evaluated: Any
        self._images: Any
        self._targets: Any
        if cell.task == "detect":
            data = load_objects(cell, info, workers=0, device=device, rank=Rank())
            _, image = next(iter(data.val))
            self._images, self._targets = data.train.first()
            net = make_net(cell.model_copy(update={"init": "none"}), info)
            self.module, self.one, self.evaluated = net.to(device), [image], [image]
            return
        height, width, channels = info.image_shape
        self.module = build_net(cell, image_shape=info.image_shape, num_classes=len(info.classes)).to(device)
        self._images = self.evaluated = torch.rand(cell.optimisation.batch_size, channels, height, width, device=device)
        self._targets = torch.zeros(cell.optimisation.batch_size, dtype=torch.long, device=device)
        self.one = torch.zeros(1, channels, height, width, device=device)

    def loss(self) -> torch.Tensor:
        """Return the loss of a batch of training."""
        if isinstance(self._targets, torch.Tensor):
            return F.cross_entropy(self.module(self._images), self._targets)
        return torch.stack([loss.float() for loss in self.module(self._images, self._targets).values()]).sum()


def _normaliser(net: nn.Module) -> AttentionNorm | None:
    """Return the first normaliser of a net; None in one of timm's."""
    return next((module for module in net.modules() if isinstance(module, AttentionNorm)), None)


def _qkv(norm: AttentionNorm, tokens: int) -> tuple[torch.Tensor, ...]:
    """Return q, k and v of one image, each (1, h, tokens, d), from a generator of their own."""
    generator = torch.Generator().manual_seed(0)
    widths = (norm.key_dim, norm.key_dim, norm.value_dim)
    return tuple(torch.randn(1, norm.num_heads, tokens, width, generator=generator) for width in widths)
