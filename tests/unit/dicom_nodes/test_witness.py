"""What comes over the network is in the audit trail: each study's beginning and end, and who was turned away."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from dicom_nodes.witness import RecordingWitness
from service.audit.chain import AuditLog, Record
from service.audit.commands import details
from service.audit.trail import Trail
from service.ledger.arrivals import Outcome
from service.metrics import ListenerMetrics
from service.records import Instance

if TYPE_CHECKING:
    from pathlib import Path

CR, DX = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1"


def instance(sop: str, *, study: str = "1.2.3", sop_class: str = CR) -> Instance:
    return Instance(
        sop_instance_uid=sop,
        sop_class_uid=sop_class,
        study_instance_uid=study,
        series_instance_uid=f"{study}.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        modality="CR",
        sha256="a" * 64,
        size=1,
        key="k",
        calling_ae="CT1",
        called_ae="PELLUCID",
        address="10.0.0.9",
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


class House:
    def __init__(self, folder: Path) -> None:
        self._log = AuditLog(folder)
        self.witness = RecordingWitness(Trail(self._log, process="test"), ListenerMetrics(CollectorRegistry()))

    def records(self) -> list[Record]:
        return [record for record, _ in self._log.records()]

    def told(self) -> list[tuple[str, str]]:
        return [(record.kind, record.study) for record in self.records()]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "audit")


def test_each_study_of_an_association_begins_once_and_ends_with_its_counts(house: House) -> None:
    for sop, sop_class, outcome in (
        ("1", CR, Outcome.STORED),
        ("2", CR, Outcome.STORED),
        ("3", DX, Outcome.SET_ASIDE),
    ):
        house.witness.arrived("a", instance(sop, sop_class=sop_class), outcome)
    house.witness.arrived("a", instance("4", study="1.2.4"), Outcome.REPEATED)
    assert house.told() == [("receiving", "1.2.3"), ("receiving", "1.2.4")]
    house.witness.ended("a")
    assert house.told()[2:] == [("received", "1.2.3"), ("received", "1.2.4")]
    first, second = (details(record) for record in house.records()[2:])
    assert (first[f"SOP class {CR}"], first[f"SOP class {DX}"]) == ("2", "1")
    assert (first["stored"], first["set aside"]) == ("2", "1")
    assert (second[f"SOP class {CR}"], second["repeated"]) == ("1", "1")


def test_an_association_ends_for_itself_and_once(house: House) -> None:
    house.witness.arrived("a", instance("1"), Outcome.STORED)
    house.witness.arrived("b", instance("2"), Outcome.STORED)
    house.witness.ended("a")
    house.witness.ended("a")
    assert [kind for kind, _ in house.told()] == ["receiving", "receiving", "received"]
    house.witness.ended("b")
    assert [kind for kind, _ in house.told()][3:] == ["received"]


@pytest.mark.parametrize(
    ("kind", "code"), [("tls", "110126"), ("address", "110126"), ("calling-ae", "110132"), ("called-ae", "110132")]
)
def test_a_stranger_is_told_from_a_peer_that_asks_for_what_it_may_not(house: House, kind: str, code: str) -> None:
    house.witness.turned_away("10.6.6.6", kind, "the reason in full")
    (record,) = house.records()
    assert (record.kind, details(record)["reason"]) == ("alert", "the reason in full")
    assert f'<EventTypeCode csd-code="{code}"' in record.message


def test_a_modality_that_finds_all_places_taken_is_no_intruder(house: House) -> None:
    house.witness.turned_away("10.0.0.9", "limit", "all places are taken")
    assert house.records() == []
