"""The spool and the ledger when they disagree: what a peer was not told is stored must not lie about unseen."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from sqlalchemy import text

from dicom_nodes.client import send_files
from dicom_nodes.doctor import State, diagnose
from service.ledger.arrivals import Outcome
from service.ledger.schema import arrivals, instances, open_associations, studies
from service.settings import load_settings
from tests.network import AE, cr_image, station, write_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.network import Station


def statement(running: Station, sql: str) -> None:
    with running.arrivals.writing() as connection:
        connection.execute(text(sql))


def send(running: Station, path: Path) -> int | None:
    (outcome,) = send_files([path], "127.0.0.1", running.port, AE, "TEST")
    return outcome.status


def test_an_instance_that_could_not_be_recorded_has_one_file_when_it_comes_again(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.dcm")
    with station(tmp_path) as running:
        statement(running, "CREATE TRIGGER refuse BEFORE INSERT ON studies BEGIN SELECT RAISE(ABORT, 'no'); END")
        assert send(running, path) == 0xA700
        assert len(running.files()) == 1
        statement(running, "DROP TRIGGER refuse")
        assert send(running, path) == 0x0000
        assert len(running.files()) == 1


def test_a_repeat_that_cannot_be_recorded_keeps_the_file_of_the_first(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.dcm")
    with station(tmp_path, called=(AE, "OTHER")) as running:
        assert send(running, path) == 0x0000
        statement(running, "CREATE TRIGGER refuse BEFORE INSERT ON arrivals BEGIN SELECT RAISE(ABORT, 'no'); END")
        (outcome,) = send_files([path], "127.0.0.1", running.port, "OTHER", "TEST")
        assert outcome.status == 0xA700
        assert len(running.files()) == 1


def test_what_one_listener_cannot_record_stays_for_another_that_is_about_to(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.dcm")
    with station(tmp_path, called=(AE, "OTHER")) as running:
        assert send(running, path) == 0x0000
        (row,) = running.arrivals.unassigned()
        # Now the other one has the file and not yet the row, as at that moment of its life.
        for table in (arrivals, studies, open_associations, instances):
            with running.arrivals.writing() as connection:
                connection.execute(table.delete())
        refuse = "BEGIN SELECT RAISE(ABORT, 'no'); END"
        statement(running, f"CREATE TRIGGER refuse BEFORE INSERT ON arrivals WHEN NEW.called_ae = 'OTHER' {refuse}")
        (outcome,) = send_files([path], "127.0.0.1", running.port, "OTHER", "TEST")
        assert outcome.status == 0xA700
        expires_at = time.time() + 60.0
        assert running.arrivals.record(row, association="other", association_expires_at=expires_at) is Outcome.STORED
        with running.spool.files([row]) as (found,):
            assert found.stat().st_size > row.size


def test_a_file_whose_row_was_lost_is_set_aside_and_doctor_says_so(tmp_path: Path) -> None:
    lost, kept = write_image(tmp_path / "a.dcm"), write_image(tmp_path / "b.dcm", cr_image(SOPInstanceUID="1.2.3.77"))
    state = tmp_path / "state"
    with station(tmp_path, spool_root=state / "spool") as running:
        statement(running, "ALTER TABLE instances RENAME TO away")
        assert send(running, lost) == 0xA700
        assert len(running.files()) == 1
        statement(running, "ALTER TABLE away RENAME TO instances")
        (orphan,) = running.files()
        assert running.spool.set_orphans_aside(running.arrivals.recorded_keys) == 0
        long_ago = time.time() - 3600
        os.utime(orphan, (long_ago, long_ago))
        assert running.spool.set_orphans_aside(running.arrivals.recorded_keys) == 1
        assert [path.parent.name for path in running.files()] == ["orphans"]

        assert send(running, kept) == 0x0000
        assert running.spool.set_orphans_aside(running.arrivals.recorded_keys, settled_after_s=-60.0) == 0
        settings = load_settings(None, {"PELLUCID__STATE__DIRECTORY": str(state), "PELLUCID__PIPELINES__ENABLED": "[]"})
        (found,) = [entry for entry in diagnose(settings) if entry.name == "spool"]
    assert found.state is State.WARNING
    assert found.found.startswith("1 ")
