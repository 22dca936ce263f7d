"""The page of arms is what the registry gives, and its parts are what the normalisers are."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
import torch

from ablations.cli import bench_start
from ablations.cli.arms_page import GROUPS, arms_page, cost_text, parameters_text
from ablations.cli.bench_start import StartOptions
from ufo.norms import CONTRASTS, NORMS, AttentionNorm, build_norm, register
from ufo.norms.contract import Group, Invariance
from ufo.testing import draw_qkv

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "arms.md").read_text()
TABLE = re.compile(r"<!-- python -m ablations bench start --markdown -->\n(.*?)<!-- end -->\n", re.DOTALL)


@pytest.fixture
def registry(monkeypatch):
    """Forget afterwards what a test registers."""
    monkeypatch.setattr(NORMS, "_entries", dict(NORMS._entries))


def committed_table() -> str:
    match = TABLE.search(PAGE)
    assert match is not None
    return match[1]


def section(page: str, name: str) -> str:
    """Return the part of a page on one normaliser."""
    start = page.index(f"(`{name}`)\n")
    return page[start:].partition("\n#")[0]


def test_all_but_the_measured_numbers_is_the_registrys():
    assert arms_page(committed_table()).splitlines() == PAGE.splitlines()


@pytest.mark.slow
def test_the_whole_page_is_the_commands(cli, full, monkeypatch):
    """The column of the most tokens takes most of the time, and is left out but at full length."""
    page = PAGE
    if not full:
        monkeypatch.setattr(bench_start, "StartOptions", partial(StartOptions, tokens=(64, 196, 784)))
        shorter = "".join(f"{line.rpartition(' | ')[0]} |\n" for line in committed_table().splitlines())
        page = PAGE.replace(committed_table(), shorter)
    code, out, err = cli("list", "norms", "--page")
    assert code == 0, err
    assert out.splitlines() == page.splitlines()


def test_every_normaliser_has_a_row_of_the_table_and_a_section_with_its_formula():
    names = [line.split("|")[1].strip() for line in committed_table().splitlines()[2:]]
    ours = [spec.name for spec in NORMS.values() if not spec.is_plugin]
    assert names == ours
    for name in ours:
        assert f"```math\n{NORMS[name].latex}\n```" in section(PAGE, name)


def test_the_groups_are_those_of_the_registry():
    assert set(GROUPS) == set(get_args(Group))


def test_every_invariance_is_in_words():
    for spec in NORMS.values():
        line = re.search(r"^- \*\*Unchanged by\*\*: (.*)$", section(PAGE, spec.name), re.MULTILINE)
        assert line is not None
        assert len(line[1].split("; ")) == max(1, len(spec.invariances))
        assert not set(get_args(Invariance)) & set(re.findall(r"\w+", line[1]))


def test_each_contrast_is_at_both_of_its_arms():
    for contrast in CONTRASTS:
        for name in (contrast.arm, contrast.minus):
            assert f"`{contrast.arm} - {contrast.minus}`: {contrast.isolates}" in section(PAGE, name)


@pytest.mark.parametrize(
    ("norm", "order", "counts"),
    [
        ("xnorm", "N d^2", (2 * 196 * 16**2, 2 * 3136 * 16**2)),
        ("softmax", "N^2 d", (2 * 196**2 * 16, 2 * 3136**2 * 16)),
        ("elu", "N d^2", (2 * 196 * 16**2 + 196 * 16, 2 * 3136 * 16**2 + 3136 * 16)),
    ],
)
def test_the_cost_is_the_counted_one(norm, order, counts):
    assert cost_text(NORMS[norm]) == (
        f"$`O({order})`$; {counts[0]:,} multiply-adds at N = 196, {counts[1]:,} at N = 3,136"
    )


def test_a_normaliser_without_a_matrix_product_is_linear_in_the_channels(registry):
    @register(name="elementwise", label="q k v", formula="q k v", source="a test", invariances=set())
    class Elementwise(AttentionNorm):
        def forward(self, q, k, v):
            return q * (k * v).sum(-2, keepdim=True)

    assert cost_text(NORMS["elementwise"]) == (
        f"$`O(N d)`$; no matrix product; {2 * 196 * 16:,} elementwise multiplications at N = 196, "
        f"{2 * 3136 * 16:,} at N = 3,136"
    )
    assert "no matrix product; 12,936 elementwise multiplications" in section(PAGE, "hydra")


@pytest.mark.parametrize("name", [spec.name for spec in NORMS.values() if not spec.is_plugin])
def test_a_formula_says_whether_its_norms_are_over_all_heads(name):
    norm = build_norm(name, num_heads=2, key_dim=4, value_dim=4).double()
    inputs = draw_qkv(norm, queries=13)
    others = [x.clone() for x in inputs]
    for x in others:
        x[:, 1] *= 3
    over_all = not torch.allclose(norm(*inputs)[:, 0], norm(*others)[:, 0])
    assert (re.search(r"(\\rVert|\\mathrm\{RMSNorm\})_h", NORMS[name].latex) is not None) == over_all
    assert ("channels of all heads" in NORMS[name].formula) == over_all


def test_learnable_parameters_have_their_shapes_and_initial_values():
    assert parameters_text(NORMS["softmax"]) == "none"
    assert parameters_text(NORMS["xca"]) == "`temperature` (h, 1, 1), initially 1"
    assert parameters_text(NORMS["layernorm"]) == (
        "`norm_q.weight` (d), initially 1; `norm_q.bias` (d), initially 0; "
        "`norm_kv.weight` (d), initially 1; `norm_kv.bias` (d), initially 0"
    )
    assert len(list(build_norm("xnorm", num_heads=1, key_dim=2, value_dim=2).parameters())) == 2
    assert parameters_text(NORMS["xnorm"]).count("(h, 1, 1), initially 1") == 2


def test_a_plug_in_without_latex_has_its_line_of_text_and_nothing_of_it_is_markdown(registry):
    @register(name="mine", label="m*ne_", formula="q | v", source="[a](b)", invariances=set(), cross=False)
    class Mine(AttentionNorm):
        def forward(self, q, k, v):
            return q

    own = section(arms_page("table\n"), "mine")
    assert "```text\nq | v\n```" in own
    assert r"\[a\](b)" in own
    assert "- **Cross attention**: no; class attention uses softmax in its place" in own
    assert "- **Unchanged by**: none of the changes above" in own
    assert r"### m\*ne\_ (`mine`)" in arms_page("table\n")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("models", "--page"), "--page does not apply to models: give list norms --page"),
        (("norms", "--page", "--json"), "give --json or --page, not both"),
        (("norms", "--page", "--markdown"), "give --markdown or --page, not both"),
    ],
)
def test_a_wrong_use_of_the_page_is_one_line(cli, given, message):
    code, out, err = cli("list", *given)
    assert (code, out) == (2, "")
    assert err == f"error: {message}\n"
