"""The campaign's short form: processes killed while studies flow, a PACS that is down, refuses and lies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from faults.archives import FaultyArchive
from faults.kills import at_random
from faults.lab import Lab
from faults.pacs import misbehaving
from faults.reconcile import Balance
from faults.report import Row
from require import require_tool

from dicom_nodes.client import read_file
from service.records import JobState
from workers.sandbox import wait_until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(400)
def test_killed_processes_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    require_tool("Orthanc")
    (row,) = at_random(tmp_path, 11, kills=3, studies=3, roles=["all"])
    assert row.passed, row.notes
    assert row.acknowledged == 4


@pytest.mark.timeout(400)
def test_a_pacs_that_is_down_or_refuses_gets_everything_once_and_one_that_lies_is_caught(tmp_path: Path) -> None:
    rows = list(misbehaving(tmp_path, 12, trials=1, only=["down", "refuses 0xC000", "keeps other bytes"]))
    assert [row.fault for row in rows] == ["PACS down", "PACS refuses 0xC000", "PACS says success, keeps other bytes"]
    for row in rows:
        assert row.passed, row.notes
    assert rows[-1].set_aside == 2


@pytest.mark.timeout(400)
def test_a_listener_that_acknowledges_too_early_is_caught(tmp_path: Path) -> None:
    with Lab(tmp_path, FaultyArchive(), seed=13, faults=["acknowledge-early"], roles=["listener"]) as lab:
        for film in lab.modality.films(2):
            wait_until(lambda: not lab.balance().lost, timeout_s=60, what="nothing was ever recorded")
            assert lab.modality.send(film)
        lab.pellucid.kill("listener")
        (found,) = lab.balance().lost
    assert lab.modality.acknowledged[-1].sop_instance_uid in found


@pytest.mark.timeout(400)
def test_a_study_that_crashes_native_code_is_set_aside_and_ends_no_worker(tmp_path: Path) -> None:
    short = {"PELLUCID__WORKER__LEASE_S": "2.0"}
    with Lab(tmp_path, FaultyArchive(), seed=14, faults=["poisoned"], settings=short) as lab:
        worker = lab.pellucid.processes("worker")
        bad, good = lab.modality.films(2)
        uid = read_file(bad).sop_instance_uid
        lab.pellucid.poisons.write_text(json.dumps({uid: "crash"}))
        sent = [lab.modality.send(bad), lab.modality.send(good)]
        lab.auditor.wait_settled(filter(None, sent), timeout_s=300)
        jobs = {report.job.sop_instance_uids[0] == uid: report.job for report in lab.pellucid.reports.jobs()}
        assert (jobs[True].state, jobs[True].attempts) == (JobState.FAILED, 3)
        assert jobs[True].reason == "gave up after 3 attempts; the last one ended without an answer"
        assert jobs[False].state is JobState.DONE
        assert lab.pellucid.processes("worker") == worker
        assert lab.pellucid.logs("worker")[0].count("SIGSEGV") == 3


def test_a_row_is_passed_only_with_trials_and_a_clean_balance() -> None:
    row = Row(fault="x")
    assert not row.passed
    row.recovered(1.0)
    assert row.passed
    row.take(Balance(lost=["instance 1"]), acknowledged=1)
    assert not row.passed
    row.must_be_caught = True
    assert row.passed
    row.wrong("something else")
    assert not row.passed
