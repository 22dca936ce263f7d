"""Settings: the combinations of conditions in which a claim has one verdict each."""

from __future__ import annotations

from ablations.config.claim import ACROSS, Claim
from ablations.config.study import Study, point_name


def settings_of(study: Study, claim: Claim) -> dict[str, list[str]]:
    """Group the conditions in which a claim is judged: those that have its arms and the values of its ``at``.

    A kind of `ACROSS` has one verdict for all values of its field together, such as all learning rates; any other kind
    one for each condition.

    Returns:
        Names of the conditions of each setting, by the setting's name.
    """
    fields, across = study.conditions, ACROSS.get(claim.kind)
    same = {field: values[0] for field, values in study.axes.items() if len(values) == 1}
    kept = [field for field in fields if field != across]
    found: dict[str, list[str]] = {}
    for point, (condition, arms) in zip(study.points_on(fields), study.arms_by_condition.items(), strict=True):
        values = {**study.fixed, **same, **point}
        if set(claim.arms) <= set(arms) and all(values.get(field) == value for field, value in claim.at.items()):
            found.setdefault(point_name(point, kept), []).append(condition)
    if across is not None:
        found = {name: conditions for name, conditions in found.items() if len(conditions) > 1}
    return found
