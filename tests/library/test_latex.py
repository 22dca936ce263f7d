"""The mathematics of the registry: every normaliser has a formula in LaTeX that GitHub renders."""

from __future__ import annotations

import re

import pytest

from ufo.norms import NORMS

OURS = [spec.name for spec in NORMS.values() if not spec.is_plugin]

REFUSED = ("$", "`", r"\operatorname", r"\mbox", r"\phantom", r"\newcommand", r"\def", r"\label")
"""What GitHub's renderer refuses, or what ends a block of mathematics in Markdown."""


def depth_after(text: str, *, opens: str, closes: str) -> list[int]:
    """Return the depth of nesting after each delimiter, escaped ones left out."""
    depth, depths = 0, []
    for mark in re.findall(r"\\.|[{}]", text):
        depth += (mark == opens) - (mark == closes)
        depths.append(depth)
    return depths


@pytest.mark.parametrize("name", OURS)
def test_a_normaliser_has_latex(name):
    assert NORMS[name].latex.strip()


@pytest.mark.parametrize("name", OURS)
def test_its_braces_balance(name):
    depths = depth_after(NORMS[name].latex, opens="{", closes="}")
    assert min(depths) >= 0
    assert depths[-1] == 0


@pytest.mark.parametrize("name", OURS)
def test_its_delimiters_and_environments_are_closed(name):
    latex = NORMS[name].latex
    assert len(re.findall(r"\\left(?![a-z])", latex)) == len(re.findall(r"\\right(?![a-z])", latex))
    assert re.findall(r"\\begin\{(\w+)\}", latex) == re.findall(r"\\end\{(\w+)\}", latex)


@pytest.mark.parametrize("name", OURS)
def test_github_renders_it(name):
    assert [refused for refused in REFUSED if refused in NORMS[name].latex] == []
    assert "\n\n" not in NORMS[name].latex


@pytest.mark.parametrize("name", OURS)
def test_what_is_known_of_its_instability_has_a_source(name):
    text = NORMS[name].instability
    assert not text or re.search(r"arXiv \d{4}\.\d{4,5}|https://", text)


def test_some_instabilities_are_known():
    assert NORMS["softmax"].instability
    assert NORMS["elu"].instability
    assert not NORMS["xnorm_fixed"].instability
