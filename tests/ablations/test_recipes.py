"""The recipe: what is decayed, and the schedule."""

from __future__ import annotations

import pytest

import ufo
from ablations.recipes import build_optimizer, lr_share, split_by_decay
from ufo.norms import NORMS

OURS = [spec.name for spec in NORMS.values() if spec.group in ("paper", "control")]


@pytest.mark.parametrize("norm", OURS)
def test_matrices_alone_are_decayed(norm):
    net = ufo.build("ufo_vit_pico", norm=norm, num_classes=10)
    decayed, exempt = split_by_decay(net)
    assert all(parameter.ndim in (2, 4) for parameter in decayed.values())
    assert not [name for name in decayed if not name.endswith(".weight")]
    assert {name.split(".")[-1] for name in exempt} <= {
        *("weight", "bias", "layer_scale", "pos_embed", "cls_token", "gain_q", "gain_kv")
    }
    assert all(exempt[name].ndim == 1 for name in exempt if name.endswith(("weight", "bias")))
    for name in ("pos_embed", "cls_token", "blocks.1.attn_scale.layer_scale", "class_blocks.0.attn_norm.weight"):
        assert name in exempt
    assert {"patch_embed.0.weight", "blocks.0.lpi.conv1.weight", "blocks.1.attn.qkv.weight", "head.weight"} <= set(
        decayed
    )
    assert len(decayed) + len(exempt) == len(list(net.parameters()))


def test_the_optimiser_decays_what_is_to_be_decayed():
    net = ufo.build("ufo_vit_pico", num_classes=10)
    decayed, exempt = split_by_decay(net)
    groups = build_optimizer(net, lr=1e-3, weight_decay=0.07, fused=False).param_groups
    assert [group["weight_decay"] for group in groups] == [0.07, 0.0]
    assert [{id(p) for p in group["params"]} for group in groups] == [
        {id(p) for p in part.values()} for part in (decayed, exempt)
    ]


def test_the_schedule_rises_falls_and_ends_at_its_share():
    shares = [lr_share(step, num_steps=100, num_warmup_steps=10, min_share=0.01) for step in range(101)]
    assert shares[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert max(shares) == 1.0
    assert shares[100] == pytest.approx(0.01)
