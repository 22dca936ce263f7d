"""A normaliser as a study records it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from ablations.config.limits import MOST_CELLS, Name, Sentence


class NormRecord(BaseModel, frozen=True, extra="forbid"):
    """A normaliser as it was registered when its study was made, so that reading the study needs no plug-in.

    Args:
        label: label in figures.
        group: group of the registry.
        order: place in the registry.
        cross: whether class attention can use it.
        caveat: sentence to show with its results; empty for none.
    """

    label: Name
    group: Name
    order: Annotated[int, Field(ge=0, le=MOST_CELLS)]
    cross: bool
    caveat: Sentence = ""
