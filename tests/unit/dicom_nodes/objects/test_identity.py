from __future__ import annotations

import re
import subprocess
import sys

import pytest

from dicom_nodes.objects import identity

VALID = re.compile(r"2\.25\.(0|[1-9]\d*)")


def test_uids_are_valid_and_the_same_in_every_process() -> None:
    made = identity.sop_instance_uid(job_id="j", kind="sc", source_sop_uid="1.2.3")
    code = (
        "from dicom_nodes.objects.identity import sop_instance_uid as u;"
        "print(u(job_id='j', kind='sc', source_sop_uid='1.2.3'))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == made
    assert VALID.fullmatch(made)
    assert len(made) <= 64


def test_every_part_of_an_identity_counts() -> None:
    base = {"job_id": "j", "kind": "sc", "source_sop_uid": "1.2.3", "ordinal": 0}
    changes = [{"job_id": "k"}, {"kind": "sr"}, {"source_sop_uid": "1.2.4"}, {"ordinal": 1}, {}]
    uids = {identity.sop_instance_uid(**(base | change)) for change in changes}
    assert len(uids) == len(changes)


def test_moving_a_letter_between_parts_changes_the_uid() -> None:
    assert identity.derived_uid("ab", "c") != identity.derived_uid("a", "bc")


def test_a_study_has_one_series_per_pipeline_and_kind() -> None:
    one = identity.series_instance_uid(study_uid="1.2", pipeline="p", kind="sc", number=9001)
    assert one == identity.series_instance_uid(study_uid="1.2", pipeline="p", kind="sc", number=9001)
    assert one != identity.series_instance_uid(study_uid="1.2", pipeline="q", kind="sc", number=9001)
    assert one != identity.series_instance_uid(study_uid="1.2", pipeline="p", kind="sc", number=9101)


@pytest.mark.parametrize(
    ("manufacturer", "model", "ours"),
    [
        (identity.MANUFACTURER, identity.MODEL_NAME, True),
        (identity.MANUFACTURER, "Phantom", False),
        ("Acme", identity.MODEL_NAME, False),
        ("", "", False),
    ],
)
def test_ours_is_told_by_the_equipment(manufacturer: str, model: str, ours: bool) -> None:
    assert identity.is_our_equipment(manufacturer, model) is ours
