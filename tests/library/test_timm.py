"""UFO-ViT in timm: what timm's own generic tests ask of every model, and that it is the net of `ufo.build`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay

import ufo.timm_models  # noqa: F401  # registers
from ablations.training.optimizer import split_by_decay
from ufo import NORMS, SIZES, build

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("ufo_vit_pico", "ufo_vit_nano", "ufo_vit_micro", "ufo_vit_deep12", "ufo_vit_deep24")
PX = 8


def make(name: str = "ufo_vit_pico", **options: object) -> torch.nn.Module:
    return timm.create_model(name, **({"num_classes": 10, "seed": 0} | options)).eval()


def draw(batch: int = 2, channels: int = 3, px: int = PX) -> torch.Tensor:
    return torch.randn(batch, channels, px, px, generator=torch.Generator().manual_seed(0))


def test_timm_knows_every_size():
    assert set(timm.list_models("ufo_vit*")) == set(SIZES)
    assert timm.list_models("ufo_vit*", pretrained=True) == []


@pytest.mark.parametrize("name", SMALL)
def test_forward(name):
    px = SIZES[name].img_size
    model = timm.create_model(name).eval()
    out = model(draw(1, 3, px))
    assert out.shape == (1, 1000)
    assert torch.isfinite(out).all()
    assert model.default_cfg is model.pretrained_cfg
    assert model.default_cfg["input_size"] == (3, px, px)
    assert model.default_cfg["architecture"] == name


@pytest.mark.parametrize("norm", NORMS)
def test_backward_reaches_every_parameter(norm):
    model = make(norm=norm, drop_path_rate=0.1).train()
    model(draw(4)).mean().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


@pytest.mark.parametrize("name", ["ufo_vit_pico", "ufo_vit_t"])
def test_default_cfg_names_the_classifier_and_the_first_convolution(name):
    model = timm.create_model(name)
    names = model.state_dict().keys()
    cfg = model.default_cfg
    assert f"{cfg['classifier']}.weight" in names
    assert f"{cfg['first_conv']}.weight" in names
    model.reset_classifier(0)
    assert f"{cfg['classifier']}.weight" not in model.state_dict()


@pytest.mark.parametrize("options", [{}, {"class_attention": 0}, {"lpi": False}, {"patch_embed": "linear"}])
@pytest.mark.parametrize("norm", ["xnorm", "softmax"])
def test_it_is_the_net_of_build(norm, options):
    model, images = make(norm=norm, seed=3, **options), draw()
    ours = build("ufo_vit_pico", norm=norm, num_classes=10, seed=3, **options).eval()
    assert model.state_dict().keys() == ours.state_dict().keys()
    torch.testing.assert_close(model(images), ours(images), rtol=0, atol=0)
    keep = torch.rand(len(ours.branches), 2, generator=torch.Generator().manual_seed(1)) > 0.5
    torch.testing.assert_close(model(images, keep), ours(images, keep), rtol=0, atol=0)
    ours.load_state_dict(model.state_dict())


@pytest.mark.parametrize("class_attention", [0, 2])
def test_features_and_head_make_the_whole(class_attention):
    model, images = make(class_attention=class_attention), draw()
    tokens = model.forward_features(images)
    assert tokens.shape == (2, 16 + (class_attention > 0), model.num_features)
    hidden = model.forward_head(tokens, pre_logits=True)
    assert hidden.shape == (2, model.head_hidden_size)
    torch.testing.assert_close(model.forward_head(tokens), model(images))
    torch.testing.assert_close(model.get_classifier()(hidden), model(images))


def test_no_classes_give_features():
    model, whole, images = make(num_classes=0), make(), draw()
    assert isinstance(model.get_classifier(), torch.nn.Identity)
    assert model(images).shape == (2, model.num_features)
    whole.reset_classifier(0)
    assert whole.num_classes == 0
    torch.testing.assert_close(whole(images), model(images))
    tokens = make(num_classes=0, global_pool="")(images)
    torch.testing.assert_close(tokens, model.forward_features(images))


def test_a_head_that_is_reset_is_the_one_it_would_have_had():
    model, images = make(num_classes=1000), draw()
    model.train().reset_classifier(7)
    assert model.head.training
    torch.testing.assert_close(model.eval()(images), make(num_classes=7)(images), rtol=0, atol=0)
    model.reset_classifier(7, global_pool="avg")
    torch.testing.assert_close(model(images), model.head(model.forward_features(images)[:, 1:].mean(1)))
    with pytest.raises(ValueError, match="must be '', avg or token, got 'max'"):
        model.reset_classifier(7, global_pool="max")
    with pytest.raises(ValueError, match="needs class attention"):
        make(class_attention=0, global_pool="token")


def test_other_channels_and_sizes():
    model = make(in_chans=1, img_size=(8, 12))
    assert model(torch.zeros(2, 1, 8, 12)).shape == (2, 10)
    assert model(torch.zeros(2, 1, 16, 16)).shape == (2, 10)
    assert model.pos_embed.shape[1:3] == (4, 6)
    assert make(patch_size=4, depth=3, embed_dim=64)(draw()).shape == (2, 10)


@pytest.mark.parametrize("out_indices", [None, (0, 2), (-1,), 2])
def test_features_only(out_indices):
    asked = {} if out_indices is None else {"out_indices": out_indices}
    extractor = timm.create_model("ufo_vit_nano", features_only=True, seed=0, **asked).eval()
    features = extractor(draw(2, 3, 32))
    assert len(features) == {None: 3, (0, 2): 2, (-1,): 1, 2: 2}[out_indices]
    for feature, channels, reduction in zip(
        features, extractor.feature_info.channels(), extractor.feature_info.reduction(), strict=True
    ):
        assert feature.shape == (2, channels, 32 // reduction, 32 // reduction)
    whole = timm.create_model("ufo_vit_nano", seed=0).eval()
    expected = whole.forward_intermediates(draw(2, 3, 32), indices=extractor.out_indices, intermediates_only=True)
    torch.testing.assert_close(features, expected, rtol=0, atol=0)
    left = dict(extractor.named_parameters())
    assert not [name for name in left if "head" in name or "class" in name or "cls" in name]
    extractor.train()(draw(2, 3, 32))[-1].sum().backward()
    assert not [name for name, p in left.items() if p.grad is None]


def test_features_of_the_published_sizes_have_stride_16():
    info = timm.create_model("ufo_vit_t", features_only=True, out_indices=(7, 11, 15, 23)).feature_info
    assert (info.channels(), info.reduction()) == ([192] * 4, [16] * 4)


def test_forward_intermediates():
    model, images = make(depth=3), draw()
    last, patches = model.forward_intermediates(images)
    torch.testing.assert_close(last, model.forward_features(images))
    assert [own.shape for own in patches] == [(2, 56, 4, 4)] * 3
    (of_last,) = model.forward_intermediates(images, indices=1, norm=True, output_fmt="NLC", intermediates_only=True)
    torch.testing.assert_close(of_last, last[:, 1:])  # class attention leaves the patches as they are
    early, (first,) = model.forward_intermediates(images, indices=[0], stop_early=True)
    torch.testing.assert_close(first, patches[0], rtol=0, atol=0)
    torch.testing.assert_close(early, model.norm(first.flatten(2).transpose(1, 2)))
    torch.testing.assert_close(early, make(depth=1, class_attention=0).forward_features(images))
    with pytest.raises(ValueError, match="must be NCHW or NLC, got 'NHWC'"):
        model.forward_intermediates(images, output_fmt="NHWC")
    with pytest.raises(IndexError, match="3 blocks"):
        model.forward_intermediates(images, indices=[3])


def test_checkpointing_changes_no_gradient():
    grads = []
    for enable in (False, True):
        model, seen = make(drop_path_rate=0.3).train(), []
        model.set_grad_checkpointing(enable)
        model.blocks[0].register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        keep = torch.rand(len(model.branches), 4, generator=torch.Generator().manual_seed(1)) > 0.3
        model(draw(4), keep).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
        assert len(seen) == 1 + enable
    torch.testing.assert_close(*grads)


def test_seeds():
    def weights(**options: object) -> torch.Tensor:
        return timm.create_model("ufo_vit_pico", **options).blocks[0].ff.fc1.weight

    def drawn(seed: int) -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return weights()

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    before = torch.get_rng_state()
    assert torch.equal(weights(seed=0), build("ufo_vit_pico", seed=0).blocks[0].ff.fc1.weight)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("norm", ["xnorm", "layernorm", "softmax"])
def test_timm_decays_what_we_decay(norm):
    model = make(norm=norm)
    decayed, _ = split_by_decay(model)
    exempt, matrices = param_groups_weight_decay(model, 0.05, no_weight_decay_list=model.no_weight_decay())
    assert exempt["weight_decay"] == 0
    assert {id(p) for p in matrices["params"]} == {id(p) for p in decayed.values()}


def test_depth_groups_take_in_every_parameter():
    model = make(depth=3)
    groups = param_groups_layer_decay(model, layer_decay=0.5, no_weight_decay_list=model.no_weight_decay())
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    # Embedding, three blocks, the class-attention block, with it LayerNorm and the head one group further.
    layers = [model.pos_embed, *(b.ff.fc1.weight for b in model.blocks), model.class_blocks[0].ff.fc1.weight]
    scales = [scale[id(p)] for p in (*layers, model.head.weight)]
    assert scales == [0.5**i for i in reversed(range(len(scales)))]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pretrained": True}, RuntimeError, "No pretrained weights exist for ufo_vit_pico"),
        ({"norm": "xnrom"}, ValueError, "did you mean 'xnorm'"),
        ({"drop_rat": 0.1}, TypeError, "drop_rat"),
        ({"out_indices": (0,)}, ValueError, "features_only"),
        ({"img_size": 9}, ValueError, "not a multiple of the patch"),
    ],
)
def test_a_wrong_argument_is_named(options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


def test_dropout_before_the_head_has_its_rate():
    model = make(drop_rate=0.9).train()
    hidden = model.forward_head(model.forward_features(draw()), pre_logits=True)
    assert 0.5 < (hidden == 0).float().mean() < 1


def run_without_timm(code: str) -> subprocess.CompletedProcess[str]:
    block = "import sys; sys.modules['timm'] = None\n"
    return subprocess.run([sys.executable, "-c", block + code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_without_timm_the_library_works_and_the_registration_says_what_it_needs():
    assert run_without_timm("import ufo; ufo.build('ufo_vit_pico')").returncode == 0
    last = run_without_timm("import ufo.timm_models").stderr.splitlines()[-1]
    assert last == "ModuleNotFoundError: ufo.timm_models needs timm: pip install 'timm>=1.0.20'"
