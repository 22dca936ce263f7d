"""A claim: a statement that a study supports or contradicts, made before its first cell."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from ablations.config.errors import UsageError, first_error
from ablations.config.limits import MOST_VALUE, Sentence
from ablations.config.values import check_values, value_name

Kind = Literal[
    "greater_than",
    "worse_by",
    "better_than_every_other",
    "equivalent_within",
    "fails_to_train",
    "fails_at_any_lr",
    "cost_linear_in_tokens",
    "less_stable_than",
    "explained_by_scale",
]

PAIR_KINDS = ("greater_than", "worse_by", "equivalent_within", "less_stable_than", "explained_by_scale")
TRIAL_KINDS = ("fails_at_any_lr",)
"""Kinds that the trials of a tuning decide; its winners decide the others."""

MARKS = ("post_hoc", "known_from")
"""Fields that say what was known when a claim came; a study's plan sets them."""

MARGIN_KINDS = ("worse_by", "equivalent_within", "explained_by_scale")

ACROSS: dict[str, str] = {"less_stable_than": "lr", "explained_by_scale": "scale"}
"""Field over whose values a kind is judged: its verdicts are per combination of the other conditions' values."""

JUDGED_OVER = {**ACROSS, **dict.fromkeys(TRIAL_KINDS, "lr")}
"""Field that a kind judges over all values or the whole range of, so that ``at`` cannot fix it."""


def _checked_values(at: dict[str, Any]) -> dict[str, Any]:
    """Return the values in the types of their fields, sorted, so that equal claims have equal statements."""
    return {field: check_values(field, [at[field]])[0] for field in sorted(at)}


class Claim(BaseModel, frozen=True, extra="forbid"):
    """A statement about an arm that results can support or contradict.

    Args:
        kind: kind of statement, one of `Kind`.
        arm: arm that the claim is about.
        than: arm that it is compared with; None for kinds that do not compare two arms.
        margin_pct: margin in points of accuracy, from 0.001 to 100, for `MARGIN_KINDS`.
        at: values of fields that restrict the conditions in which it is judged; empty: all conditions.
        source: place of the claim in the literature, or reason to test it.
        post_hoc: whether it was added or changed after cells of the study had been run.
        known_from: other studies that had results of the cells that judge it before it was in this study.
    """

    kind: Kind
    arm: Annotated[str, Field(min_length=1, max_length=MOST_VALUE)]
    than: Annotated[str, Field(max_length=MOST_VALUE)] | None = None
    margin_pct: Annotated[float, Field(ge=0.001, le=100, allow_inf_nan=False)] | None = None
    at: Annotated[dict[str, Any], AfterValidator(_checked_values)] = {}
    source: Sentence = ""
    post_hoc: bool = False
    known_from: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_complete(self) -> Claim:
        for field, kinds in (("than", PAIR_KINDS), ("margin_pct", MARGIN_KINDS)):
            given = getattr(self, field) is not None
            if given != (self.kind in kinds):
                raise ValueError(f"{self.kind} {'does not take' if given else 'needs'} the key {field}")
        if self.than == self.arm:
            raise ValueError(f"{self.arm} cannot be compared with itself; give another arm as than")
        if "seed" in self.at:
            raise ValueError("a claim is judged over all seeds; leave seed out of at")
        if (across := JUDGED_OVER.get(self.kind)) in self.at:
            raise ValueError(f"{self.kind} is judged over all values of {across}; leave it out of at")
        return self

    @property
    def arms(self) -> list[str]:
        """Arms that the claim names."""
        return [self.arm] if self.than is None else [self.arm, self.than]

    @property
    def statement(self) -> str:
        """The claim as one sentence.

        >>> Claim(kind="worse_by", arm="single_l2", than="xnorm", margin_pct=1).statement
        'single_l2 is worse than xnorm by at least 1 point'
        """
        points = f"{self.margin_pct:g} point{'s' * (self.margin_pct != 1)}" if self.margin_pct is not None else ""
        places = [f"{field}={value_name(value)}" for field, value in self.at.items()]
        return {
            "greater_than": f"{self.arm} is better than {self.than}",
            "worse_by": f"{self.arm} is worse than {self.than} by at least {points}",
            "better_than_every_other": f"{self.arm} is better than every other arm",
            "equivalent_within": f"{self.arm} and {self.than} are equivalent within {points}",
            "fails_to_train": f"{self.arm} fails to train",
            "fails_at_any_lr": f"{self.arm} fails to train at any learning rate in the range",
            "cost_linear_in_tokens": f"the cost of {self.arm} is linear in the number of tokens",
            "less_stable_than": f"{self.arm} is less stable than {self.than}: it trains up to a smaller learning rate",
            "explained_by_scale": f"the scale of {self.arm} explains that it is worse than {self.than}: "
            f"by at least {points} at its own scale, equivalent within {points} at the matched one",
        }[self.kind] + (f", at {', '.join(places)}" if places else "")


def parse_claims(values: Any) -> tuple[Claim, ...]:
    """Parse the claims of an experiment file.

    Raises:
        UsageError: not a list of mappings, an unknown key, an invalid value, or a repeated claim.
    """
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise UsageError(f"claims must be a list of claims, each with kind and arm, not {values!r}")
    claims: list[Claim] = []
    for value in values:
        try:
            claim = Claim.model_validate(value)
        except ValidationError as error:
            raise UsageError(f"claim {value}: {first_error(error)}") from None
        if given := [field for field in MARKS if field in value]:
            raise UsageError(f"claim {value}: {given[0]} is set automatically; leave it out")
        claims.append(claim)
    check_distinct(claims)
    return tuple(claims)


def check_distinct(claims: Sequence[Claim]) -> None:
    """Reject a claim that comes twice.

    Raises:
        UsageError: the claim.
    """
    statements = [claim.statement for claim in claims]
    for statement in statements:
        if statements.count(statement) > 1:
            raise UsageError(f"claim '{statement}' is given twice; leave one out")


def merge_claims(
    stored: tuple[Claim, ...], asked: tuple[Claim, ...], *, changed: Collection[str] = ()
) -> tuple[Claim, ...]:
    """Add claims to a study whose cells have been run, and mark new and changed ones as post hoc.

    Args:
        stored: claims of the study; all are kept.
        asked: claims of the request.
        changed: statements of stored claims that mean something else from now on, as
            `ablations.config.settings.claims_changed` finds them.
    """
    late = {"post_hoc": True}
    stored = tuple(claim.model_copy(update=late) if claim.statement in changed else claim for claim in stored)
    known = [claim.statement for claim in stored]
    new = [claim.model_copy(update=late) for claim in asked if claim.statement not in known]
    return (*stored, *new)
