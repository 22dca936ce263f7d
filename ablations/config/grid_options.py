"""Options of studies that are no single product: zipped fields, combinations left out, grids, values per arm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from ablations.config.cell import FIELDS
from ablations.config.declare import Option, Options, reads
from ablations.config.errors import UsageError, shown
from ablations.config.field_values import read_values
from ablations.config.grid import SAME_FOR_ARMS, Exclusion, GridRequest, exclusion_text
from ablations.config.seeds import parse_seeds
from ablations.config.values import check_field, check_values, value_name
from ufo.registry import unknown_name


def parse_zipped(value: str | Sequence[str | Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Read groups of fields whose values pair up in order.

    Args:
        value: names with commas between them, several of these, or lists of names.

    Raises:
        UsageError: an unknown field, or something else.

    >>> parse_zipped("model,lr"), parse_zipped(["model", "lr"]), parse_zipped(["model,lr", ["depth", "batch_size"]])
    ((('model', 'lr'),), (('model', 'lr'),), (('model', 'lr'), ('depth', 'batch_size')))
    """
    if isinstance(value, str):
        groups: list[Any] = [value.split(",")]
    elif isinstance(value, Sequence) and value and all(isinstance(each, str) and "," not in each for each in value):
        groups = [value]
    elif isinstance(value, Sequence):
        groups = [each.split(",") if isinstance(each, str) else each for each in value]
    else:
        groups = [value]
    for group in groups:
        if not isinstance(group, Sequence) or not all(isinstance(name, str) for name in group):
            raise UsageError(f"zip {shown(group)}: write fields with commas between them, as model,lr")
        for name in group:
            check_field(name.strip())
        if len(group) < 2:
            raise UsageError(
                f"zip {','.join(group) or shown(group)}: give two fields or more, with commas between them"
            )
    return tuple(tuple(name.strip() for name in group) for group in groups)


def check_repeats(asked: Mapping[str, list[Any]], zipped: Iterable[tuple[str, ...]]) -> None:
    """Reject a value that is given twice, unless its field is zipped.

    Raises:
        UsageError: the value.
    """
    paired = {name for group in zipped for name in group}
    for name, values in asked.items():
        if name not in paired:
            check_values(name, values)


def parse_exclusions(value: str | Mapping[str, Any] | Sequence[Any]) -> tuple[Exclusion, ...]:
    """Read combinations to leave out.

    Args:
        value: ``FIELD=VALUE,FIELD=VALUE``, a mapping of fields to values, or several of these. A field may have several
            values.

    Raises:
        UsageError: an unknown field, a value that it cannot have, or something else.

    >>> parse_exclusions("norm=softmax,l2,lr=1e-2")
    ({'norm': ['softmax', 'l2'], 'lr': [0.01]},)
    """
    entries = [value] if isinstance(value, (str, Mapping)) else value
    if not isinstance(entries, Sequence):
        raise UsageError(f"exclude {shown(entries)}: write FIELD=VALUE,FIELD=VALUE")
    return tuple(_exclusion(entry) for entry in entries)


def _exclusion(entry: object) -> Exclusion:
    if isinstance(entry, str):
        entry = _by_field(entry)
    if not isinstance(entry, Mapping) or not entry:
        raise UsageError(f"exclude {shown(entry)}: write FIELD=VALUE,FIELD=VALUE, or a mapping in a file")
    return {_known(name): read_values(name, values) for name, values in entry.items()}


def _by_field(text: str) -> dict[str, str]:
    """Split ``a=1,2,b=3`` into fields and their values."""
    found: dict[str, str] = {}
    name = ""
    for part in text.split(","):
        first, equals, rest = part.partition("=")
        if equals and first.strip() in FIELDS:
            name = first.strip()
            if name in found:
                raise UsageError(f"exclude {text}: {name} is given twice")
            found[name] = rest
        elif name:
            found[name] += f",{part}"
        elif equals:
            check_field(first.strip())
        else:
            raise UsageError(f"exclude {text}: write FIELD=VALUE,FIELD=VALUE")
    return found


def _known(name: object) -> str:
    check_field(str(name))
    return str(name)


def parse_grids(value: object) -> tuple[GridRequest, ...]:
    """Read the grids of an experiment file: for each the values of fields, ``seeds``, ``zip`` and ``exclude``.

    Raises:
        UsageError: no list of mappings, an unknown key, or a value that a field cannot have.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise UsageError("grids must be a list of grids, each with values of fields")
    return tuple(_grid(number, content) for number, content in enumerate(value, start=1))


def _grid(number: int, content: object) -> GridRequest:
    if not isinstance(content, Mapping) or not content:
        raise UsageError(f"grid {number}: give values of fields, such as lr: 1e-3,3e-3")
    own = ("seeds", "zip", "exclude")
    fields: dict[str, list[Any]] = {}
    for key, values in content.items():
        if values is None:
            raise UsageError(f"grid {number}: {key} has no value")
        if key in ("seed", "seeds"):
            if "seed" in fields:
                raise UsageError(f"grid {number}: give seeds or seed, not both")
            fields["seed"] = parse_seeds(values)
        elif key in FIELDS:
            fields[key] = read_values(key, values, may_repeat=True)
        elif key not in own:
            raise unknown_name(f"key of grid {number}", str(key), sorted([*own, *FIELDS]))
    return GridRequest(
        asked=fields,
        zipped=parse_zipped(content.get("zip", ())),
        exclude=parse_exclusions(content.get("exclude", ())),
    )


def parse_per_arm(value: object) -> dict[str, dict[str, Any]]:
    """Read the fields that depend on the arm: by its name, one value of each field.

    Raises:
        UsageError: no mapping of mappings, an unknown field, several values, or a field that cannot depend on the arm.
    """
    if not isinstance(value, Mapping) or not all(isinstance(own, Mapping) and own for own in value.values()):
        raise UsageError("per_arm must be a mapping of arms to values of fields, such as l2: {lr: 1e-3}")
    found: dict[str, dict[str, Any]] = {}
    for key, own in value.items():
        arm = key if isinstance(key, str) else value_name(key)
        if arm in found:
            raise UsageError(f"per_arm: {arm} is given twice")
        found[arm] = {}
        for name, text in own.items():
            values = read_values(_known(name), text)
            if len(values) > 1:
                raise UsageError(f"per_arm: give one value of {name} for {arm}")
            if name in SAME_FOR_ARMS:
                raise UsageError(f"per_arm: {name} cannot depend on the arm: arms see the same images")
            found[arm][name] = values[0]
    return found


class GridOptions(Options):
    """The combinations of a study that is no product of its axes."""

    zip: Annotated[
        str | Sequence[str | Sequence[str]],
        reads(parse_zipped),
        Option(
            "Fields whose values pair up in order instead of in all combinations.",
            metavar="FIELD,FIELD",
            repeatable=True,
        ),
    ] = ()
    exclude: Annotated[
        str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
        reads(parse_exclusions),
        Option("Combinations left out.", metavar="FIELD=VALUE,FIELD=VALUE", repeatable=True),
    ] = ()


def overridden(
    requests: Iterable[GridRequest], given: Mapping[str, list[Any]], *, short: Mapping[str, list[Any]]
) -> tuple[list[GridRequest], list[str]]:
    """Apply values that override those of a file to its grids.

    Args:
        requests: grids of the file.
        given: values of fields that override those of the grids.
        short: values of a smoke run, which the given ones override.

    Returns:
        The grids, and what was left out, one line each: combinations that these values do not have.
    """
    found, notes = [], list[str]()
    for request in requests:
        exclude = []
        for entry in request.exclude:
            if shortened := [name for name in entry if name in short and name not in given]:
                notes.append(
                    f"a smoke run has one value of {shortened[0]}: exclude {exclusion_text(entry)} has no effect"
                )
                continue
            kept = {f: [v for v in vs if f not in given or v in given[f]] for f, vs in entry.items()}
            if all(kept.values()):
                exclude.append(kept)
            else:
                lost = next(name for name, values in kept.items() if not values)
                values = ",".join(map(value_name, entry[lost]))
                notes.append(f"exclude has no effect here: no cell has {lost}={values}")
        own = {name: values for name, values in request.asked.items() if name not in {*short, *given}}
        found.append(GridRequest(asked=own, zipped=request.zipped, exclude=tuple(exclude)))
    return found, list(dict.fromkeys(notes))


def shortened(
    requests: Iterable[GridRequest], short: Mapping[str, list[Any]], *, asked: Mapping[str, list[Any]]
) -> tuple[tuple[GridRequest, ...], list[str]]:
    """Take the fields that a smoke run shortens out of zipped groups, whose other values then come once.

    Args:
        requests: grids.
        short: values of a smoke run.
        asked: values of each field, for the grids that do not give it.

    Returns:
        The grids, and a line for each field that is zipped otherwise.
    """
    found, lost = [], dict[str, None]()
    for request in requests:
        own, groups = {**asked, **request.asked}, []
        for group in request.zipped:
            kept = tuple(name for name in group if name not in short)
            lost |= dict.fromkeys(name for name in group if name in short)
            counts = {len(own.get(name, ())) for name in kept}
            if len(kept) < len(group) and len(counts) == 1 and counts != {0}:
                rows = dict.fromkeys(zip(*(own[name] for name in kept), strict=True))
                own |= {name: list(values) for name, values in zip(kept, zip(*rows, strict=True), strict=True)}
            groups += [kept] if len(kept) > 1 else []
        given = {name: values for name, values in own.items() if name in request.asked or values != asked.get(name)}
        found.append(GridRequest(asked=given, zipped=tuple(groups), exclude=request.exclude))
    return tuple(found), [f"a smoke run has one value of {name}, which is zipped otherwise" for name in sorted(lost)]
