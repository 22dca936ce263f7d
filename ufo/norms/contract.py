"""What a normaliser is, what the registry knows of it, and how one becomes known.

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
"""A change of the input that may leave the output as it is: q times a factor; each channel of k, or of v, times a
factor of its own; every key and value given twice."""


class RegistrationError(ValueError):
    """A normaliser that cannot be registered as it is written: its name, its group or its invariances."""


Group = Literal["paper", "control", "related", "plug-in"]


class AttentionNorm(nn.Module):
    """Base of every normaliser: ``forward(q, k, v)`` with the shapes of the module's head.

    The constructor draws no random numbers, and computes norms in at least float32.

    Args:
        num_heads: h; a learnable gain per head has the shape (h, 1, 1).
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
    """What the registry knows of a normaliser.

    Args:
        name: lower snake case; the same on the command line, in files and in figures.
        label: as a figure's legend writes it.
        formula: one line, in the letters of `ufo.norms`.
        source: paper and place, or why it is here.
        group: one of `Group`.
        linear: whether its cost grows linearly with N at M = N.
        cross: whether it can serve one query against many keys, as class attention needs.
        needs_dk_eq_dv: whether key_dim must equal value_dim.
        invariances: exactly the changes of `Invariance` that leave its output as it is.
        caveat: one sentence that stands wherever its result is shown; empty where there is none.
        cls: the class.
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
    cls: type[AttentionNorm]


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
) -> Callable[[type[N]], type[N]]:
    """Class decorator: make a normaliser known under its name. Arguments as `NormSpec`.

    A class that comes again from the same module under the same name (a reloaded plug-in) takes the old one's place.

    Raises:
        RegistrationError: the name is no lower snake case, another class has it, or a group or an invariance is none.
    """
    if not name.isidentifier() or name != name.lower():
        raise RegistrationError(f"a normaliser's name is lower snake case, not '{name}'")
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
            cls=cls,
        )
        known = NORMS[name].cls if name in NORMS else None
        reloaded = known is not None and (known.__module__, known.__qualname__) == (cls.__module__, cls.__qualname__)
        if known is not None and not reloaded:
            raise RegistrationError(f"normaliser '{name}' is registered already, by {known.__module__}")
        (NORMS.replace if reloaded else NORMS.add)(name, spec)
        return cls

    return add


def build_norm(name: str, *, num_heads: int, key_dim: int, value_dim: int) -> AttentionNorm:
    """Build a normaliser by its registry name.

    Raises:
        UnknownNameError: no such normaliser.
        ValueError: it needs key_dim = value_dim, and they differ.
    """
    spec = NORMS[name]
    if spec.needs_dk_eq_dv and key_dim != value_dim:
        raise ValueError(f"normaliser '{name}' needs key_dim = value_dim, not {key_dim} and {value_dim}")
    return spec.cls(num_heads=num_heads, key_dim=key_dim, value_dim=value_dim)
