"""The Helm chart, rendered for tests."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import helm_python
import yaml

from service.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

CHART = Path(__file__).parent.parent / "helm"
RELEASE = "lung"


def render(values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return the manifests."""
    templates = helm_python.Chart.load(CHART).render(values=dict(values or {}), name=RELEASE)
    return [
        document
        for path, text in templates.items()
        if path.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]


def named(manifests: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """Return the one of a kind and name."""
    (found,) = (entry for entry in manifests if (entry["kind"], entry["metadata"]["name"]) == (kind, name))
    return found


def pods(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the pod templates by component."""
    found = {}
    for entry in manifests:
        spec = entry["spec"]["jobTemplate"]["spec"] if entry["kind"] == "CronJob" else entry.get("spec", {})
        if "template" in spec:
            labels = spec["template"]["metadata"]["labels"]
            found[labels["app.kubernetes.io/component"]] = spec["template"]["spec"]
    return found


def settings_text(manifests: list[dict[str, Any]]) -> str:
    """Return the content of pellucid.toml."""
    text = named(manifests, "ConfigMap", f"{RELEASE}-settings")["data"]["pellucid.toml"]
    assert tomllib.loads(text)
    return str(text)


def settings(manifests: list[dict[str, Any]], folder: Path) -> Settings:
    """Read the settings as a pod would."""
    path = folder / "pellucid.toml"
    path.write_text(settings_text(manifests))
    return load_settings(path, {})
