"""Extension of a study along its axes and by claims; its question stays the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ablations.config.claim import merge_claims
from ablations.config.errors import UsageError
from ablations.config.grid_growth import another_question, default_is_new, grow_grids, merge_per_arm, merge_per_data
from ablations.config.limits import check_num_cells
from ablations.config.search import Point, Search
from ablations.config.settings import claims_changed
from ablations.config.study import Study, choose_ref, point_name
from ablations.config.values import value_name


def extend(stored: Study, asked: Study, *, named: Collection[str], ref: str | None, num_results: int) -> Study:
    """Extend a stored study by the values and claims of a request.

    Args:
        named: fields that the request names; defaults do not extend an axis.
        ref: name of the reference arm; None: the stored one.
        num_results: number of the study's cells with a result; above 0, new values count as another look.

    Returns:
        Stored study with the union of the values, and the additions as a line of its history.

    Raises:
        UsageError: a field with another value, which makes it another question; a reference that is not an arm; or
            too many cells, claims or extensions.
    """
    if asked.compare != stored.compare:
        raise another_question(stored, "compare", stored.compare, [asked.compare])
    if stored.recipe is not None and asked.recipe != stored.recipe:
        raise another_question(stored, "recipe", stored.recipe, [asked.recipe])
    if asked.search != stored.search:
        raise another_question(stored, "search", _search_text(stored.search), [_search_text(asked.search)])
    points = _merge_points(stored, asked)
    if stored.grids or asked.grids or (asked.per_arm and not stored.per_arm):
        cells, added = grow_grids(stored, asked, named=named)
    else:
        cells, added = _grow_axes(stored, asked, named=named)
    axes = cells["axes"]
    num_looks = stored.num_looks + bool(added and num_results)
    ref = choose_ref(ref or stored.ref, axes[stored.compare])
    if ref != stored.ref:
        added.append(f"ref={ref}")
    question = asked.question or stored.question
    if question != stored.question:
        added.append("another wording of the question")
    grown = stored.model_copy(update=cells)
    changed = claims_changed(stored, grown) if num_results else []
    claims = merge_claims(stored.claims, asked.claims, changed=changed)
    added += [f"claim '{claim.statement}'" for claim in claims[len(stored.claims) :]]
    plugins = tuple(dict.fromkeys((*stored.plugins, *asked.plugins)))
    when = f"extended (cells with results: {num_results})" if num_results else "extended"
    history = (*stored.history, f"{when}: {', '.join(added)}") if added else stored.history
    update: dict[str, Any] = {"question": question, "ref": ref, "plugins": plugins}
    update |= {"claims": claims, "history": history, "num_looks": num_looks, "points": points}
    grown = grown.model_copy(update=update)
    grown.check_size()
    try:
        grown.check_grids()
    except ValueError as error:
        raise UsageError(f"study '{stored.name}': {error}") from None
    return grown


def _grow_axes(stored: Study, asked: Study, *, named: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """Merge two products into that of all their values.

    Returns:
        Fields of the grown study, and its new values in words.
    """
    axes = {field: list(values) for field, values in stored.axes.items()}
    added: list[str] = []
    for field, have in axes.items():
        held = asked.data_points.values()
        values = asked.axes.get(field) or list(dict.fromkeys(point[field] for point in held))
        known = set(have)
        new = [value for value in values if value not in known]
        if new and field not in named:
            raise default_is_new(stored, field, new[0])
        have += new
        added += [f"{field}={value_name(value)}" for value in new]
    check_num_cells({field: len(values) for field, values in axes.items()})  # before its data points are made
    per_data = merge_per_data(stored, asked, named)
    axes["seed"] = sorted(axes["seed"])
    return {"axes": axes, "per_data": per_data, "per_arm": merge_per_arm(stored, asked, named)}, added


def _merge_points(stored: Study, asked: Study) -> tuple[Point, ...]:
    """Merge the points of a stored study with those of a request, which may not change existing cells."""
    have = {point.key: point for point in stored.points}
    for point in asked.points:
        if have.setdefault(point.key, point) != point:
            if point.arm is not None and not stored.is_tuning:
                raise UsageError(
                    f"study '{stored.name}' has tested an earlier winner of {point.arm}, "
                    f"{_written(have[point.key].values)}, and the trials now give {_written(point.values)}: to test "
                    f"that one, copy {stored.name}/tuning into a new folder and give its name as --study"
                )
            arm = point.arm or "every arm"
            where = arm if point.seed is None else f"{arm} seed {point.seed}"
            held, wanted = _written(have[point.key].values), [_written(point.values)]
            raise another_question(stored, "point", held, wanted, where=where)
    return tuple(have.values())


def _search_text(search: Search | None) -> str:
    return "none" if search is None else f"{search} ({search.sampler}, seed {search.seed})"


def _written(values: Mapping[str, Any]) -> str:
    return point_name(values, values)
