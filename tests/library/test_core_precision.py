"""The precision of attention's core: float32 under autocast, and no change without it."""

from __future__ import annotations

import pytest
import torch
from library.loops import OWN
from timm import create_model
from torch import Tensor, nn

import ufo.timm_models  # noqa: F401  # registers
from ufo import build
from ufo.attention import ClassAttention, UFOAttention
from ufo.scale import attention_layers, match_scale

SIZE = {"embed_dim": 12, "attn_dim": 8, "num_heads": 2}
HALF = (torch.bfloat16, torch.float16)


def pico(**options):
    return build("ufo_vit_pico", **{"num_classes": 10, "core_precision": "float32", **options})


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def call(layer: nn.Module, *inputs: Tensor, dtype: torch.dtype) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Return q, k and v, the normaliser's output, the projection's input, and the layer's output under autocast."""
    seen: list[object] = []
    handles = [
        layer.norm.register_forward_hook(lambda _, args, out: seen.extend((list(args), out))),
        layer.proj.register_forward_pre_hook(lambda _, args: seen.append(args[0])),
    ]
    with torch.autocast("cpu", dtype=dtype):
        out = layer(*inputs)
    for handle in handles:
        handle.remove()
    return (*seen, out)


def cancelling(core_precision: str) -> UFOAttention:
    """Return a layer whose context has entries of N and -N, which cancel in the output of `single_l2`."""
    layer = UFOAttention(embed_dim=2, attn_dim=2, num_heads=1, norm="single_l2", core_precision=core_precision)
    with torch.no_grad():
        layer.qkv.weight.zero_()
        layer.qkv.bias.copy_(torch.tensor([1.0, 1.0, 16.0, -16.0, 16.0, 16.0]))  # q, k, v of every token
    return layer


def test_a_context_beyond_float16_overflows_in_the_nets_own_precision_alone():
    tokens = draw(1, 1024, 2)  # entries of k^T v: 1,024 * 16 * 16 = 262,144, above float16's largest, 65,504
    own, wide = (call(cancelling(precision), tokens, dtype=torch.float16)[1] for precision in ("own", "float32"))
    assert not own.isfinite().any()
    assert torch.equal(wide, torch.zeros_like(wide))


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_single_l2_keeps_the_digits_that_its_own_precision_loses(dtype):
    errors = {}
    for precision in ("own", "float32"):
        layer = UFOAttention(**SIZE, norm="single_l2", core_precision=precision)
        torch.manual_seed(0)
        nn.init.normal_(layer.qkv.weight, std=0.5)
        nn.init.normal_(layer.qkv.bias, std=0.5)
        (q, k, v), found, _, _ = call(layer, draw(2, 196, 12), dtype=dtype)
        wanted = layer.norm.double()(q.double(), k.double(), v.double())
        errors[precision] = ((found.double() - wanted).square().mean() / wanted.square().mean()).sqrt().item()
    assert errors["float32"] < 1e-6
    assert errors["own"] > {torch.bfloat16: 2e-3, torch.float16: 2e-4}[dtype]


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("norm", OWN)
def test_the_core_alone_is_in_float32(norm, dtype):
    inputs = {UFOAttention: [draw(2, 7, 12)], ClassAttention: [draw(2, 1, 12), draw(2, 7, 12)]}
    for kind, own in inputs.items():
        for gated in (False, True):
            layer = kind(**SIZE, norm=norm, core_precision="float32", output_gate=gated)
            qkv, core, joined, out = call(layer, *own, dtype=dtype)
            assert {each.dtype for each in (*qkv, core)} == {torch.float32}
            assert (joined.dtype, out.dtype) == (dtype, dtype)
            wanted = layer.norm(*qkv)  # without autocast
            torch.testing.assert_close(core, wanted, rtol=0, atol=0)
            plain = kind(**SIZE, norm=norm)
            assert {each.dtype for each in call(plain, *own, dtype=dtype)[0]} == {dtype}


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("norm", OWN)
def test_every_parameter_receives_a_finite_gradient(norm, dtype):
    net = pico(norm=norm).train()
    with torch.autocast("cpu", dtype=dtype):
        out = net(draw(4, 3, 8, 8))
    (out.float() * draw(4, 10, seed=1)).sum().backward()
    assert not [name for name, each in net.named_parameters() if each.grad is None or not each.grad.any()]
    assert all(each.grad.isfinite().all() for each in net.parameters())


@pytest.mark.parametrize("norm", OWN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_it_changes_no_bit_without_autocast(norm, dtype):
    images = draw(2, 3, 8, 8).to(dtype)
    net, own = (pico(norm=norm, core_precision=precision).to(dtype).eval() for precision in ("float32", "own"))
    assert net.state_dict().keys() == own.state_dict().keys()
    assert torch.equal(net(images), own(images))


@pytest.mark.parametrize("norm", OWN)
def test_a_net_that_is_all_in_bfloat16_has_its_core_in_float32_too(norm):
    net, seen = pico(norm=norm).bfloat16().eval(), []
    for layer in attention_layers(net).values():
        layer.norm.register_forward_hook(lambda _module, args, _out: seen.extend(each.dtype for each in args))
    out = net(draw(2, 3, 8, 8).bfloat16())
    assert set(seen) == {torch.float32}
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()


def test_the_fixed_gain_of_a_matched_scale_applies_before_the_output_is_narrowed():
    layer = cancelling("float32")
    with torch.no_grad():
        layer.qkv.bias[3] = 16.0  # nothing cancels: an output of 1,024 * 16 * 16 * sqrt 2
    layer.matched_gain = torch.tensor(2.0**-18)
    _, _, joined, out = call(layer, draw(1, 1024, 2), dtype=torch.float16)
    torch.testing.assert_close(joined.float(), torch.full_like(joined, 2**0.5).float(), rtol=1e-3, atol=0)
    assert out.isfinite().all()


def test_matched_scale_under_autocast_has_gains_for_every_layer():
    images = draw(16, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gains = match_scale(pico(norm="single_l2"), pico(), images)
    assert len(gains) == 3
    assert gains == pytest.approx(match_scale(pico(norm="single_l2"), pico(), images), rel=0.05)


def test_the_net_in_timm_takes_it_too():
    images = draw(2, 3, 8, 8)
    nets = {
        precision: create_model("ufo_vit_pico", num_classes=10, core_precision=precision, seed=0).eval()
        for precision in ("own", "float32")
    }
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outs = {precision: net(images) for precision, net in nets.items()}
        assert torch.equal(outs["float32"], pico().eval()(images))
    assert not torch.equal(outs["float32"], outs["own"])


def test_a_net_without_memory_has_it():
    with torch.device("meta"):
        assert pico()(torch.empty(1, 3, 8, 8)).shape == (1, 10)


@pytest.mark.parametrize("name", ["half", "float64", ""])
def test_another_precision_is_refused(name):
    with pytest.raises(ValueError, match=rf"^core_precision must be one of own, float32, got '{name}'$"):
        pico(core_precision=name)


@pytest.mark.slow  # compiling takes half a minute
def test_a_compiled_net_agrees_with_an_eager_one_under_autocast():
    net, images = pico(depth=1, output_gate=True), draw(4, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        compiled = torch.compile(net, fullgraph=True)(images)
        torch.testing.assert_close(compiled, net(images), rtol=0.03, atol=0.03)  # bfloat16 has 8 bits
