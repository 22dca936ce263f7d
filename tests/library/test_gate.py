"""The gate of attention's output: its formula, its place, its initial weights, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from library.loops import OWN
from timm import create_model
from torch import Tensor, nn

import ufo.timm_models  # noqa: F401  # registers
from ablations.training.optimizer import split_by_decay
from ufo import build
from ufo.attention import ClassAttention, UFOAttention
from ufo.detection import UFOBody, load_classifier
from ufo.init import shared_weights_hash
from ufo.scale import attention_layers, match_scale
from ufo.testing import check_every_module_runs

SIZE = {"embed_dim": 12, "attn_dim": 8, "num_heads": 2}


def pico(**options):
    return build("ufo_vit_pico", **{"num_classes": 10, "output_gate": True, **options})


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def heads_of(kind: type[nn.Module], gated: nn.Module, norm: str, *inputs: Tensor) -> Tensor:
    """Return the joined heads of the layer without its gate and its projection, (B, N, A)."""
    plain = kind(**SIZE, norm=norm).double()
    plain.load_state_dict({name: tensor for name, tensor in gated.state_dict().items() if "gate" not in name})
    plain.proj = nn.Identity()
    return plain(*inputs)


@pytest.mark.parametrize("norm", OWN)
def test_the_heads_are_gated_by_the_layers_own_input(norm):
    x, layer = draw(3, 7, 12), UFOAttention(**SIZE, norm=norm, output_gate=True).double()
    heads = heads_of(UFOAttention, layer, norm, x)
    gate = 1 / (1 + torch.exp(-(x @ layer.gate.weight.T + layer.gate.bias)))  # (B, N, A)
    wanted = (gate * heads) @ layer.proj.weight.T + layer.proj.bias
    torch.testing.assert_close(layer(x), wanted, rtol=1e-10, atol=1e-12)
    assert layer.gate.weight.shape == (8, 12)


@pytest.mark.parametrize("norm", OWN)
def test_class_attention_is_gated_by_the_class_token(norm):
    cls, patches = draw(3, 1, 12), draw(3, 7, 12, seed=1)
    layer = ClassAttention(**SIZE, norm=norm, output_gate=True).double()
    heads = heads_of(ClassAttention, layer, norm, cls, patches)
    gate = 1 / (1 + torch.exp(-(cls @ layer.gate.weight.T + layer.gate.bias)))  # (B, 1, A)
    wanted = (gate * heads) @ layer.proj.weight.T + layer.proj.bias
    torch.testing.assert_close(layer(cls, patches), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("bias", "share"), [(0.0, 0.5), (100.0, 1.0), (-100.0, 0.0)])
def test_a_gate_of_zero_weights_is_a_share_of_the_heads(bias, share):
    x, layer = draw(2, 5, 12), UFOAttention(**SIZE, norm="xnorm", output_gate=True).double()
    nn.init.zeros_(layer.gate.weight)
    nn.init.constant_(layer.gate.bias, bias)
    heads = heads_of(UFOAttention, layer, "xnorm", x)
    torch.testing.assert_close(layer(x), layer.proj(share * heads), rtol=1e-10, atol=1e-12)


def test_a_net_has_a_gate_in_every_attention_layer_that_starts_as_linear_layers_do():
    net, plain = pico(class_attention=2), pico(class_attention=2, output_gate=False)
    gates = {name: each for name, each in net.named_parameters() if ".gate." in name}
    assert set(gates) == {f"{layer}.gate.{part}" for layer in attention_layers(net) for part in ("weight", "bias")}
    for name, each in gates.items():
        assert each.std().item() == pytest.approx(0.02, rel=0.1) if "weight" in name else not each.any()
    own, others = dict(net.named_parameters()), dict(plain.named_parameters())
    assert own.keys() - gates.keys() == others.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in others.items())
    assert plain.state_dict().keys() == build("ufo_vit_pico", num_classes=10, class_attention=2).state_dict().keys()


@pytest.mark.parametrize("norm", OWN)
def test_every_normaliser_starts_from_the_same_weights_and_trains_all_of_them(norm):
    net = pico(norm=norm)
    assert shared_weights_hash(net) == shared_weights_hash(pico()) != shared_weights_hash(pico(output_gate=False))
    net.train()(draw(4, 3, 8, 8).float()).mul(draw(4, 10).float()).sum().backward()
    assert not [name for name, each in net.named_parameters() if each.grad is None or not each.grad.any()]


def test_every_module_runs_and_weights_alone_are_decayed():
    net = pico()
    check_every_module_runs(net.eval(), draw(2, 3, 8, 8).float())
    decayed, exempt = split_by_decay(net)
    assert "blocks.0.attn.gate.weight" in decayed
    assert "blocks.0.attn.gate.bias" in exempt


def test_the_net_in_timm_is_that_of_build():
    images = draw(2, 3, 8, 8).float()
    ours = pico(seed=3).eval()
    theirs = create_model("ufo_vit_pico", num_classes=10, output_gate=True, seed=3).eval()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert torch.equal(ours(images), theirs(images))
    assert not torch.equal(ours(images), pico(seed=3, output_gate=False).eval()(images))


def test_a_gated_net_loads_its_weights_and_no_other_does():
    net, other, plain = pico(), pico(seed=1), pico(output_gate=False)
    other.load_state_dict(net.state_dict())
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in other.state_dict().items())
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "blocks.0.attn.gate.weight"'):
        plain.load_state_dict(net.state_dict())
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "blocks.0.attn.gate.weight"'):
        net.load_state_dict(plain.state_dict())


def test_a_detectors_body_loads_a_gated_classifier_and_refuses_one_without():
    size = {"img_size": 32, "patch": 8}
    body, plain = (
        UFOBody(pico(**size, num_classes=0, class_attention=0, output_gate=gated)) for gated in (True, False)
    )
    classifier = pico(**size, seed=3)
    assert "blocks.0.attn.gate.weight" in load_classifier(body, classifier.state_dict()).taken
    assert torch.equal(body.net.blocks[0].attn.gate.weight, classifier.blocks[0].attn.gate.weight)
    with pytest.raises(ValueError, match=r"^the weights lack blocks\.0\.attn\.gate\.bias and 3 more, which the backb"):
        load_classifier(body, pico(**size, output_gate=False).state_dict())
    with pytest.raises(ValueError, match=r"^the backbone has no blocks\.0\.attn\.gate\.bias and 3 more, which the w"):
        load_classifier(plain, classifier.state_dict())


def test_matched_scale_matches_the_normalisers_output_before_the_gate():
    images = draw(16, 3, 8, 8).float()
    gains = [
        match_scale(pico(norm="single_l2", output_gate=gated), pico(output_gate=gated), images)["blocks.0.attn"]
        for gated in (True, False)
    ]
    assert gains[0] == gains[1], "the first layer has the same input with and without a gate"
    shut = pico(norm="single_l2")
    nn.init.constant_(shut.blocks[0].attn.gate.bias, -5.0)
    assert match_scale(shut, pico(), images)["blocks.0.attn"] == gains[0]


@pytest.mark.parametrize("value", ["off", "maybe", None, 1])
def test_a_gate_is_on_or_off(value):
    with pytest.raises(ValueError, match="output_gate must be True or False, got"):
        build("ufo_vit_pico", norm="xnorm", output_gate=value)
