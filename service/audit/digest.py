"""A digest of the settings, for saying in an audit record which ones made a result."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from service.settings import SECRETS

if TYPE_CHECKING:
    from service.settings import Settings


def settings_digest(settings: Settings) -> str:
    """Hash of all settings: were two results made with the same ones?"""
    values = _without_secrets(settings.model_dump(mode="json"))
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _without_secrets(values: Any) -> Any:
    # A digest of a known text and one short password would give the password away.
    if not isinstance(values, dict):
        return values
    return {key: _without_secrets(value) for key, value in values.items() if key not in SECRETS}
