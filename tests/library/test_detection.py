"""What a detector's backbone must do for every size and every normaliser, and where its weights come from."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

import ufo
from ufo.detection import (
    STRIDES,
    Body,
    Heads,
    PyramidBackbone,
    UFOBody,
    build_rcnn,
    load_classifier,
    replace_batch_norms,
    tap_blocks,
)
from ufo.init import shared_weights_hash

F_DIM = 16
HEADS = Heads(box_dim=32, mask_dim=16, anchor_scale=4, rois=32)
GREY = [0.5, 0.5, 0.5]


def make_body(name: str = "ufo_vit_pico", *, norm: str = "xnorm", patch: int | None = 8, **sizes) -> UFOBody:
    net = ufo.build(name, norm=norm, img_size=32, patch=patch, class_attention=0, num_classes=0, **sizes)
    return UFOBody(net)


def make_backbone(*, batch_norm="frozen", seed: int = 0, **body) -> PyramidBackbone:
    return PyramidBackbone(make_body(**body), fpn_dim=F_DIM, batch_norm=batch_norm, seed=seed)


def make_net(*, heads: Heads = HEADS, num_classes: int = 2, **backbone):
    return build_rcnn(
        make_backbone(**backbone), num_classes=num_classes, sides=(64, 96), mean=GREY, std=GREY, seed=0, heads=heads
    )


def one_square(side: int = 64) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    image = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(1, side, side, dtype=torch.uint8)
    masks[0, 10:40, 8:48] = 1
    target = {"boxes": torch.tensor([[8.0, 10.0, 48.0, 40.0]]), "labels": torch.tensor([1]), "masks": masks}
    return [image], [target]


def check_strides(maps: OrderedDict[str, Tensor], height: int, width: int) -> None:
    assert list(maps) == ["0", "1", "2", "3", "pool"]
    for stride, x in zip(STRIDES, maps.values(), strict=False):
        assert x.shape == (2, F_DIM, height // stride, width // stride)


@pytest.mark.parametrize("patch", [2, 4, 8, 16, 32])
def test_maps_have_the_four_strides_at_every_patch(patch: int):
    check_strides(make_backbone(patch=patch, embed_dim=64)(torch.rand(2, 3, 64, 96)), 64, 96)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ufo.SIZES if name not in ("ufo_vit_m", "ufo_vit_b")])
def test_maps_have_the_four_strides_at_every_size(name: str):
    check_strides(make_backbone(name=name, patch=None)(torch.rand(2, 3, 64, 64)), 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("norm", list(ufo.NORMS))
def test_every_normaliser_trains_a_detector_throughout(norm: str):
    net = make_net(norm=norm, batch_norm="sync", patch=16)
    net.train()
    loss = sum(net(*one_square()).values())
    loss.backward()
    lacking = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    assert not lacking
    wrong = [name for name, parameter in net.named_parameters() if not parameter.grad.isfinite().all()]
    assert not wrong
    shared = make_net(norm="xnorm", batch_norm="sync", patch=16)
    assert shared_weights_hash(net) == shared_weights_hash(shared), "the normaliser moved a weight that is not its own"


def test_an_image_of_any_size_is_padded_below_and_on_the_right():
    backbone = make_backbone(patch=8).eval()
    image = torch.rand(1, 3, 50, 70)
    padded = torch.zeros(1, 3, 64, 96)
    padded[:, :, :50, :70] = image
    torch.testing.assert_close(backbone(image), backbone(padded), rtol=0, atol=0)


def test_taps_are_the_sources_and_the_last_block_is_one():
    assert tap_blocks(12) == (4, 6, 8, 12)
    assert tap_blocks(24) == (8, 12, 16, 24)
    assert all(tap_blocks(depth)[-1] == depth and tap_blocks(depth)[0] >= 1 for depth in range(1, 40))


def test_each_tap_is_the_residual_stream_after_its_block():
    body = make_body(depth=4).eval()
    images = torch.rand(1, 3, 32, 32)
    x, grid = body.net.embed(images)
    rows = body.net.rows_by_block(images, None)
    after = []
    for block in body.net.blocks:
        x = block(x, grid, next(rows))
        after.append(x.view(1, *grid, -1).permute(0, 3, 1, 2))
    wanted = [after[number - 1] for number in tap_blocks(4)]
    torch.testing.assert_close(body(images), wanted, rtol=0, atol=0)


def test_a_map_comes_from_its_own_place():
    """A bright patch lights the same place of every map: neither transposed nor shifted."""

    class Averages(Body):
        def __init__(self) -> None:
            super().__init__(widths=[1] * 4, strides=[8] * 4)

        def forward(self, images: Tensor) -> list[Tensor]:
            return [nn.functional.avg_pool2d(images[:, :1], 8)] * 4

    backbone = PyramidBackbone(Averages(), fpn_dim=1, batch_norm="frozen", seed=0)
    images = torch.zeros(1, 3, 64, 96)
    images[:, :, 32:64, 64:96] = 1
    for resample, stride in zip(backbone.neck, STRIDES, strict=True):
        x = resample(backbone.body(images)[0])[0, 0]
        bright = (x - x[0, 0]).abs() > 1e-6
        wanted = torch.zeros(64 // stride, 96 // stride, dtype=torch.bool)
        wanted[32 // stride :, 64 // stride :] = True
        assert (bright == wanted).all()


def test_frozen_batch_norms_keep_statistics_and_factors_and_those_of_the_neck_are_new():
    backbone = make_backbone(patch=16).train()  # of four transposed convolutions
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items() if "running" in name}
    backbone(torch.rand(2, 3, 64, 64))["0"].sum().backward()
    moved = {name for name, tensor in before.items() if (backbone.state_dict()[name] != tensor).any()}
    assert moved
    assert all(name.startswith("neck.") for name in moved)
    assert len(moved) < len(before)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.body.modules())
    assert not [name for name, _ in backbone.body.named_parameters() if ".bn." in name]


def test_synchronised_batch_norms_take_the_statistics_of_the_batch():
    backbone = make_backbone(patch=4, batch_norm="sync").train()
    name = next(name for name in backbone.state_dict() if name.endswith("running_mean"))
    before = backbone.state_dict()[name].clone()
    backbone(torch.rand(2, 3, 64, 64))
    assert (backbone.state_dict()[name] != before).any()
    assert any(isinstance(module, nn.SyncBatchNorm) for module in backbone.modules())


def test_a_frozen_batch_norm_computes_what_an_evaluating_one_does():
    plain = nn.Sequential(nn.BatchNorm2d(3))
    plain(torch.rand(4, 3, 5, 5))
    images = torch.rand(2, 3, 5, 5)
    wanted = plain.eval()(images)
    replace_batch_norms(plain, "frozen")
    torch.testing.assert_close(plain.train()(images), wanted)


class NormAct(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: a dropout and an activation in one module with the BatchNorm."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


@pytest.mark.parametrize("batch_norm", ["frozen", "sync"])
def test_an_activation_within_a_batch_norm_stays(batch_norm):
    net = nn.Sequential(NormAct(3))
    net(torch.randn(4, 3, 5, 5))
    images = torch.randn(2, 3, 5, 5)
    wanted = net.eval()(images)
    replace_batch_norms(net, batch_norm)
    torch.testing.assert_close(net.eval()(images), wanted)
    assert wanted.min() == 0


@pytest.mark.parametrize("batch_norm", ["frozen", "sync"])
def test_a_batch_norm_with_more_in_it_is_refused(batch_norm):
    class Shifted(nn.BatchNorm2d):
        pass

    with pytest.raises(ValueError, match="a Shifted does more than normalise"):
        replace_batch_norms(nn.Sequential(Shifted(3)), batch_norm)


def test_the_seed_decides_every_weight_and_the_global_generator_none():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = make_net()
    assert (torch.get_rng_state() == state).all()
    torch.manual_seed(2)
    again, other = make_net(), make_net(seed=1)
    assert all((a == b).all() for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert (
        first.backbone.fpn.state_dict()["inner_blocks.0.0.weight"]
        != other.backbone.fpn.state_dict()["inner_blocks.0.0.weight"]
    ).any()


def test_the_heads_widths_move_no_other_weight():
    narrow, wide = make_net(), make_net(heads=Heads(box_dim=64, mask_dim=16, anchor_scale=4, rois=32))
    changed = {name for name, tensor in narrow.state_dict().items() if tensor.shape != wide.state_dict()[name].shape}
    assert changed
    assert all("box" in name for name in changed)
    same = narrow.state_dict().keys() - {name for name in narrow.state_dict() if "box" in name}
    assert all((narrow.state_dict()[name] == wide.state_dict()[name]).all() for name in same)


def test_evaluation_gives_boxes_and_masks_in_the_images_own_pixels():
    net = make_net().eval()
    net.roi_heads.score_thresh = 0.0
    (found,) = net([torch.rand(3, 40, 90)])
    assert len(found["boxes"])
    assert found["masks"].shape[1:] == (1, 40, 90)
    assert found["boxes"][:, 0::2].max() <= 90
    assert found["boxes"][:, 1::2].max() <= 40


def test_a_classifiers_weights_load_into_the_body_and_the_report_names_what_did_not():
    classifier = ufo.build("ufo_vit_pico", norm="l2", img_size=32, patch=8, num_classes=7, seed=3)
    body = make_body(norm="l2")
    report = load_classifier(body, classifier.state_dict())
    assert all((tensor == classifier.state_dict()[name]).all() for name, tensor in body.net.state_dict().items())
    assert set(report.taken) | set(report.left) == set(classifier.state_dict())
    assert {name.split(".")[0] for name in report.left} == {"cls_token", "class_blocks", "norm", "head"}
    assert str(report).startswith(f"{len(report.taken)} tensors taken, {len(report.left)} left out (class_blocks, ")


def test_loaded_statistics_survive_freezing():
    classifier = ufo.build("ufo_vit_pico", img_size=32, patch=8, num_classes=7)
    classifier.train()(torch.rand(8, 3, 64, 64))
    body = make_body()
    load_classifier(body, classifier.state_dict())
    backbone = PyramidBackbone(body, fpn_dim=F_DIM, batch_norm="frozen", seed=0)
    frozen = {name.removeprefix("body.net."): tensor for name, tensor in backbone.state_dict().items()}
    moved = [name for name in classifier.state_dict() if name.startswith("blocks.") and "running_mean" in name]
    assert moved
    assert all((frozen[name] == classifier.state_dict()[name]).all() for name in moved)
    assert any((frozen[name] != 0).any() for name in moved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("blocks.0.attn_norm.weight"), "the weights lack blocks.0.attn_norm.weight, which"),
        (lambda tensors: tensors.update(stray=torch.zeros(1)), "the backbone has no stray, which the weights have"),
        (
            lambda tensors: tensors.update({"pos_embed": torch.zeros(1, 2, 2, 56)}),
            r"pos_embed is \(1, 2, 2, 56\) in the weights and \(1, 4, 4, 56\) here",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(change, message: str):
    tensors = ufo.build("ufo_vit_pico", img_size=32, patch=8, num_classes=7).state_dict()
    change(tensors)
    with pytest.raises(ValueError, match=message):
        load_classifier(make_body(), tensors)


def test_a_body_with_a_class_token_is_refused():
    with pytest.raises(ValueError, match="class_attention=0, num_classes=0"):
        UFOBody(ufo.build("ufo_vit_pico", num_classes=7))
