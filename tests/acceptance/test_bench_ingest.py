"""The bench of receiving, with few small instances: every server takes all of them, and each figure is there."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from dicom_nodes.bench_ingest import ASSOCIATIONS, measure

if TYPE_CHECKING:
    from pathlib import Path


def test_every_installed_server_is_given_the_same_load(tmp_path: Path) -> None:
    installed = {"pellucid"} | {name for name in ("storescp", "Orthanc") if shutil.which(name)}
    runs = measure(tmp_path, seconds=0.0, repeats=2, loads=((64 << 10, 4),))
    assert {run.server for run in runs} == {name.lower() for name in installed}
    assert len(runs) == len(installed) * len(ASSOCIATIONS)
    for run in runs:
        assert (run.instance_bytes, run.instances, run.repeats) == (64 << 10, 4, 1)
        assert run.instances_per_s >= run.durable_instances_per_s > 0
        assert run.mb_per_s > 0
