"""Initial weights: each parameter from a stream of its own, keyed by the seed and its name."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest
import torch
from library.loops import OWN
from torch import nn

from ufo import build
from ufo.init import LINEAR_STD, init_parameters, keyed_generator, keyed_seed, shared_weights_hash
from ufo.norms import AttentionNorm
from ufo.testing import check_linear_std


def pico(**options):
    return build("ufo_vit_pico", **{"num_classes": 10, **options})


def weights(model):
    return dict(model.named_parameters())


def shared(model):
    """Return the parameters outside the normalisers, by name."""
    inside = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, AttentionNorm))
    return {name: p for name, p in model.named_parameters() if not name.startswith(inside)}


def drawn(model):
    """Name the parameters that are random at the start."""
    names = {"pos_embed", "cls_token"}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            names.add(f"{name}.weight")
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            names.add(f"{name}.bias")
    return names


def differing(first, second):
    """Name the parameters of both that are not bit-identical."""
    return {name for name in first.keys() & second.keys() if not torch.equal(first[name], second[name])}


@pytest.mark.parametrize("seed", [0, 1, 10_000])
def test_the_same_seed_gives_bit_identical_weights(seed):
    assert not differing(weights(pico(seed=seed)), weights(pico(seed=seed)))


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 2), (0, 10_000)])
def test_another_seed_moves_every_drawn_parameter_and_no_other(first, second):
    model = pico(seed=first)
    assert differing(weights(model), weights(pico(seed=second))) == drawn(model)


def test_the_default_seed_is_0():
    assert not differing(weights(pico()), weights(pico(seed=0)))


def test_no_two_parameters_share_a_stream():
    model = pico(depth=3, class_attention=2)
    values = {name: p.flatten() for name, p in model.named_parameters() if name in drawn(model)}
    for (first, a), (second, b) in itertools.combinations(values.items(), 2):
        length = min(len(a), len(b), 32)
        # A normal and a uniform draw from one stream are ordered alike.
        assert not torch.equal(a[:length].argsort(), b[:length].argsort()), f"{first} and {second}"


@pytest.mark.parametrize("norm", OWN)
def test_every_normaliser_starts_from_the_same_shared_weights(norm):
    reference, model = pico(norm="xnorm"), pico(norm=norm)
    assert shared(model).keys() == shared(reference).keys()
    assert not differing(shared(model), shared(reference))
    assert shared_weights_hash(model) == shared_weights_hash(reference)


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        ({"lpi": False}, "lpi"),
        ({"class_attention": 0}, "class_blocks"),
        ({"class_attention": 3}, None),
        ({"depth": 1}, "blocks.1"),
        ({"depth": 4}, None),
        ({"drop_path": 0.3}, None),
    ],
)
def test_a_part_more_or_less_moves_no_other_weight(options, gone):
    whole, other = weights(pico()), weights(pico(**options))
    assert not differing(whole, other)
    missing = whole.keys() - other.keys()
    assert bool(missing) == (gone is not None)
    assert all(gone in name or name == "cls_token" for name in missing)


def test_the_global_generator_neither_matters_nor_moves():
    torch.manual_seed(1)
    first = pico()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = pico()
    assert torch.equal(state, torch.get_rng_state())
    assert not differing(weights(first), weights(second))


def test_the_hash_sees_one_bit_outside_the_normalisers_and_nothing_inside():
    model = pico()
    before = shared_weights_hash(model)
    nn.init.constant_(model.blocks[0].attn.norm.gain_q, 7.0)
    assert shared_weights_hash(model) == before
    with torch.no_grad():
        weight = model.head.weight[3, 5]
        model.head.weight[3, 5] = torch.nextafter(weight, weight + 1)
    assert shared_weights_hash(model) != before


def test_the_hash_depends_on_the_seed():
    assert len({shared_weights_hash(pico(seed=seed)) for seed in range(4)}) == 4


@pytest.mark.parametrize("name", ["ufo_vit_pico", "ufo_vit_nano", "ufo_vit_micro", "ufo_vit_deep12", "ufo_vit_t"])
def test_linear_weights_start_at_std_002(name):
    check_linear_std(build(name))


def test_every_kind_of_parameter_starts_as_laid_down():
    model = build("ufo_vit_nano", num_classes=10)
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            assert bool((module.weight == 1).all()), name
            assert not module.bias.any(), name
        if isinstance(module, nn.Conv2d):
            bound = (module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]) ** -0.5
            for parameter in module.parameters():
                assert 0.8 * bound < parameter.abs().max().item() <= bound, name
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.cls_token.std().item() == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize("module", [nn.Embedding(3, 4), nn.ConvTranspose2d(2, 2, 2), nn.Bilinear(2, 2, 2)])
def test_a_parameter_whose_start_is_not_laid_down_is_refused(module):
    model = pico()
    model.extra = module
    with pytest.raises(TypeError, match=rf"no initialisation rule for extra\.weight of a {type(module).__name__}"):
        init_parameters(model, seed=0)


def test_init_parameters_fills_in_place_what_build_gives():
    model, fresh = pico(seed=3), pico(seed=3)
    with torch.no_grad():
        for name, parameter in shared(model).items():
            if not name.endswith("layer_scale"):
                parameter.fill_(9.0)
    nn.init.constant_(model.blocks[0].attn.norm.gain_q, 7.0)
    init_parameters(model, seed=3)
    assert differing(weights(model), weights(fresh)) == {"blocks.0.attn.norm.gain_q"}


def test_keyed_seed_is_the_derivation_that_results_were_made_with():
    assert keyed_seed(0) == 3456079177858693020
    assert keyed_seed(0, "init", "head.weight") == 543422168210205445
    assert keyed_seed(1, "order", 12) == 3696623112803801536
    assert keyed_generator(1, "order", 12).initial_seed() == keyed_seed(1, "order", 12)


def test_keyed_seeds_fit_63_bits_and_do_not_collide():
    keys = itertools.product(range(20), ("init", "order", "augment"), range(20))
    seeds = [keyed_seed(seed, stream, epoch) for seed, stream, epoch in keys]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


def test_a_half_net_has_a_hash():
    half = pico().bfloat16()
    assert shared_weights_hash(half) == shared_weights_hash(pico(norm="l2").bfloat16()) != shared_weights_hash(pico())


def test_a_key_whose_parts_could_be_confused_is_refused():
    with pytest.raises(AssertionError, match="a slash joins the parts"):
        keyed_seed(0, "a/b")


GOLDEN_HASH = "3799795e59934491"


def test_the_weights_are_golden_so_that_seeds_mean_the_same_with_every_torch():
    assert shared_weights_hash(build("ufo_vit_pico", num_classes=10)) == GOLDEN_HASH


@pytest.mark.process
@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_a_processors_vector_width_changes_no_bit(capability):
    code = "from ufo import build, init; print(init.shared_weights_hash(build('ufo_vit_pico', num_classes=10)))"
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == GOLDEN_HASH


def test_no_weight_lies_far_out():
    """Inverting a uniform draw in float32, as torch 2.11's truncated normal does, gives -2 once in 2^24 weights."""
    model = build("ufo_vit_t", num_classes=10)
    linear = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    assert max(weight.abs().max() for weight in linear) < 6.5 * LINEAR_STD
