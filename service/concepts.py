"""The coded concepts with which objects and the audit trail name things."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Code:
    """A coded concept (PS3.3 section 8.8): code value, coding scheme designator, code meaning."""

    value: str
    scheme: str
    meaning: str
