from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from charts import CHART, RELEASE, named, pods, render, settings
from prometheus_client import CollectorRegistry

from service.ledger.database import open_database
from service.ledger.report import Reports
from service.metrics import LedgerCollector, ListenerMetrics, SenderMetrics, WorkerMetrics
from service.queue import QUEUES

if TYPE_CHECKING:
    from pathlib import Path

PACS = {"peers": {"pacs": {"ae_title": "PACS", "host": "pacs.example", "port": 104}}}
VARIANTS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "TLS alone": {"secrets": {"connections": "c", "tls": "t"}, "listener": {"plain": False}},
    "CPU": {"worker": {"device": "cpu", "gpus": 0}},
    "scaling": {"autoscaling": {"enabled": True, "minimum": 0}},
    "a long task": {"settings": {"worker": {"task_time_limit_s": 1800.0}, **PACS}},
    "everything": {
        "image": {"repository": "images.example/pellucid", "tag": "1"},
        "imagePullSecrets": [{"name": "pull"}],
        "settings": PACS,
        "secrets": {"connections": "c", "tls": "t", "tlsCrl": True},
        "state": {"existingClaim": "claim"},
        "listener": {"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]}},
        "networkPolicy": {"peers": ["10.20.0.0/16"], "egress": [{"cidr": "10.20.1.5/32", "port": 104}]},
        "monitoring": {"podMonitor": True, "rules": True, "dashboard": True},
        "autoscaling": {
            "enabled": True,
            "redisPasswordKey": "redis-password",
            "redisUsernameKey": "redis-user",
            "redisTls": True,
        },
    },
    "S3": {
        "s3": {"url": "s3://pellucid/site-a", "endpointUrl": "https://store:9000", "secret": "store", "ca": True},
        "settings": {"spool": {"timeout_s": 4.0}},
    },
    "STOW-RS, with a token": {
        "settings": {"dicomweb": {"port": 8080}},
        "networkPolicy": {"peers": ["10.20.0.0/16"]},
        "extraEnv": [
            {
                "name": "PELLUCID__DICOMWEB__TOKEN",
                "valueFrom": {"secretKeyRef": {"name": "pellucid-peers", "key": "stow-token"}},
            }
        ],
        "extraVolumes": [{"name": "peers", "secret": {"secretName": "pellucid-peers"}}],
        "extraVolumeMounts": [{"name": "peers", "mountPath": "/etc/pellucid-peers", "readOnly": True}],
    },
    "S3 by role": {
        "s3": {
            "url": "s3://pellucid",
            "region": "eu-central-1",
            "serviceAccountAnnotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/pellucid"},
        },
    },
}
OF_OPERATORS = {"ScaledObject", "TriggerAuthentication", "PodMonitor", "PrometheusRule"}
"""Kinds of operators, whose schemas are not Kubernetes' own."""


@pytest.fixture(params=VARIANTS.values(), ids=list(VARIANTS))
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    chosen: dict[str, Any] = request.param
    return chosen


@pytest.fixture
def manifests(values: dict[str, Any]) -> list[dict[str, Any]]:
    return render(values)


def test_the_chart_has_no_lint_findings(values: dict[str, Any]) -> None:
    report = helm_python.lint(CHART, values, strict=True)
    assert report["errors"] == []
    assert [entry for entry in report["messages"] if entry["error"] != "icon is recommended"] == []


def test_every_manifest_fits_kubernetes_own_schema(manifests: list[dict[str, Any]]) -> None:
    own = [entry for entry in manifests if entry["kind"] not in OF_OPERATORS]
    assert {"Deployment", "Service", "ConfigMap", "CronJob", "PodDisruptionBudget"} <= {entry["kind"] for entry in own}
    for entry in own:
        kubernetes_validate.validate(entry, "1.31", strict=True)


def test_the_settings_are_settings(manifests: list[dict[str, Any]], values: dict[str, Any], tmp_path: Path) -> None:
    found = settings(manifests, tmp_path)
    assert found.http.host == "0.0.0.0"  # noqa: S104 -- a pod's own address, behind a NetworkPolicy
    assert found.listener.known_peers_only is True
    assert found.listener.plain is (values.get("listener", {}).get("plain", True))
    assert bool(found.tls.port) is bool(values.get("secrets", {}).get("tls"))
    if "peers" in values.get("settings", {}):
        assert found.peers["pacs"].port == 104


def test_a_worker_gets_longer_to_end_than_a_task_may_take(manifests: list[dict[str, Any]], tmp_path: Path) -> None:
    limit = settings(manifests, tmp_path).worker.task_time_limit_s
    assert pods(manifests)["worker"]["terminationGracePeriodSeconds"] > limit


def test_no_pod_is_root_writes_its_root_or_knows_the_cluster(manifests: list[dict[str, Any]]) -> None:
    found = pods(manifests)
    assert set(found) == {"listener", "worker", "sender", "purge"}
    for pod in found.values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            secured = container["securityContext"]
            assert secured["readOnlyRootFilesystem"] is True
            assert secured["allowPrivilegeEscalation"] is False
            assert secured["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]


def test_secrets_come_from_secrets_that_exist(manifests: list[dict[str, Any]], values: dict[str, Any]) -> None:
    with_keys = bool(values.get("s3", {}).get("secret"))
    further = {entry["name"]: entry["valueFrom"]["secretKeyRef"]["key"] for entry in values.get("extraEnv", [])}
    assert not [entry for entry in manifests if entry["kind"] == "Secret"]
    for pod in pods(manifests).values():
        for container in pod["containers"]:
            sources = {entry["name"]: entry["valueFrom"]["secretKeyRef"]["key"] for entry in container["env"]}
            assert sources == {
                "PELLUCID__LEDGER__DATABASE_URL": "database-url",
                "PELLUCID__QUEUE__BROKER_URL": "broker-url",
                **(
                    {
                        "PELLUCID__SPOOL__ACCESS_KEY_ID": "access-key-id",
                        "PELLUCID__SPOOL__SECRET_ACCESS_KEY": "secret-access-key",
                    }
                    if with_keys
                    else {}
                ),
                **further,
            }


def test_probes_ask_the_port_of_their_process(manifests: list[dict[str, Any]], tmp_path: Path) -> None:
    http = settings(manifests, tmp_path).http
    for name, port in (("listener", http.listener_port), ("worker", http.worker_port), ("sender", http.sender_port)):
        (container,) = pods(manifests)[name]["containers"]
        ports = {entry["name"]: entry["containerPort"] for entry in container["ports"]}
        assert ports["http"] == port
        assert container["livenessProbe"]["httpGet"] == {"path": "/health/live", "port": "http"}
        assert container["readinessProbe"]["httpGet"] == {"path": "/health/ready", "port": "http"}


def test_a_gpu_is_asked_for_only_with_cuda() -> None:
    (with_gpu,) = pods(render())["worker"]["containers"]
    assert with_gpu["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert with_gpu["image"].endswith("-cuda")
    (without,) = pods(render(VARIANTS["CPU"]))["worker"]["containers"]
    assert "nvidia.com/gpu" not in without["resources"]["limits"]
    assert without["image"].endswith("-cpu")


def test_the_scaler_reads_the_queues_that_are_used() -> None:
    manifests = render(VARIANTS["scaling"])
    scaler = named(manifests, "ScaledObject", f"{RELEASE}-worker")
    assert tuple(entry["metadata"]["listName"] for entry in scaler["spec"]["triggers"]) == QUEUES
    assert "replicas" not in named(manifests, "Deployment", f"{RELEASE}-worker")["spec"]


def test_no_operator_is_needed_unless_asked_for() -> None:
    assert not {entry["kind"] for entry in render()} & OF_OPERATORS
    assert named(render(), "Deployment", f"{RELEASE}-worker")["spec"]["replicas"] == 1


def test_the_scaler_shows_redis_a_password_from_the_secret_and_no_manifest_has_it() -> None:
    manifests = render(VARIANTS["everything"])
    wanted = named(manifests, "TriggerAuthentication", f"{RELEASE}-redis")["spec"]["secretTargetRef"]
    assert wanted == [
        {"parameter": "password", "name": "c", "key": "redis-password"},
        {"parameter": "username", "name": "c", "key": "redis-user"},
    ]
    for trigger in named(manifests, "ScaledObject", f"{RELEASE}-worker")["spec"]["triggers"]:
        assert trigger["authenticationRef"] == {"name": f"{RELEASE}-redis"}
        # KEDA takes strings only.
        assert trigger["metadata"]["enableTLS"] == "true"
        assert {type(value) for value in trigger["metadata"].values()} == {str}
    open_redis = render(VARIANTS["scaling"])
    assert not [entry for entry in open_redis if entry["kind"] == "TriggerAuthentication"]
    with pytest.raises(helm_python.HelmError, match="no user without a password"):
        render({"autoscaling": {"enabled": True, "redisUsernameKey": "user"}})


def test_nobody_gets_in_until_peers_are_named() -> None:
    closed = named(render(), "NetworkPolicy", f"{RELEASE}-dicom")
    assert closed["spec"]["ingress"] == []
    named_peers = named(render(VARIANTS["everything"]), "NetworkPolicy", f"{RELEASE}-dicom")
    (rule,) = named_peers["spec"]["ingress"]
    assert rule["from"] == [{"ipBlock": {"cidr": "10.20.0.0/16"}}]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"listner": {}}, "listner"),
        ({"worker": {"gpus": 2}}, "gpus"),
        ({"listener": {"replicas": 0}}, "replicas"),
        ({"networkPolicy": {"peers": ["everybody"]}}, "peers"),
        ({"s3": {"url": "https://store/bucket"}}, "url"),
        ({"s3": {"bucket": "b"}}, "bucket"),
        ({"extraEnv": [{"value": "secret"}]}, "extraEnv"),
        ({"migrate": {"to": "before"}}, "migrate"),
    ],
)
def test_wrong_values_are_refused_with_their_name(wrong: dict[str, Any], says: str) -> None:
    chart = helm_python.Chart.load(CHART)
    with pytest.raises(helm_python.HelmError, match=says):
        chart.validate_schema(chart.merge_values(wrong))


def test_with_a_bucket_the_volume_holds_the_audit_log_alone(tmp_path: Path) -> None:
    manifests = render(VARIANTS["S3"])
    claim = named(manifests, "PersistentVolumeClaim", f"{RELEASE}-state")
    assert claim["spec"]["resources"]["requests"]["storage"] == "5Gi"
    for pod in pods(manifests).values():
        (container,) = pod["containers"]
        mounts = {entry["mountPath"]: entry for entry in container["volumeMounts"]}
        assert mounts["/var/lib/pellucid"]["name"] == "scratch"
        assert mounts["/var/lib/pellucid/audit"] == {
            "name": "state",
            "mountPath": "/var/lib/pellucid/audit",
            "subPath": "audit",
        }
        assert {"name": "scratch", "emptyDir": {"sizeLimit": "20Gi"}} in pod["volumes"]
    found = settings(manifests, tmp_path).spool
    assert (found.url, found.endpoint_url, found.timeout_s) == ("s3://pellucid/site-a", "https://store:9000", 4.0)
    assert found.trusted == "/etc/pellucid-s3/ca.crt"


def test_an_authority_without_a_secret_is_refused() -> None:
    with pytest.raises(helm_python.HelmError, match=r"s3\.secret is empty"):
        render({"s3": {"url": "s3://pellucid", "ca": True}})


def test_a_listener_without_any_port_is_refused() -> None:
    with pytest.raises(helm_python.HelmError, match="nothing would listen"):
        render({"listener": {"plain": False}})


def test_revocation_lists_without_a_secret_are_refused() -> None:
    with pytest.raises(helm_python.HelmError, match=r"secrets\.tls is empty"):
        render({"secrets": {"connections": "c", "tlsCrl": True}})


def test_a_port_for_stow_is_open_to_the_service_and_to_peers(tmp_path: Path) -> None:
    manifests = render(VARIANTS["STOW-RS, with a token"])
    found = settings(manifests, tmp_path).dicomweb
    assert (found.host, found.port) == ("0.0.0.0", 8080)  # noqa: S104 -- a pod's own address, behind a NetworkPolicy
    service = named(manifests, "Service", f"{RELEASE}-dicom")["spec"]
    assert {"name": "dicomweb", "port": 8080, "targetPort": "dicomweb"} in service["ports"]
    (rule,) = named(manifests, "NetworkPolicy", f"{RELEASE}-dicom")["spec"]["ingress"]
    assert {"port": 8080} in rule["ports"]
    (container,) = pods(manifests)["listener"]["containers"]
    assert {"name": "dicomweb", "containerPort": 8080} in container["ports"]
    assert "dicomweb" not in str(named(render(), "Service", f"{RELEASE}-dicom"))


def test_every_pod_gets_further_volumes() -> None:
    for pod in pods(render(VARIANTS["STOW-RS, with a token"])).values():
        assert {"name": "peers", "secret": {"secretName": "pellucid-peers"}} in pod["volumes"]
        (container,) = pod["containers"]
        mounts = [entry["mountPath"] for entry in container["volumeMounts"]]
        assert "/etc/pellucid-peers" in mounts


def test_alerts_keep_installations_apart() -> None:
    rules = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        gathered = re.findall(r"\b(?:max|sum|group)\b[^(]*(?:\([^)]*\))?", rule["expr"])
        assert gathered
        assert all(" by (cluster, namespace" in part for part in gathered)


def test_alerts_and_dashboard_name_metrics_that_exist(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    known = {metric.name for metric in LedgerCollector(Reports(engine)).collect()}
    engine.dispose()
    for make in (ListenerMetrics, WorkerMetrics, SenderMetrics):
        registry = CollectorRegistry()
        make(registry)
        for metric in registry.collect():
            known |= {metric.name, f"{metric.name}_total", f"{metric.name}_bucket", f"{metric.name}_count"}
    files = CHART / "files"
    rules = yaml.safe_load((files / "alerts.yaml").read_text())
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    dashboard = json.loads((files / "dashboard.json").read_text())
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    used = {name for text in expressions for name in re.findall(r"pellucid_\w+", text)}
    assert len(used) > 10
    assert used <= known


def test_every_alert_is_explained_to_the_operator() -> None:
    rules = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    guide = (CHART.parent / "docs" / "operations.md").read_text()
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        assert f"### {rule['alert']}\n" in guide
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"


@pytest.mark.parametrize(("given", "path"), [(False, ""), (True, "/etc/pellucid-tls/tls.crl")])
def test_revocation_lists_are_read_where_the_secret_has_them(tmp_path: Path, given: bool, path: str) -> None:
    manifests = render({"secrets": {"connections": "c", "tls": "t", "tlsCrl": given}})
    assert settings(manifests, tmp_path).tls.crl == path
