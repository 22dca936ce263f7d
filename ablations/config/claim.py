"""A claim: what a study is asked to support or to contradict, said before its first cell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ablations.config.errors import UsageError, first_error

Kind = Literal[
    "greater_than",
    "worse_by",
    "better_than_every_other",
    "equivalent_within",
    "fails_to_train",
    "fails_at_any_lr",
    "cost_linear_in_tokens",
]

WITH_OTHER = ("greater_than", "worse_by", "equivalent_within")
OF_TRIALS = ("fails_at_any_lr",)
"""Kinds that the trials of a tuning decide; its winners decide the others."""

WITH_MARGIN = ("worse_by", "equivalent_within")


class Claim(BaseModel):
    """One sentence about one arm that the numbers can support or contradict.

    Args:
        kind: what is said, one of `Kind`.
        arm: of which arm.
        than: the arm that it is compared with, for the kinds that compare it with one.
        margin_pct: in points of accuracy, for ``worse_by`` and ``equivalent_within``.
        source: where it is said, or why it is asked.
        post_hoc: added or changed when cells of the study had been run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    arm: Annotated[str, Field(min_length=1)]
    than: str | None = None
    margin_pct: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | None = None
    source: str = ""
    post_hoc: bool = False

    @model_validator(mode="after")
    def _is_complete(self) -> Claim:
        for field, kinds in (("than", WITH_OTHER), ("margin_pct", WITH_MARGIN)):
            given = getattr(self, field) is not None
            if given != (self.kind in kinds):
                raise ValueError(f"{self.kind} {'takes no' if given else 'needs'} {field}")
        if self.than == self.arm:
            raise ValueError(f"{self.arm} cannot be compared with itself")
        return self

    @property
    def arms(self) -> list[str]:
        """The arms that are named."""
        return [self.arm] if self.than is None else [self.arm, self.than]

    @property
    def statement(self) -> str:
        """The claim as a sentence.

        >>> Claim(kind="worse_by", arm="single_l2", than="xnorm", margin_pct=1).statement
        'single_l2 is worse than xnorm by at least 1 point'
        """
        points = f"{self.margin_pct:g} point{'s' * (self.margin_pct != 1)}" if self.margin_pct is not None else ""
        return {
            "greater_than": f"{self.arm} is better than {self.than}",
            "worse_by": f"{self.arm} is worse than {self.than} by at least {points}",
            "better_than_every_other": f"{self.arm} is better than every other arm",
            "equivalent_within": f"{self.arm} and {self.than} are equivalent within {points}",
            "fails_to_train": f"{self.arm} fails to train",
            "fails_at_any_lr": f"{self.arm} fails to train at any learning rate in the range",
            "cost_linear_in_tokens": f"the cost of {self.arm} is linear in the number of tokens",
        }[self.kind]


def parse_claims(values: Any) -> tuple[Claim, ...]:
    """Read the claims of an experiment file.

    Raises:
        UsageError: no list, a key or a value that is none, or a claim that comes twice.
    """
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise UsageError(f"claims is a list of claims, each with kind and arm, not {values!r}")
    claims: list[Claim] = []
    for value in values:
        try:
            claim = Claim.model_validate(value)
        except ValidationError as error:
            raise UsageError(f"claim {value}: {first_error(error)}") from None
        if claim.post_hoc:
            raise UsageError(f"claim {value}: whether it is post hoc is found out, not given")
        if claim.statement in [known.statement for known in claims]:
            raise UsageError(f"claim '{claim.statement}' is given twice")
        claims.append(claim)
    return tuple(claims)


def ordered_pairs(claims: Iterable[Claim], arms: Iterable[str]) -> list[tuple[str, str]]:
    """Return every pair of arms whose order some claim is about, each pair once, whichever of them comes first.

    Args:
        claims: of a study.
        arms: the study's.

    >>> ordered_pairs([Claim(kind="better_than_every_other", arm="b")], ["a", "b", "c"])
    [('b', 'a'), ('b', 'c')]
    """
    pairs: dict[frozenset[str], tuple[str, str]] = {}
    for claim in claims:
        if claim.kind == "greater_than":
            others = [claim.than]
        elif claim.kind == "better_than_every_other":
            others = [arm for arm in arms if arm != claim.arm]
        else:
            continue
        for other in filter(None, others):
            pairs.setdefault(frozenset((claim.arm, other)), (claim.arm, other))
    return list(pairs.values())


def merge_claims(stored: tuple[Claim, ...], asked: tuple[Claim, ...], *, has_new_arms: bool) -> tuple[Claim, ...]:
    """Return the claims of a study whose cells have been run: none goes, and what comes or changes now is post hoc.

    Args:
        stored: the study's.
        asked: those of what is asked now.
        has_new_arms: whether arms come with it; a claim about every other arm then is about others than before.
    """
    if has_new_arms:
        changed = {"post_hoc": True}
        stored = tuple(c.model_copy(update=changed) if c.kind == "better_than_every_other" else c for c in stored)
    known = [claim.statement for claim in stored]
    new = [claim.model_copy(update={"post_hoc": True}) for claim in asked if claim.statement not in known]
    return (*stored, *new)
