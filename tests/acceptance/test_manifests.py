"""The very command lines of the rendered Kubernetes manifests, run here against Redis and PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bucket import Bucket, Server, files
from charts import pods, render, settings_text
from require import require_tool

from dicom_nodes.client import echo, send_files
from service.audit.chain import AuditLog
from service.audit.verify import verify
from service.ledger.database import open_database
from service.ledger.report import Reports
from service.records import JobState
from workers.phantom.files import write_samples
from workers.sandbox import PACS_AE, ReceiverPacs, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIGURATION = "/etc/pellucid"
pytestmark = pytest.mark.timeout(600)
PORTS = {"listener": 9464, "worker": 9465, "sender": 9466}


class Pod:
    """One container as a process: its command and environment, with its volumes and ports moved."""

    def __init__(self, name: str, spec: dict[str, Any], folder: Path, state: Path, secrets: dict[str, str]) -> None:
        (container,) = spec["containers"]
        assert container["readinessProbe"]["httpGet"]["port"] == "http"
        self.name = name
        self.port = free_port()
        mounted = {entry["name"]: entry["mountPath"] for entry in container["volumeMounts"]}
        assert mounted["settings"] == CONFIGURATION
        command = [part.replace(CONFIGURATION, str(folder)) for part in container["command"]]
        environment = {entry["name"]: secrets[entry["valueFrom"]["secretKeyRef"]["key"]] for entry in container["env"]}
        self.state = state
        self._log = (folder / f"{name}.log").open("wb")
        self.process = subprocess.Popen(
            command,
            cwd="/",
            env={
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HOME": str(folder),
                "PELLUCID__STATE__DIRECTORY": str(state),
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
        return self.wrong() == {}

    def wrong(self) -> dict[str, str]:
        assert self.process.poll() is None, self.name
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/ready", timeout=10):
                return {}
        except urllib.error.HTTPError as error:
            with error:
                return dict(json.load(error)["wrong"])
        except OSError:
            return {"http": "nobody answers"}

    def end(self) -> int:
        """Ask it to end as Kubernetes does, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self._log.close()
        return code


@dataclass(kw_only=True)
class Site:
    """Listener, worker and sender with a PACS."""

    pacs: ReceiverPacs
    port: int
    pods: dict[str, Pod]
    reports: Reports

    def send(self, film: Path) -> list[int | None]:
        outcomes = send_files([film], "127.0.0.1", self.port, "PELLUCID", PACS_AE)
        return [outcome.status for outcome in outcomes]

    def check_deliveries(self, counts: list[int]) -> None:
        """Wait until so many objects of each job are in the PACS."""
        delivered = lambda: [report.delivered for report in self.reports.jobs()]  # noqa: E731
        wait_until(lambda: delivered() == counts, timeout_s=400, what="the results were not delivered")
        for report in self.reports.jobs():
            assert report.job.state is JobState.DONE
            assert all(self.pacs.fetch(entry.sop_instance_uid) for entry in self.reports.objects_of(report.job.id))


@contextmanager
def site(
    folder: Path, secrets: dict[str, str], states: dict[str, Path], values: dict[str, Any] | None = None
) -> Iterator[Site]:
    """Run the pods of the rendered chart, each with its state folder, and end them as Kubernetes does."""
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
            **(values or {}),
        }
    )
    (folder / "pellucid.toml").write_text(settings_text(manifests))
    found = pods(manifests)
    running = {name: Pod(name, found[name], folder, states[name], secrets) for name in PORTS}
    engine = open_database(secrets["database-url"])
    try:
        ready = lambda: all(pod.is_ready() for pod in running.values())  # noqa: E731
        wait_until(ready, timeout_s=120, what="the pods are not ready")
        yield Site(pacs=pacs, port=port, pods=running, reports=Reports(engine))
    finally:
        codes = {pod.name: pod.end() for pod in running.values()}
        engine.dispose()
        pacs.stop()
    assert codes == dict.fromkeys(PORTS, 0)


def test_the_manifests_commands_make_a_service(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, postgresql_url: str
) -> None:
    folder = tmp_path_factory.mktemp("pods")
    secrets = {"database-url": postgresql_url, "broker-url": redis_url}
    with site(folder, secrets, dict.fromkeys(PORTS, folder / "state")) as running:
        films = write_samples(folder / "films", count=2, seed=17, size=(256, 256))
        send = [require_tool("storescu"), "-aec", "PELLUCID", "-aet", PACS_AE, "127.0.0.1", str(running.port)]
        assert subprocess.run([*send, *map(str, films)], check=False, timeout=60).returncode == 0
        stranger = [require_tool("echoscu"), "-aec", "PELLUCID", "-aet", "STRANGER", "127.0.0.1", str(running.port)]
        assert subprocess.run(stranger, check=False, capture_output=True, timeout=60).returncode != 0
        running.check_deliveries([2, 2])
    assert verify(AuditLog(folder / "state" / "audit")).intact
    text = "".join((folder / f"{name}.log").read_text() for name in PORTS)
    assert "postgresql+psycopg" not in text


def test_pods_that_share_a_bucket_and_no_volume_make_a_service(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str
) -> None:
    folder = tmp_path_factory.mktemp("bucket")
    server = Server()
    server.start()
    bucket = Bucket(server=server)
    section = bucket.section()
    secrets = {
        "database-url": f"sqlite:///{folder / 'ledger.sqlite'}",
        "broker-url": redis_url,
        "access-key-id": section.access_key_id,
        "secret-access-key": section.secret_access_key,
    }
    values = {"s3": {"url": section.url, "endpointUrl": section.endpoint_url, "secret": "store"}}
    states = {name: folder / name for name in PORTS}
    for state in states.values():
        state.mkdir()
        (state / "audit").symlink_to(folder / "audit")
    (folder / "audit").mkdir()
    (film,) = write_samples(folder / "films", count=1, seed=17, size=(256, 256))
    with site(folder, secrets, states, values) as running:
        kept = lambda: [path for state in states.values() for path in files(state / "spool")]  # noqa: E731
        server.stop()
        assert running.send(film) == [0xA700]
        echo("127.0.0.1", running.port, called="PELLUCID", calling=PACS_AE)
        assert "the spool's store cannot be reached" in running.pods["listener"].wrong()["spool"]
        assert kept() == []
        assert running.reports.jobs() == []
        server.start()
        wait_until(lambda: running.send(film) == [0x0000], timeout_s=60, what="the store is back, and nothing goes in")
        running.check_deliveries([2])
        wait_until(lambda: kept() == [], timeout_s=60, what="copies of what was read stay")
        assert [path for state in states.values() for path in state.rglob("*.dcm")] == []
        assert sorted(key.split("/")[1] for key in bucket.objects) == ["outbox", "outbox", "spool"]
    server.stop()
    assert verify(AuditLog(folder / "audit")).intact
    text = "".join((folder / f"{name}.log").read_text() for name in PORTS)
    assert section.secret_access_key not in text.replace("secret_access_key", "")
