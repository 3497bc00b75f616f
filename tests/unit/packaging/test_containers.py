from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import load_settings

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "Dockerfile"


def environment(text: str) -> dict[str, str]:
    return dict(re.findall(r"\b(PELLUCID__\w+)=(\S+)", text))


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    found = subprocess.run([hadolint, str(DOCKERFILE)], check=False, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_the_images_environment_is_settings() -> None:
    variables = environment(DOCKERFILE.read_text())
    settings = load_settings(None, variables)
    assert settings.http.listener_port == 9464
    assert str(settings.state.directory) == "/var/lib/pellucid"


def test_the_image_ends_as_somebody_without_rights_and_is_asked_for_its_health() -> None:
    text = DOCKERFILE.read_text()
    base = text[text.index("AS base") :]
    assert re.findall(r"^USER (.*)$", base, re.MULTILINE) == ["10001:10001"]
    assert 'CMD ["pellucid", "health"]' in base
    assert set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE)) >= {"cpu", "cuda"}


def test_what_the_image_copies_is_not_ignored_and_nothing_else_gets_in() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[0] == "*"
    for name in ("service", "dicom_nodes", "workers", "config", "pyproject.toml", "constraints.txt"):
        assert f"!{name}" in lines
        assert (ROOT / name).exists()


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return loaded


def test_compose_brings_the_whole_site(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {
        "listener",
        "worker",
        "sender",
        "redis",
        "postgresql",
        "orthanc",
        "ohif",
    }


def test_composes_settings_are_settings(compose: dict[str, Any], tmp_path: Path) -> None:
    secret = tmp_path / "database_url"
    secret.write_text("postgresql+psycopg://pellucid:x@postgresql/pellucid")
    for name in ("listener", "worker", "sender"):
        variables = {key: str(value) for key, value in compose["services"][name]["environment"].items()}
        variables["PELLUCID__LEDGER__DATABASE_URL__FILE"] = str(secret)
        settings = load_settings(None, variables)
        assert settings.peers["orthanc"].host == "orthanc"
        assert settings.broker_url.startswith("redis://redis")


def test_compose_processes_have_no_rights_and_a_root_that_is_not_written(compose: dict[str, Any]) -> None:
    for name in ("listener", "worker", "sender"):
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["command"] == [name]


def test_compose_publishes_on_loopback_alone_and_holds_no_password(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))
        assert not [key for key in service.get("environment", {}) if key.endswith("PASSWORD")]


def test_compose_gives_a_worker_longer_to_end_than_a_task_may_take(compose: dict[str, Any]) -> None:
    grace = compose["services"]["worker"]["stop_grace_period"]
    assert float(grace.removesuffix("s")) > load_settings(None, {}).worker.task_time_limit_s


def test_every_dependency_that_is_named_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["cpu"], *extras["postgresql"], *extras["test"], *extras["security"]]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    assert all("==" in line and "+" not in line for line in lines)
    for requirement in wanted:
        name = re.split(r"[\[<>=~!;]", requirement)[0].strip().lower().replace("_", "-")
        assert name in pinned, f"run make constraints: {name} is not pinned"
