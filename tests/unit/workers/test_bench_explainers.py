from __future__ import annotations

import json
import time
from importlib.metadata import entry_points

import pytest
import torch
from click.testing import CliRunner

from service.cli import cli
from workers.bench_comparison import Figures, Memory, timed, total
from workers.bench_peers import PEERS, Counted


def test_only_methods_that_ran_on_both_sides_enter_the_total() -> None:
    found = total(
        {
            "lime": Figures(seconds=2.0, cpu_seconds=1.0, peer_seconds=50.0, peer_cpu_seconds=40.0),
            "owen": Figures(seconds=3.0, cpu_seconds=1.5, peer_seconds=10.0, peer_cpu_seconds=10.0),
            "rise": Figures(seconds=7.0, cpu_seconds=7.0),
            "lrp": Figures(failed="no graph", peer_seconds=1.0, peer_cpu_seconds=1.0),
        }
    )
    assert found["seconds"] == 5.0
    assert found["peer_seconds"] == 60.0
    assert found["ratio"] == 12.0
    assert found["cpu_ratio"] == 20.0
    assert found["methods"] == ["lime", "owen"]
    assert found["without_peer"] == ["lrp", "rise"]
    assert found["seconds_without_peer"] == 7.0


def test_wall_and_processor_time_are_told_apart() -> None:
    result, spent = timed(lambda: time.sleep(0.2) or "done")
    assert result == "done"
    assert spent.seconds >= 0.2
    assert spent.cpu_seconds < spent.seconds


def test_the_peak_of_memory_is_seen() -> None:
    with Memory() as before:
        pass
    with Memory() as memory:
        held = torch.ones(60, 1024, 1024, dtype=torch.float32)
        time.sleep(0.3)
    assert memory.peak_mb >= before.peak_mb + 150
    assert held.sum() > 0


def test_inputs_of_a_peer_are_counted_in_every_batch() -> None:
    counted = Counted(torch.nn.Flatten())
    counted(torch.zeros(23, 1, 2, 2))
    counted(torch.zeros(4, 1, 2, 2))
    assert counted.inputs == 27


def test_what_a_limited_peer_did_not_run_is_charged_at_the_pace_of_the_network_alone() -> None:
    counted = Counted(torch.nn.Flatten())
    counted(torch.zeros(20, 1, 64, 64))
    some, more = (counted.found(torch.zeros(2, 2), left) for left in (20, 60))
    assert (some.samples, some.left, more.left) == (20, 20, 60)
    assert 0 < some.left_seconds < 10
    assert more.left_seconds == pytest.approx(3 * some.left_seconds)
    assert counted.found(torch.zeros(2, 2), 0).left_seconds == 0


@pytest.mark.timeout(300)
def test_of_a_limited_peer_it_is_said_what_ran_and_nothing_of_its_fidelity() -> None:
    pytest.importorskip("shap", reason="shap is absent (extra 'peers')")
    options = ["--json", "--model", "pneumonia-compact", "--methods", "owen", "--peer-samples", "120"]
    ran = CliRunner().invoke(cli, ["bench", "explainers", *options])
    assert ran.exit_code == 0, ran.output
    figures = json.loads(ran.stdout)
    found = figures["methods"]["owen"]
    assert found["peer_samples_run"] < 180
    assert 400 < found["peer_samples"] < 600
    assert found["peer_deletion_auc"] is found["peer_insertion_auc"] is None
    assert found["deletion_auc"] is not None
    assert figures["total"]["peers_extrapolated"] == ["owen"]
    assert "the rest extrapolated" in ran.stderr


def test_a_method_and_its_peer_stand_side_by_side() -> None:
    pytest.importorskip("captum", reason="captum is absent (extra 'peers')")
    ran = CliRunner().invoke(cli, ["bench", "explainers", "--json", "--methods", "grad-cam"])
    assert ran.exit_code == 0, ran.output
    figures = json.loads(ran.stdout)
    assert figures["model"] == "pneumonia-resnet50"
    found = figures["methods"]["grad-cam"]
    assert found["peer"] == "captum.LayerGradCam"
    assert found["ratio"] == pytest.approx(found["peer_seconds"] / found["seconds"], rel=0.05)
    # The same method in two programs: the same map, and so the same curves.
    assert found["deletion_auc"] == pytest.approx(found["peer_deletion_auc"], abs=0.02)
    assert figures["total"]["methods"] == ["grad-cam"]
    assert figures["machine"]["fast_precision"] in {"bfloat16", "float32"}
    assert figures["peak_memory_mb"] > 50


@pytest.mark.timeout(600)
def test_another_graph_answers_by_what_it_sees_and_its_maps_are_judged() -> None:
    options = ["--model", "pneumonia-compact", "--methods", "grad-cam,occlusion", "--graph", "resnet18", "--no-peers"]
    ran = CliRunner().invoke(cli, ["bench", "explainers", "--json", *options])
    assert ran.exit_code == 0, ran.output
    figures = json.loads(ran.stdout)
    assert figures["model"] == "resnet18"
    for found in figures["methods"].values():
        assert found["seconds"] > 0
        assert found["peer"] is None
    occlusion = figures["methods"]["occlusion"]
    assert occlusion["insertion_auc"] > occlusion["deletion_auc"] + 0.1


def test_a_method_that_does_not_exist_is_answered_with_a_near_one() -> None:
    ran = CliRunner().invoke(cli, ["bench", "explainers", "--methods", "lyme"])
    assert ran.exit_code != 0
    assert "lime" in str(ran.exception) + ran.output


def test_every_peer_is_for_a_method_that_exists() -> None:
    assert set(PEERS) <= {entry.name for entry in entry_points(group="pellucid.explainers")}
