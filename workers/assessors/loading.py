"""Finds assessors by entry point; a name that does not exist stops the process at start."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, cast

from workers.registry import check_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workers.assessors.case import Assessor

GROUP = "pellucid.assessors"


def load_assessors(names: Sequence[str]) -> tuple[Assessor, ...]:
    """Load assessors by name, in that order.

    Raises:
        PipelineError: a name is not registered; the message lists those that are.
    """
    check_names(GROUP, names, "assessor")
    found = entry_points(group=GROUP)
    return tuple(cast("Assessor", found[name].load()()) for name in names)
