"""What an earlier check of a package holds against single methods with this model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from service.model_card import ModelCard

FILE = "check.json"
"""Beside the card; `pellucid models check` writes it."""


def doubts_of(folder: Path, card: ModelCard) -> dict[str, tuple[str, ...]]:
    """Return what `check.json` holds against methods with this model, by method; nothing when it is of other weights.

    A package without a check, or with one that cannot be read, is used as before: the file is a help, not a gate.
    """
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if found["sha256"] != card.weights.sha256:
            return {}
        return {m["method"]: (str(m["sanity"]),) for m in found["methods"] if m["sanity_passed"] is False}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
