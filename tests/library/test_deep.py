"""The field's cores in a net of 24 blocks: finite losses and gradients, and steps that reduce the loss of a batch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import ufo
from ufo.init import keyed_generator
from ufo.norms import NORMS, AttentionNorm

FIELD = [spec.name for spec in NORMS.values() if spec.group == "field" and not spec.is_plugin]


@pytest.mark.slow
@pytest.mark.parametrize("norm", FIELD)
def test_a_deep_net_fits_a_batch(norm):
    """Few steps suffice for four images; 50 steps on CIFAR-10 are the experiment `every_norm`."""
    net = ufo.build("ufo_vit_deep24", norm=norm, num_classes=10, layer_scale=1.0).train()
    images = torch.randn(4, 3, 32, 32, generator=keyed_generator(0, "images"))
    labels = torch.tensor([0, 3, 5, 9])
    optimizer, losses = torch.optim.AdamW(net.parameters(), lr=3e-3), []
    for _ in range(3):
        loss = F.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        grads = {name: p.grad for name, p in net.named_parameters()}
        assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    learnt = {
        f"{name}.{own}"
        for name, m in net.named_modules()
        if isinstance(m, AttentionNorm)
        for own, _ in m.named_parameters()
    }
    assert all(grads[name].any() for name in learnt)
