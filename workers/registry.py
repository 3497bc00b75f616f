"""Finds explainers and outputs by entry point; a name that does not exist stops the process at start."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, cast

from service.errors import PipelineError
from service.validation import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydicom import Dataset

    from service.types import Image, Result
    from workers.interfaces import Explainer

    OutputBuilder = Callable[[Dataset, Image, Result], Dataset]


def load_explainers(names: Iterable[str]) -> tuple[Explainer, ...]:
    """Load explainers by name, in that order.

    Raises:
        PipelineError: a name is not registered; the message lists those that are.
    """
    return tuple(cast("Explainer", _load("pellucid.explainers", name, "explainer")()) for name in names)


def load_outputs(names: Iterable[str]) -> dict[str, OutputBuilder]:
    """Load output builders by name, in that order.

    Raises:
        PipelineError: a name is not registered; the message lists those that are.
    """
    return {name: _load("pellucid.outputs", name, "output") for name in names}


def check_names(group: str, names: Iterable[str], what: str) -> None:
    """Check that names are registered, without importing anything."""
    known = [entry.name for entry in entry_points(group=group)]
    for name in names:
        if name not in known:
            raise PipelineError(f"there is no {what} '{name}'{nearest(name, known)}")


def _load(group: str, name: str, what: str) -> Any:
    check_names(group, [name], what)
    (entry,) = entry_points(group=group, name=name)
    return entry.load()
