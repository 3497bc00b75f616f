"""Reads TOML into validated values; an unknown key is refused with the nearest name that exists."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from service.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

_KINDS = {
    "bool": "must be true or false",
    "dict": "must be a section: its keys stand below it, with a name of their own",
    "float": "must be a number",
    "int": "must be a whole number",
    "model": "must be a section: its keys stand below it",
    "string": 'must be a text, written in quotes: "…"',
    "tuple": 'must be a list, written ["…", "…"]',
}
"""What a value of another kind should have been, by the beginning of pydantic's name for the error."""


class Strict(BaseModel):
    """A frozen value whose unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


T = TypeVar("T", bound=Strict)


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        SettingsError: the file is missing, unreadable or not TOML; the message names it.
    """
    try:
        # Editors of Windows begin a file with a mark of its encoding, which is no TOML.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file") from None
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        # A number of many thousand digits is no TOMLDecodeError, and brackets in brackets end the parser's stack.
        raise SettingsError(f"{path}: is no TOML: {error}") from None


def validate(kind: type[T], values: Mapping[str, Any], *, source: str) -> T:
    """Check `values` against `kind`.

    Raises:
        SettingsError: names every wrong key as `section.key`, what is wrong and, for an unknown key, the
            nearest name that exists.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [_describe(kind, detail) for detail in error.errors()]
        raise SettingsError(f"{source}: " + "; ".join(lines)) from None


def is_text(kind: type[Strict], path: Sequence[str]) -> bool:
    """Tell whether the setting at `path` (section, key; or section, name, key) is a text or the path of a file."""
    field = _field(kind, path)
    return field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, str | Path)


def nearest(name: str, known: Sequence[str]) -> str:
    """Return ` (did you mean 'x'?)` or, when nothing is near, the list of the known names."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if matches:
        return f" (did you mean '{matches[0]}'?)"
    return f" (known: {', '.join(sorted(known))})" if known else ""


def _describe(kind: type[Strict], detail: ErrorDetails) -> str:
    path = [str(part) for part in detail["loc"]]
    where = ".".join(path)
    if detail["type"] == "extra_forbidden":
        return f"unknown setting '{where}'{nearest(path[-1], _known_keys(kind, path[:-1]))}"
    if detail["type"] == "missing":
        return f"'{where}' is missing"
    if detail["type"] == "value_error":
        return f"'{where}': {detail['ctx']['error']}"
    expected = _KINDS.get(detail["type"].partition("_")[0])
    return f"'{where}' {expected}" if expected else f"'{where}': {detail['msg']}"


def _field(kind: type[Strict], path: Sequence[str]) -> FieldInfo | None:
    inner = _kind_at(kind, path[:-1])
    return inner.model_fields.get(path[-1]) if inner else None


def _known_keys(kind: type[Strict], path: Sequence[str]) -> list[str]:
    inner = _kind_at(kind, path)
    return list(inner.model_fields) if inner else []


def _kind_at(kind: type[Strict], path: Sequence[str]) -> type[Strict] | None:
    for part in path:
        field = kind.model_fields.get(part)
        inner = _strict_in(field.annotation) if field else kind
        if inner is None:
            return None
        kind = inner
    return kind


def _strict_in(annotation: Any) -> type[Strict] | None:
    """Find the Strict class in `X`, `tuple[X, ...]` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _strict_in(argument)
        if found is not None:
            return found
    return None
