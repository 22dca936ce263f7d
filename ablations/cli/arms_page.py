"""The page of arms, from the registry of normalisers: mathematics, cost, invariances, parameters, sources."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import torch

from ablations.bench.start import MEAN_STD
from ablations.cli.bench_start import StartOptions
from ablations.config.seeds import parse_seeds
from ablations.report.text import markdown_text
from ufo.flops import count_products
from ufo.norms import CONTRASTS, INTERACTIONS, NORMS, NormSpec, build_norm
from ufo.norms.contract import Group, Invariance
from ufo.norms.contrasts import Contrast, Interaction

COUNTED_TOKENS, COUNTED_DIM = (196, 3136), 16
"""Numbers of tokens and width of a head of the counted multiply-adds."""

GROUPS: dict[Group, str] = {
    "paper": "XNorm and the alternatives of its paper's ablation.",
    "control": "Each differs from another arm in one factor.",
    "related": "Replacements for softmax in other linear attentions.",
    "field": "Cores of further attentions, without what stands around them in their papers.",
    "plug-in": "Registered by a plug-in.",
}
"""Group to its description."""

CHANGES: dict[Invariance, str] = {
    "q_scale": "q times a factor",
    "k_channels": "each channel of k times its own factor",
    "v_channels": "each channel of v times its own factor",
    "token_repeat": "every key and value twice",
}
"""Invariance to the change of the input in words."""

INTRODUCTION = """\
# Arms

Every normaliser as mathematics, from the registry. `python -m ablations list norms --page` prints this page, with
`--plugin my_module` also your own. [normalisers.md](normalisers.md) has them in one table and says how to add one.

- One head: q, k and v have a row for each token and d columns, the channels. N is the number of keys, h that of heads.
- o is the output. As indices, i is a query, j and l are keys, a and b are channels of q and k, and c is one of v.
- One index is a row, as $`q_i`$; an index after a star is a column, as $`q_{\\ast a}`$.
- S is the context, with the channels of k as rows and those of v as columns.
- Learnable are $`g_q`$, $`g_{kv}`$ and t, one value for each head, and where they are no index, a, b, w, $`\\theta`$
  and $`\\delta`$. "Learnable" has the names and shapes.
- s is $`1 / \\sqrt{d}`$. A bar over a letter is a mean over the tokens.
- Double bars are the Euclidean norm, the root of a sum of squares to which 1e-6 is added if it can be 0. With the index
  h, they and RMSNorm are over the channels of all heads.
- A denominator that is a sum or a mean of weights has at most 1e-6 added to the mean, which the formulas leave out.
- Multiply-adds are those of the matrix products of one head of d = %(dim)d, as many queries as keys.
- Cross attention is that of one query to many keys, as in class attention.
- "Unchanged by" names every change of the input, among these, that leaves the output unchanged:
%(changes)s
"""

START = """
## Scale at the start

RMS of the attention output at initialisation and, in brackets, its 1 %% and 99 %% quantiles, over all entries of
%(seeds)d seeds. One head of d = %(dim)d. Each entry of q, k and v is unit normal noise plus the mean of its channel,
which all tokens share; these means are normal with a standard deviation of %(mean_std)g. All arms see the same draws.
Norms over the channels of all heads are over those of the one: with h heads the output of `hydra` is about h times
smaller.
Single seeds differ: over 100 of them the RMS of `none` at N = 784 has a standard deviation of 27 %% of its mean.

<!-- python -m ablations bench start --markdown -->
%(table)s<!-- end -->

Arms whose outputs differ in size by orders of magnitude differ in more than their function; `--scale matched` removes
this difference ([output scale](normalisers.md#output-scale)).
"""


def arms_page(table: str) -> str:
    """Return the page of all registered normalisers, as Markdown that GitHub renders.

    Args:
        table: output scale at initialisation, a Markdown table.
    """
    options = StartOptions()
    parts = [INTRODUCTION % {"dim": COUNTED_DIM, "changes": _nested(CHANGES.values())}]
    for group, description in GROUPS.items():
        own = [spec for spec in NORMS.values() if spec.group == group]
        parts += [f"\n## Group: {group}\n\n{description}\n"] if own else []
        parts += map(_section, own)
    measured = {"seeds": len(parse_seeds(options.seeds)), "dim": options.head_dim, "mean_std": MEAN_STD, "table": table}
    return "".join([*parts, START % measured])


def cost_text(spec: NormSpec) -> str:
    """Describe the cost: its order, and the counted multiply-adds.

    >>> cost_text(NORMS["xnorm"])
    '$`O(N d^2)`$; 100,352 multiply-adds at N = 196, 1,605,632 at N = 3,136'
    """
    few, many = COUNTED_TOKENS
    products, elementwise = _multiply_adds(spec, tokens=few, dim=COUNTED_DIM)
    products_at_many, elementwise_at_many = _multiply_adds(spec, tokens=many, dim=COUNTED_DIM)
    tokens = "N" if spec.linear else "N^2"
    if not products:
        counts = f"{elementwise:,} elementwise multiplications at N = {few:,}, {elementwise_at_many:,} at N = {many:,}"
        return f"$`O({tokens} d)`$; no matrix product; {counts}"
    power = round(math.log2(_multiply_adds(spec, tokens=few, dim=2 * COUNTED_DIM)[0] / products))
    order = f"{tokens} d" + (f"^{power}" if power > 1 else "")
    return f"$`O({order})`$; {products:,} multiply-adds at N = {few:,}, {products_at_many:,} at N = {many:,}"


def parameters_text(spec: NormSpec) -> str:
    """Name the learnable parameters with their shapes in h and d, and their initial values.

    >>> parameters_text(NORMS["xca"]), parameters_text(NORMS["l2"])
    ('`temperature` (h, 1, 1), initially 1', 'none')
    """
    h, d = 3, 10  # every product below is another number, and d is even
    sizes = {1: "1", h: "h", d: "d", 2 * d: "2 d", d // 2: "d / 2", h * d: "h d", 2 * h * d: "2 h d"}
    module = build_norm(spec.name, num_heads=h, key_dim=d, value_dim=d)
    texts = []
    for name, parameter in module.named_parameters():
        shape = ", ".join(sizes.get(size, str(size)) for size in parameter.shape)
        low, high = parameter.min().item(), parameter.max().item()
        start = f"initially {low:.3g}" if low == high else f"initially {low:.3g} to {high:.3g}"
        texts.append(f"`{name}` ({shape}), {start}")
    return "; ".join(texts) or "none"


def _section(spec: NormSpec) -> str:
    """Return the section of a normaliser: its formula, and a list of what is known of it."""
    formula = f"```math\n{spec.latex}\n```" if spec.latex else f"```text\n{spec.formula}\n```"
    lines = {
        "Cost": cost_text(spec),
        "Unchanged by": "; ".join(CHANGES[name] for name in CHANGES if name in spec.invariances)
        or "none of the changes above",
        "Cross attention": "yes" if spec.cross else "no; class attention uses softmax in its place",
        "Widths": "v must have as many channels as k" if spec.needs_dk_eq_dv else "",
        "Learnable": parameters_text(spec),
        "Source": markdown_text(spec.source),
        "Instability": markdown_text(spec.instability),
        "Caveat": markdown_text(spec.caveat),
        "Contrasts": _nested(_contrasts(spec.name)),
    }
    items = "".join(f"- **{title}**:{_after_colon(text)}\n" for title, text in lines.items() if text)
    return f"\n### {markdown_text(spec.label)} (`{spec.name}`)\n\n{formula}\n\n{items}"


def _contrasts(name: str) -> list[str]:
    """Return the contrasts and interactions that a normaliser is in, with what they isolate."""
    found: list[Contrast | Interaction] = [each for each in CONTRASTS if name in (each.arm, each.minus)]
    found += [each for each in INTERACTIONS if {each.first, each.second} & set(found)]
    return [f"`{_difference(each)}`: {each.isolates}" for each in found]


def _nested(items: Iterable[str]) -> str:
    """Return items of a list within one of another list."""
    return "\n".join(f"  - {item}" for item in items)


def _after_colon(text: str) -> str:
    return f"\n{text}" if text.startswith("  - ") else f" {text}"


def _difference(contrast: Contrast | Interaction) -> str:
    if isinstance(contrast, Interaction):
        return f"({_difference(contrast.first)}) - ({_difference(contrast.second)})"
    return f"{contrast.arm} - {contrast.minus}"


def _multiply_adds(spec: NormSpec, *, tokens: int, dim: int) -> tuple[int, int]:
    """Count the multiply-adds of one head's matrix products, and its elementwise multiplications, without computing."""
    with torch.device("meta"):
        module = build_norm(spec.name, num_heads=1, key_dim=dim, value_dim=dim)
        q, k, v = (torch.empty(1, 1, tokens, dim) for _ in range(3))
        with torch.no_grad():
            return count_products(partial(module, q, k, v))
