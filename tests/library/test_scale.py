"""Matched scale: what one batch fixes, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch

from ufo import AttentionNorm, build, register
from ufo.norms import NORMS
from ufo.scale import UnmatchableError, attention_layers, match_scale, rms

SIZE = {"num_classes": 10, "in_chans": 1, "drop_path": 0.3}


def make(norm: str, **fields: object):
    return build("ufo_vit_pico", norm=norm, **(SIZE | fields))


def output_rms(net) -> dict[str, float]:
    """RMS of each layer's normaliser, times its gain, in training and with nothing dropped."""
    seen: dict[str, float] = {}

    def hook(layer, attention):
        def note(_norm, _inputs, output):
            seen[layer] = rms(output).item() * (
                1.0 if attention.matched_gain is None else attention.matched_gain.item()
            )

        return note

    handles = [a.norm.register_forward_hook(hook(layer, a)) for layer, a in attention_layers(net).items()]
    net.drop_path = 0.0
    with torch.no_grad():
        net.train()(images())
    for handle in handles:
        handle.remove()
    return seen


def images() -> torch.Tensor:
    return torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm", ["l2", "single_l2", "softmax", "none", "layernorm"])
def test_every_output_starts_with_the_rms_that_xnorms_has(norm):
    net, twin = make(norm), make("xnorm")
    gains = match_scale(net, twin, images())
    assert list(gains) == ["blocks.0.attn", "blocks.1.attn", "class_blocks.0.attn"]
    assert max(abs(gain - 1) for gain in gains.values()) > 0.05
    assert output_rms(net) == pytest.approx(output_rms(twin), rel=1e-5)


def test_it_leaves_everything_else_as_it_was():
    net, twin = make("single_l2"), make("xnorm")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    of_twin = {name: tensor.clone() for name, tensor in twin.state_dict().items()}
    net.eval()
    match_scale(net, twin, images())
    after = net.state_dict()
    assert {name for name in after if name not in before} == {
        f"{layer}.matched_gain" for layer in attention_layers(net)
    }
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(torch.equal(twin.state_dict()[name], tensor) for name, tensor in of_twin.items())
    assert not net.training
    assert net.drop_path == SIZE["drop_path"]
    assert all(a.matched_gain is None for a in attention_layers(twin).values())


def test_xnorm_is_its_own_twin_to_the_last_bit():
    net, plain = make("xnorm", drop_path=0.0), make("xnorm", drop_path=0.0)
    assert set(match_scale(net, make("xnorm"), images()).values()) == {1.0}
    assert torch.equal(net(images()), plain(images()))


def test_matching_again_gives_the_same_gains():
    net, twin = make("single_l2"), make("xnorm")
    assert match_scale(net, twin, images()) == match_scale(net, twin, images())


def test_matched_weights_load_into_a_matched_net():
    net, other = make("single_l2"), make("single_l2", seed=1)
    for one in (net, other):
        match_scale(one, make("xnorm"), images())
    other.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(images()), other.eval()(images()))


@pytest.mark.parametrize(("value", "what"), [(0.0, "0"), (float("nan"), "nan")])
def test_an_output_without_a_size_is_refused(monkeypatch, value, what):
    monkeypatch.setattr(NORMS, "_entries", dict(NORMS._entries))
    body = {"forward": lambda self, q, k, v: v * value, "__module__": "plug_in"}
    cls = type("Sizeless", (AttentionNorm,), body)
    register(name="sizeless", label="sizeless", formula="0", source="a test", invariances=set())(cls)
    with pytest.raises(UnmatchableError, match=f"scale of blocks.0.attn cannot be matched: .* RMS of {what}"):
        match_scale(make("sizeless"), make("xnorm"), images())
