"""Settings: the combinations of conditions in which a claim has one verdict each."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ablations.config.claim import ACROSS, Claim
from ablations.config.study import DATA_FIELDS, Study, point_name
from ablations.config.values import value_name

EXTENT: dict[str, str] = {"better_than_every_other": "arms", "less_stable_than": "rates"}
"""What a kind of claim compares all of, so that more of it make another claim."""


def settings_of(study: Study, claim: Claim) -> dict[str, list[str]]:
    """Group the conditions in which a claim is judged: those that have its arms and the values of its ``at``.

    A kind of `ACROSS` has one verdict for all values of its field together, such as all learning rates; any other kind
    one for each condition.

    Returns:
        Names of the conditions of each setting, by the setting's name.
    """
    return _settings(study, claim, _conditions(study))


def settings_of_claims(study: Study) -> list[dict[str, list[str]]]:
    """Return the settings of each claim of a study, as `settings_of` does."""
    conditions = _conditions(study)
    return [_settings(study, claim, conditions) for claim in study.claims]


Condition = tuple[dict[str, Any], list[str]]
"""Values and arms of a condition."""


def _settings(study: Study, claim: Claim, conditions: Sequence[Condition]) -> dict[str, list[str]]:
    fields, across = study.conditions, ACROSS.get(claim.kind)
    kept = [field for field in fields if field != across]
    found: dict[str, list[str]] = {}
    for values, _ in _judged(study, claim, conditions):
        found.setdefault(point_name(values, kept), []).append(point_name(values, fields))
    if across is not None:
        found = {name: conditions for name, conditions in found.items() if len(conditions) > 1}
    return found


def claims_changed(old: Study, new: Study) -> list[str]:
    """Return the statements of the claims of a study that mean something else in another version of it.

    *Better than every other* is another claim if a condition has other arms, *less stable than* if a setting has other
    learning rates. Conditions and settings that only one of the two has change nothing.

    Args:
        old: study with the claims.
        new: other version of the study.
    """
    own = [claim for claim in old.claims if claim.kind in EXTENT]
    if old.compare != new.compare:
        return [claim.statement for claim in own]
    per_arm = {old.compare, "seed", *old.tied, *new.tied}
    fields = sorted(_fields(old) & _fields(new) - per_arm)
    changed = []
    for claim in own:
        before, after = (_extents(study, claim, fields) for study in (old, new))
        if any(before[place] != after[place] for place in before.keys() & after.keys()):
            changed.append(claim.statement)
    return changed


def _fields(study: Study) -> set[str]:
    return {*study.axes, *study.fixed, *(field for own in study.per_data.values() for field in own)}


def _extents(study: Study, claim: Claim, fields: Sequence[str]) -> dict[tuple[str, ...], set[str]]:
    """Return the arms of each condition, or the learning rates of each setting, in which a claim is judged.

    Args:
        fields: fields by whose values the conditions are told apart.
    """
    across, found = ACROSS.get(claim.kind), dict[tuple[str, ...], set[str]]()
    for values, arms in _judged(study, claim, _conditions(study)):
        place = tuple(value_name(values.get(field)) for field in fields if field != across)
        found.setdefault(place, set()).update(arms if across is None else [value_name(values.get(across))])
    return found


def _conditions(study: Study) -> list[Condition]:
    """Return the values on the axes, and the arms, of each condition."""
    same = {field: values[0] for field, values in study.axes.items() if len(values) == 1}
    points = study.points_on(study.conditions)
    return [(same | point, arms) for point, arms in zip(points, study.arms_by_condition.values(), strict=True)]


def _judged(
    study: Study, claim: Claim, conditions: Sequence[Condition]
) -> Iterator[tuple[Mapping[str, Any], list[str]]]:
    """Yield the values and the arms of each condition that has a claim's arms and the values of its ``at``."""
    for values, arms in conditions:
        if not set(claim.arms) <= set(arms):
            continue
        each = [_held(study, values, arm) for arm in claim.arms] if claim.at else []
        if all(field in held and held[field] == value for field, value in claim.at.items() for held in each):
            yield _held(study, values), arms


def _held(study: Study, values: dict[str, Any], arm: str = "") -> Mapping[str, Any]:
    """Return the values of the cells of a condition, with those that depend on an arm if it is given."""
    data = point_name(values, [field for field in DATA_FIELDS if field in study.axes])
    return ChainMap(values, study.per_arm.get(arm, {}), study.per_data.get(data, {}), study.fixed)
