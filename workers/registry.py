"""Finds explainers and outputs by entry point; a name that does not exist stops the process at start."""

from __future__ import annotations

from importlib.metadata import entry_points
from inspect import signature
from typing import TYPE_CHECKING, Any, cast

from service.errors import PipelineError
from service.validation import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from pydicom import Dataset

    from service.images import Image, Series
    from service.results import Result
    from workers.interfaces import Explainer

    OutputBuilder = Callable[[Dataset, Image, Result], Dataset]
    SeriesOutputBuilder = Callable[[Sequence[Dataset], Series, Result], Dataset]

IMAGE_OUTPUTS = "pellucid.outputs"
SERIES_OUTPUTS = "pellucid.series_outputs"


def load_explainers(
    names: Sequence[str], parameters: Mapping[str, Mapping[str, bool | int | float | str]], *, seed: int = 0
) -> tuple[Explainer, ...]:
    """Load explainers by name, in that order, each with its parameters as keyword arguments.

    Those that sample take `seed` unless their parameters name one of their own.

    Raises:
        PipelineError: a name is not registered, or a parameter does not exist or has a wrong value.
    """
    for name in parameters:
        if name not in names:
            raise PipelineError(f"[parameters.{name}] is for no explainer of this pipeline{nearest(name, names)}")
    return tuple(_explainer(name, parameters.get(name, {}), seed) for name in names)


def _explainer(name: str, parameters: Mapping[str, bool | int | float | str], seed: int) -> Explainer:
    make = _load("pellucid.explainers", name, "explainer")
    try:
        drawn = {"seed": seed} if "seed" in signature(make).parameters else {}
        return cast("Explainer", make(**(drawn | dict(parameters))))
    except (TypeError, ValueError) as error:
        raise PipelineError(f"[parameters.{name}]: {error}") from None


def load_outputs(names: Iterable[str]) -> dict[str, OutputBuilder]:
    """Load output builders for single images by name, in that order.

    Raises:
        PipelineError: a name is not registered; the message lists those that are.
    """
    return {name: _load(IMAGE_OUTPUTS, name, "output") for name in names}


def load_series_outputs(names: Iterable[str]) -> dict[str, SeriesOutputBuilder]:
    """Load output builders for series by name, in that order.

    Raises:
        PipelineError: a name is not registered; the message lists those that are.
    """
    return {name: _load(SERIES_OUTPUTS, name, "series output") for name in names}


def outputs_of_profile(names: Iterable[str], group: str) -> tuple[str, ...]:
    """Return those outputs of a destination's profile that a group has.

    A profile says what a viewer shows, whatever the pipeline reads: `segmentation` in it is nothing to an image.

    Raises:
        PipelineError: a name is registered for neither images nor series.
    """
    known = {entry.name for each in (IMAGE_OUTPUTS, SERIES_OUTPUTS) for entry in entry_points(group=each)}
    for name in names:
        if name not in known:
            raise PipelineError(f"there is no output '{name}' for [peers]{nearest(name, sorted(known))}")
    here = {entry.name for entry in entry_points(group=group)}
    return tuple(name for name in names if name in here)


def check_names(group: str, names: Iterable[str], what: str) -> None:
    """Check that names are registered, without importing anything."""
    known = [entry.name for entry in entry_points(group=group)]
    for name in names:
        if name not in known:
            raise PipelineError(f"there is no {what} '{name}'{nearest(name, known)}")


def import_named(group: str, names: Collection[str]) -> None:
    """Import those of some names that a group has, without making anything."""
    for entry in entry_points(group=group):
        if entry.name in names:
            entry.load()


def _load(group: str, name: str, what: str) -> Any:
    check_names(group, [name], what)
    (entry,) = entry_points(group=group, name=name)
    return entry.load()
