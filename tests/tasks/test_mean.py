"""The mean loss of an evaluation, over batches of different sizes."""

from __future__ import annotations

import torch

from ablations.tasks.mean import SampleMean


def test_every_sample_counts_alike():
    losses = torch.rand(11, generator=torch.Generator().manual_seed(0))
    mean = SampleMean()
    for batch in losses.split(4):
        mean.update(batch.mean(), num_samples=len(batch), of=4)
    torch.testing.assert_close(mean.compute(), losses.mean())
    mean.reset()
    mean.update(losses[:3].mean(), num_samples=3, of=3)
    assert torch.equal(mean.compute(), losses[:3].mean())


def test_a_mean_that_is_not_a_number_stays_one():
    mean = SampleMean()
    mean.update(torch.tensor(float("nan")), num_samples=2, of=2)
    assert mean.compute().isnan()
