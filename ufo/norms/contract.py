"""Base class, registry record and registration of normalisers.

Shapes and letters as in `ufo.norms`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from torch import Tensor, nn

from ufo.registry import Registry

N = TypeVar("N", bound="AttentionNorm")

Invariance = Literal["q_scale", "k_channels", "v_channels", "token_repeat"]
"""Change of the input that may leave the output unchanged: q scaled by a factor; each channel of k, or of v, scaled by
its own factor; every key and value repeated."""


class RegistrationError(ValueError):
    """Invalid registration of a normaliser: its name, group or invariances."""


Group = Literal["paper", "control", "related", "field", "plug-in"]


class AttentionNorm(nn.Module):
    """Base class of normalisers: ``forward(q, k, v)`` with the shapes of `ufo.norms`.

    Constructors must not draw random numbers. Norms must be computed in at least float32.

    Args:
        num_heads: h; a learnable gain per head has shape (h, 1, 1).
        key_dim: channels of q and k in one head.
        value_dim: channels of v in one head.
    """

    def __init__(self, *, num_heads: int, key_dim: int, value_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.value_dim = value_dim

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the attention output, (B, h, M, value_dim)."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class NormSpec:
    """Registry record of a normaliser.

    Args:
        name: name in lower snake case, the same on the command line, in files and in figures.
        label: label in figure legends.
        formula: one-line formula, in the letters of `ufo.norms`.
        source: paper and place, or the reason for including it.
        group: one of `Group`.
        linear: whether the cost grows linearly with N at M = N.
        cross: whether it supports one query and many keys, as class attention needs.
        needs_dk_eq_dv: whether key_dim must equal value_dim.
        invariances: all changes of `Invariance` that leave the output unchanged.
        caveat: sentence to show with its results; empty for none.
        latex: formula in LaTeX, without dollar signs; empty for none.
        instability: what is known of how its training fails, with the source; empty for nothing.
        cls: implementation.
    """

    name: str
    label: str
    formula: str
    source: str
    group: Group
    linear: bool
    cross: bool
    needs_dk_eq_dv: bool
    invariances: frozenset[Invariance]
    caveat: str
    latex: str
    instability: str
    cls: type[AttentionNorm]

    @property
    def is_plugin(self) -> bool:
        """Whether a plug-in has registered it, and not this library."""
        return self.cls.__module__.partition(".")[0] != "ufo"


NORMS: Registry[NormSpec] = Registry("normaliser")


def register(
    *,
    name: str,
    label: str,
    formula: str,
    source: str,
    group: Group = "plug-in",
    linear: bool = True,
    cross: bool = True,
    needs_dk_eq_dv: bool = False,
    invariances: set[Invariance],
    caveat: str = "",
    latex: str = "",
    instability: str = "",
) -> Callable[[type[N]], type[N]]:
    """Return a class decorator that registers a normaliser, with the arguments of `NormSpec`.

    A class with the same module and name, as from a reloaded plug-in, replaces the registered one.

    Raises:
        RegistrationError: the name is not lower snake case or is taken, or the group or an invariance is unknown.
    """
    if not name.isidentifier() or name != name.lower():
        raise RegistrationError(f"a normaliser's name must be lower snake case, not '{name}'")
    for what, given, valid in (("group", {group}, get_args(Group)), ("invariance", invariances, get_args(Invariance))):
        if unknown := sorted(set(given) - set(valid)):
            raise RegistrationError(f"normaliser '{name}': unknown {what} '{unknown[0]}'. Valid: {', '.join(valid)}")

    def add(cls: type[N]) -> type[N]:
        spec = NormSpec(
            name=name,
            label=label,
            formula=formula,
            source=source,
            group=group,
            linear=linear,
            cross=cross,
            needs_dk_eq_dv=needs_dk_eq_dv,
            invariances=frozenset(invariances),
            caveat=caveat,
            latex=latex,
            instability=instability,
            cls=cls,
        )
        known = NORMS[name].cls if name in NORMS else None
        reloaded = known is not None and (known.__module__, known.__qualname__) == (cls.__module__, cls.__qualname__)
        if known is not None and not reloaded:
            raise RegistrationError(f"normaliser '{name}' is already registered by {known.__module__}")
        (NORMS.replace if reloaded else NORMS.add)(name, spec)
        return cls

    return add


def build_norm(name: str, *, num_heads: int, key_dim: int, value_dim: int) -> AttentionNorm:
    """Build a normaliser by its registry name.

    Raises:
        UnknownNameError: the normaliser is unknown.
        ValueError: it needs key_dim = value_dim, but they differ.
    """
    spec = NORMS[name]
    if spec.needs_dk_eq_dv and key_dim != value_dim:
        raise ValueError(f"normaliser '{name}' needs key_dim = value_dim, not {key_dim} and {value_dim}")
    return spec.cls(num_heads=num_heads, key_dim=key_dim, value_dim=value_dim)
