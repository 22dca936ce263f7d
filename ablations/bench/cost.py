"""Measure the cost of each arm of a study, with nothing else running.

For the whole net: multiply-adds and inference time of an image, and time of a training step. For the normaliser:
multiply-adds and time against the number of tokens, which show whether its cost is linear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ablations.bench.measure import count_multiply_adds, draw_qkv, time_call
from ablations.config import CellConfig
from ablations.data import DataInfo, Rank
from ablations.data.objects.load import load_objects
from ablations.engine.threads import cpu_threads
from ablations.planning.plan import Plan
from ablations.tasks.net import build_net, make_net
from ablations.training.optimizer import build_optimizer
from ufo.norms import AttentionNorm

TOKENS = (256, 512, 1024, 2048, 4096)
"""Numbers of tokens at which a normaliser is measured; a linear one takes 16 times as long at the last."""


class Cost(NamedTuple):
    """A row of cost.csv: multiply-adds, or seconds per image, step or call; `tokens` is None for a whole net."""

    condition: str
    arm: str
    quantity: str
    tokens: int | None
    round: int
    value: float


def measure_costs(
    plan: Plan, *, rounds: int, on_round: Callable[[int], None], on_failure: Callable[[str], None]
) -> list[Cost]:
    """Measure every arm of a plan in every condition, once in each round.

    An arm that raises is reported and left out; the others are measured.

    Args:
        plan: plan of a study; its first device is used.
        rounds: number of time measurements, 1 or more.
        on_round: callback, called with the number of each finished round, from 0.
        on_failure: callback, called with a message for each arm that cannot be measured.
    """
    device = plan.devices[0]
    measured = []
    for subject in _subjects(plan):
        try:
            measured.append((subject, [*_count(*subject), *_time(*subject, device=device, number=0)]))
        except Exception as error:  # an arm may raise anything; its cells record it
            on_failure(f"{subject[1]}{' at ' * bool(subject[0])}{subject[0]}: {type(error).__name__}: {error}")
    on_round(0)
    for number in range(1, rounds):
        for subject, own in measured:
            own += _time(*subject, device=device, number=number)
        on_round(number)
    return [row for _, own in measured for row in own]


def _subjects(plan: Plan) -> Iterator[tuple[str, str, CellConfig, DataInfo]]:
    """Yield condition, arm, configuration and data set of the first cell of each arm and condition."""
    firsts: dict[tuple[str, str], CellConfig] = {}
    for cell in plan.cells:
        firsts.setdefault((plan.study.condition_of(cell), plan.study.arm_of(cell)), cell)
    for key, cell in firsts.items():
        yield *key, cell, plan.infos[cell.images.data_fingerprint]


def _count(condition: str, arm: str, cell: CellConfig, info: DataInfo) -> Iterator[Cost]:
    """Count the multiply-adds of the net and of its first normaliser at each number of tokens."""
    cpu = torch.device("cpu")
    net = _Net(cell, info, cpu)
    yield Cost(condition, arm, "multiply_adds", None, 0, count_multiply_adds(net.module.eval(), net.one))
    if (norm := _normaliser(net.module)) is None:
        return
    for tokens in TOKENS:
        qkv = draw_qkv(norm, images=1, tokens=tokens, device=cpu)
        yield Cost(condition, arm, "multiply_adds", tokens, 0, count_multiply_adds(norm, *qkv))


def _time(
    condition: str, arm: str, cell: CellConfig, info: DataInfo, *, device: torch.device, number: int
) -> Iterator[Cost]:
    with cpu_threads(cell.run.threads_per_cell):
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
                qkv = draw_qkv(norm, images=1, tokens=tokens, device=device)
                seconds = time_call(lambda: norm(*qkv), device)  # noqa: B023
                yield Cost(condition, arm, "time_s", tokens, number, seconds)


class _Net:
    """A cell's initial net, and its inputs of one image and of an evaluation batch: noise, or a detector's images."""

    def __init__(self, cell: CellConfig, info: DataInfo, device: torch.device) -> None:
        self._images: Any
        self._targets: Any
        if cell.task == "detect":
            data = load_objects(cell, info, workers=0, device=device, rank=Rank())
            self.one: Any = [next(iter(data.val))[1]]
            self.evaluated: Any = self.one
            self._images, self._targets = data.train.first()
            self.module = make_net(cell.model_copy(update={"init": "none"}), info).to(device)
            return
        height, width, channels = info.image_shape
        self.module = build_net(cell, image_shape=info.image_shape, num_classes=len(info.classes)).to(device)
        self._images = self.evaluated = torch.rand(cell.optimisation.batch_size, channels, height, width, device=device)
        self._targets = torch.zeros(len(self._images), dtype=torch.long, device=device)
        self.one = torch.zeros(1, channels, height, width, device=device)

    def loss(self) -> torch.Tensor:
        """Return the loss of a training batch."""
        if isinstance(self._targets, torch.Tensor):
            return F.cross_entropy(self.module(self._images), self._targets)
        return torch.stack([loss.float() for loss in self.module(self._images, self._targets).values()]).sum()


def _normaliser(net: nn.Module) -> AttentionNorm | None:
    """Return the first normaliser of a net; None if it has none, as timm's nets."""
    return next((module for module in net.modules() if isinstance(module, AttentionNorm)), None)
