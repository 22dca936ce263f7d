"""Caveats to print with the results of some arms."""

from __future__ import annotations

from collections.abc import Iterable

from ablations.config import CellConfig, Study
from ablations.config.cell import FIELDS
from ablations.config.change import apply_change
from ablations.config.nets import is_foreign
from ablations.config.study import point_name
from ufo.attention import ClassAttention
from ufo.norms import NORMS
from ufo.sizes import SIZES

MATCHED_CAVEAT = (
    "Matched scale: a fixed gain at each attention layer, set on the first training batch, gives every arm's output "
    "the RMS of xnorm's output at the start; training may separate them again."
)

SHARED_PARTS = (
    "Arms with different nets: a parameter that two of them have by the same name and in the same shape starts the "
    "same in both; order, augmentation and split of the images are shared by all."
)


ONE_START = (
    "Every run of an arm starts from the same classifier's weights: the seeds' spread, the intervals and the tests "
    "leave out how far another training of that classifier would have come."
)


LIMITED = (
    "Scores{where} are of at most {limit:,} images of validation and of test, drawn once and the same for every cell: "
    "the seeds' spread, the intervals and the tests leave out how far other images would have changed them."
)


def caveats(study: Study) -> list[str]:
    """Return the caveats of a study's normalisers, scale, initial weights and evaluated images."""
    said = list(filter(None, (_caveat(norm, study) for norm in study.axes["norm"])))
    if "matched" in study.axes.get("scale", [study.fixed.get("scale")]):
        said.append(MATCHED_CAVEAT)
    if study.fixed.get("init", "none") != "none":
        said.append(ONE_START)
    several = len(study.axes.get("eval_limit", [])) > 1
    said += [LIMITED.format(limit=n, where=f" at eval_limit={n}" if several else "") for n in eval_limits(study)]
    said += other_differences(study)
    return list(dict.fromkeys(said))


def other_differences(study: Study) -> list[str]:
    """Say in which fields the arms differ besides the compared one, with the values of each arm."""
    if not (study.tied or study.per_arm):
        return []
    tied = study.tied_texts
    held = {arm: study.per_arm.get(arm, {}) for arm in study.arm_names}
    texts = {arm: ", ".join(filter(None, (tied.get(arm), point_name(own, own)))) for arm, own in held.items()}
    if len(set(texts.values())) == 1:
        return []
    fields = ", ".join([*study.tied, *study.fields_per_arm])
    each = "; ".join(f"{arm} has {text}" for arm, text in texts.items())
    return [f"Arms differ in more than {study.compare}, and a difference may come from either: in {fields}. {each}."]


def eval_limits(study: Study) -> list[int]:
    """Return the limits of a study's evaluated images, if it has any."""
    return [limit for limit in study.axes.get("eval_limit", [study.fixed.get("eval_limit")]) if limit is not None]


def _caveat(norm: str, study: Study) -> str:
    """Return a normaliser's caveat; that of a plug-in, which reading a study does not import, as the study has it."""
    if norm in NORMS:
        return NORMS[norm].caveat
    return study.norms[norm].caveat if norm in study.norms else ""


def substitutions(study: Study, cells: Iterable[CellConfig]) -> list[str]:
    """Name the arms whose class attention has another normaliser."""
    lines = []
    classifiers = (cell for cell in cells if cell.task == "classify" and not is_foreign(cell.net.model))
    for cell in map(apply_change, classifiers):
        blocks = SIZES[cell.net.model].class_attention if cell.net.class_attention is None else cell.net.class_attention
        norm = cell.net.norm
        used = ClassAttention.uses(norm) if norm in NORMS else norm
        if norm not in NORMS and norm in study.norms and not study.norms[norm].cross:
            used = "softmax"
        if blocks and cell.net.class_norm == "same" and used != norm:
            lines.append(f"{cell.net.norm} cannot serve one query against many keys: class attention uses {used} there")
    return list(dict.fromkeys(lines))


def unshared(study: Study) -> list[str]:
    """Describe what arms share if their nets differ in more than the normaliser."""
    models = study.axes.get("model", [study.fixed.get("model", "")])
    foreign = [model for model in models if is_foreign(model)]
    if not foreign:
        nets_differ = study.compare in ("change", "model") or FIELDS[study.compare].traits.one_change
        return [SHARED_PARTS] if nets_differ and len(study.arms) > 1 else []
    lines = [
        f"{', '.join(foreign)}: pairs of different nets share order, augmentation and split of the images, but not "
        "initial weights and drop path, which each net draws from the seed itself"
    ]
    if len(foreign) < len(models):
        lines.append(f"the normaliser, {', '.join(study.axes['norm'])}, and the patch apply to UFO-ViT alone")
    return lines
