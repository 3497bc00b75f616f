"""What docs/operations.md prints for Kubernetes, rendered and checked as far as that goes without a cluster."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from charts import CHART, RELEASE, named, pods, render, settings, settings_text

from service.ledger.database import NEWEST
from service.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

GUIDE = (CHART.parent / "docs" / "operations.md").read_text(encoding="utf-8")
OWN = {
    "ConfigMap",
    "CronJob",
    "Deployment",
    "Job",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "Service",
    "ServiceAccount",
}
"""Kinds that every cluster has."""


def printed(mark: str) -> dict[str, Any]:
    """Return the one block of YAML in the guide that holds a mark."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
    (text,) = [block for block in blocks if mark in block]
    values: dict[str, Any] = yaml.safe_load(text)
    return values


@pytest.fixture
def site() -> dict[str, Any]:
    return printed("# site.yaml")


def test_the_guides_site_is_whole_and_needs_no_operator(site: dict[str, Any], tmp_path: Path) -> None:
    chart = helm_python.Chart.load(CHART)
    chart.validate_schema(chart.merge_values(site))
    assert helm_python.lint(CHART, site, strict=True)["errors"] == []
    manifests = render(site)
    assert {entry["kind"] for entry in manifests} <= OWN
    for entry in manifests:
        kubernetes_validate.validate(entry, "1.31", strict=True)
    found = settings(manifests, tmp_path)
    (peer,) = found.peers.values()
    assert (found.listener.known_peers_only, found.worker.device) == (True, "cpu")
    egress = named(manifests, "NetworkPolicy", RELEASE)["spec"]["egress"]
    assert {rule["ports"][0]["port"] for rule in egress} == {53, peer.port, 5432, 6379}
    assert f"{peer.host}/32" in site["networkPolicy"]["peers"]
    assert named(manifests, "Service", f"{RELEASE}-dicom")["spec"]["type"] == "LoadBalancer"
    (worker,) = pods(manifests)["worker"]["containers"]
    assert "nvidia.com/gpu" not in worker["resources"]["limits"]


def test_the_guide_makes_the_image_and_the_secrets_that_its_site_needs(site: dict[str, Any]) -> None:
    commands = GUIDE.replace("\\\n", " ")
    made = dict(re.findall(r"kubectl create secret generic (\S+)(.*)", commands))
    used = {
        (entry["valueFrom"]["secretKeyRef"]["name"], entry["valueFrom"]["secretKeyRef"]["key"])
        for pod in pods(render(site)).values()
        for entry in pod["containers"][0]["env"]
    }
    assert used
    for name, key in used:
        assert f"--from-literal={key}=" in made[name]
    for pod in pods(render(site)).values():
        assert f"docker push {pod['containers'][0]['image']}\n" in GUIDE
        assert [volume for volume in pod["volumes"] if "secret" in volume] == []


def test_the_guides_token_comes_from_a_secret_and_stands_in_no_manifest(site: dict[str, Any], tmp_path: Path) -> None:
    manifests = render({**site, **printed("extraEnv:")})
    path = tmp_path / "pellucid.toml"
    path.write_text(settings_text(manifests))
    for pod in pods(manifests).values():
        environment = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in pod["containers"][0]["env"]}
        assert environment["PELLUCID__PEERS__ARCHIVE__TOKEN"] == {"name": "pellucid-peers", "key": "archive-token"}
        read = load_settings(path, dict.fromkeys(environment, "secret"))
        assert read.peers["archive"].token == "secret"  # noqa: S105 -- of this test


def test_the_guides_way_back_uses_what_the_chart_has(site: dict[str, Any]) -> None:
    (schema,) = re.findall(r"--set-string migrate\.to=(\d{4}) --show-only templates/migrate\.yaml", GUIDE)
    assert schema < NEWEST
    manifests = render({**site, "migrate": {"to": schema}})
    job = named(manifests, "Job", f"{RELEASE}-migrate")
    kubernetes_validate.validate(job, "1.31", strict=True)
    pod = pods(manifests)["migrate"]
    assert pod["containers"][0]["command"][-3:] == ["migrate", "--to", schema]
    purge = pods(manifests)["purge"]
    assert {key: pod[key] for key in pod if key != "containers"} == {
        key: purge[key] for key in purge if key != "containers"
    }
    assert pod["containers"][0]["env"] == purge["containers"][0]["env"]
    for name in ("listener", "worker", "sender"):
        assert f"pellucid-{name}" in GUIDE
        named(manifests, "Deployment", f"{RELEASE}-{name}")


def test_the_changelog_names_the_schema() -> None:
    assert f"The ledger's schema is {NEWEST}" in (CHART.parent / "CHANGELOG.md").read_text(encoding="utf-8")
