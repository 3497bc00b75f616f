"""The very command lines of the rendered Kubernetes manifests, run here against Redis and PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charts import pods, render, settings_text
from require import require_tool

from service.audit.chain import AuditLog
from service.audit.verify import verify
from service.ledger.database import open_database
from service.ledger.report import Reports
from service.records import JobState
from workers.phantom.files import write_samples
from workers.sandbox import PACS_AE, ReceiverPacs, free_port, wait_until

if TYPE_CHECKING:
    import pytest

CONFIGURATION = "/etc/pellucid"
PORTS = {"listener": 9464, "worker": 9465, "sender": 9466}


class Pod:
    """One container as a process: its command and environment, with its volumes and ports moved."""

    def __init__(self, name: str, spec: dict[str, Any], folder: Path, secrets: dict[str, str]) -> None:
        (container,) = spec["containers"]
        assert container["readinessProbe"]["httpGet"]["port"] == "http"
        self.name = name
        self.port = free_port()
        mounted = {entry["name"]: entry["mountPath"] for entry in container["volumeMounts"]}
        assert mounted["settings"] == CONFIGURATION
        command = [part.replace(CONFIGURATION, str(folder)) for part in container["command"]]
        environment = {entry["name"]: secrets[entry["valueFrom"]["secretKeyRef"]["key"]] for entry in container["env"]}
        self._log = (folder / f"{name}.log").open("wb")
        self.process = subprocess.Popen(
            command,
            cwd="/",
            env={
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HOME": str(folder),
                "PELLUCID__STATE__DIRECTORY": str(folder / "state"),
                f"PELLUCID__HTTP__{name.upper()}_PORT": str(self.port),
                "PELLUCID__HTTP__HOST": "127.0.0.1",
                "PELLUCID__WORKER__THREADS": "1",
                "PELLUCID__LISTENER__MINIMUM_FREE_MB": "64",
                **environment,
            },
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.name
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/ready", timeout=5) as answer:
                return bool(json.load(answer)["ok"])
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return False

    def end(self) -> int:
        """Ask it to end as Kubernetes does, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self._log.close()
        return code


def test_the_manifests_commands_make_a_service(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, postgresql_url: str
) -> None:
    folder = tmp_path_factory.mktemp("pods")
    pacs = ReceiverPacs(folder / "pacs")
    port = free_port()
    manifests = render(
        {
            "settings": {
                "peers": {"pacs": {"ae_title": PACS_AE, "host": "127.0.0.1", "port": pacs.port}},
                "intake": {"quiet_period_s": 2.0},
            },
            "listener": {"port": port},
            "worker": {"device": "cpu", "gpus": 0},
        }
    )
    (folder / "pellucid.toml").write_text(settings_text(manifests))
    secrets = {"database-url": postgresql_url, "broker-url": redis_url}
    found = pods(manifests)
    running = [Pod(name, found[name], folder, secrets) for name in ("listener", "worker", "sender")]
    engine = open_database(postgresql_url)
    reports = Reports(engine)
    try:
        wait_until(lambda: all(pod.is_ready() for pod in running), timeout_s=120, what="the pods are not ready")
        films = write_samples(folder / "films", count=2, seed=17, size=(256, 256))
        send = [require_tool("storescu"), "-aec", "PELLUCID", "-aet", PACS_AE, "127.0.0.1", str(port)]
        assert subprocess.run([*send, *map(str, films)], check=False, timeout=60).returncode == 0
        stranger = [require_tool("echoscu"), "-aec", "PELLUCID", "-aet", "STRANGER", "127.0.0.1", str(port)]
        assert subprocess.run(stranger, check=False, capture_output=True, timeout=60).returncode != 0
        wait_until(
            lambda: [report.delivered for report in reports.jobs()] == [2, 2],
            timeout_s=120,
            what="the results were not delivered",
        )
        for report in reports.jobs():
            assert report.job.state is JobState.DONE
            assert all(pacs.fetch(entry.sop_instance_uid) for entry in reports.objects_of(report.job.id))
    finally:
        codes = {pod.name: pod.end() for pod in running}
        engine.dispose()
        pacs.stop()
    assert codes == dict.fromkeys(PORTS, 0)
    assert verify(AuditLog(folder / "state" / "audit")).intact
    text = "".join((folder / f"{name}.log").read_text() for name in PORTS)
    assert "postgresql+psycopg" not in text
