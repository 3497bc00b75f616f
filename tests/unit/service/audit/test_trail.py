from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, fromstring

import pytest

from service.audit import message
from service.audit.chain import AuditLog, Record
from service.audit.commands import details
from service.audit.digest import settings_digest
from service.audit.trail import Trail
from service.records import Delivery, DeliveryState, Instance, Job, JobState, OutboxObject
from service.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from service.concepts import Code

CR = "1.2.840.10008.5.1.4.1.1.1"
STUDY = "1.2.3"


class House:
    def __init__(self, folder: Path) -> None:
        self.now = 1_770_000_000.0
        self.failures = 0
        self.log = AuditLog(folder, lambda: self.now)
        self.trail = Trail(
            self.log,
            process="test",
            source="ai.example",
            settings_sha256="5" * 64,
            failed=self._failed,
            clock=lambda: self.now,
        )

    def _failed(self) -> None:
        self.failures += 1

    def records(self) -> list[Record]:
        return [record for record, _ in self.log.records()]

    def only(self) -> tuple[Record, Element]:
        (record,) = self.records()
        return record, fromstring(record.message)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "audit")


def event_of(root: Element) -> tuple[str, str, str]:
    identification = root.find("EventIdentification")
    event_id = root.find("EventIdentification/EventID")
    assert identification is not None
    assert event_id is not None
    return (
        event_id.attrib["csd-code"],
        identification.attrib["EventActionCode"],
        identification.attrib["EventOutcomeIndicator"],
    )


def role_of(participant: Element) -> str:
    role = participant.find("RoleIDCode")
    assert role is not None
    return role.attrib["csd-code"]


def instance() -> Instance:
    return Instance(
        sop_instance_uid="1.2.3.4",
        sop_class_uid=CR,
        study_instance_uid=STUDY,
        series_instance_uid="1.2.3.1",
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


def made() -> OutboxObject:
    return OutboxObject(
        sop_instance_uid="2.25.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
        study_instance_uid=STUDY,
        series_instance_uid="2.25.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        job_id="j" * 32,
        kind="secondary-capture",
        key="k",
        sha256="b" * 64,
        size=1,
    )


def job() -> Job:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Job(
        id="j" * 32,
        study_instance_uid=STUDY,
        pipeline="chest",
        pipeline_version="1",
        model_sha256="c" * 64,
        calling_ae="CT1",
        called_ae="PELLUCID",
        sop_instance_uids=("1.2.3.4",),
        state=JobState.RUNNING,
        reason="",
        attempts=1,
        created_at=now,
        updated_at=now,
    )


def delivery() -> Delivery:
    return Delivery(
        object=made(),
        destination="pacs",
        state=DeliveryState.PENDING,
        attempts=0,
        next_attempt_at=datetime(2026, 1, 1, tzinfo=UTC),
        reason="",
    )


def test_a_process_writes_its_start_and_its_stop(house: House) -> None:
    with pytest.raises(SystemExit), house.trail.application():
        raise SystemExit(0)
    kinds = [fromstring(record.message).find("EventIdentification/EventTypeCode") for record in house.records()]
    assert [kind.attrib["csd-code"] for kind in kinds if kind is not None] == ["110120", "110121"]


def test_received_instances_name_peer_study_and_counts(house: House) -> None:
    house.trail.received(instance(), {CR: 3}, {"set aside": "1"})
    record, root = house.only()
    assert record.study == STUDY
    assert event_of(root) == ("110104", "C", "0")
    source, destination = root.findall("ActiveParticipant")
    assert source.attrib["UserID"] == "CT1"
    assert source.attrib["NetworkAccessPointID"] == "10.0.0.9"
    assert destination.attrib["UserID"] == "PELLUCID"
    assert [role_of(each) for each in (source, destination)] == ["110153", "110152"]
    assert [each.attrib["UserIsRequestor"] for each in (source, destination)] == ["true", "false"]
    (listed,) = root.iter("SOPClass")
    assert listed.attrib == {"UID": CR, "NumberOfInstances": "3"}
    assert details(record)["set aside"] == "1"


def test_the_patient_stands_there_without_a_number(house: House) -> None:
    house.trail.receiving(instance())
    _, root = house.only()
    study, patient = root.findall("ParticipantObjectIdentification")
    assert study.attrib["ParticipantObjectID"] == STUDY
    assert (patient.attrib["ParticipantObjectTypeCode"], patient.attrib["ParticipantObjectID"]) == ("1", "withheld")


def test_a_result_names_inputs_model_software_and_settings(house: House) -> None:
    house.trail.result(job(), {"1.2.3.4": "a" * 64}, (made(),), state="done")
    record, root = house.only()
    assert event_of(root) == ("110103", "C", "0")
    found = details(record)
    assert found["input 1.2.3.4 sha256"] == "a" * 64
    assert found["object 2.25.1 sha256"] == "b" * 64
    assert found["model sha256"] == "c" * 64
    assert found["settings sha256"] == "5" * 64
    assert found["software"].startswith("pellucid ")
    assert (found["state"], found["attempt"], found["pipeline"]) == ("done", "1", "chest 1")
    assert (record.study, record.job) == (STUDY, "j" * 32)


def test_sending_begins_with_all_objects_of_a_job_and_whom_they_are_for(house: House) -> None:
    second = dataclasses.replace(delivery(), object=dataclasses.replace(made(), sop_instance_uid="2.25.9"))
    house.trail.sending([delivery(), second], "10.0.0.1")
    record, root = house.only()
    assert (record.kind, record.study, record.job) == ("sending", STUDY, "j" * 32)
    assert event_of(root) == ("110102", "E", "0")
    assert details(record)["SOP class 1.2.840.10008.5.1.4.1.1.7"] == "2 2.25.1 2.25.9"
    source, destination = root.findall("ActiveParticipant")
    assert [role_of(each) for each in (source, destination)] == ["110153", "110152"]
    assert (source.attrib["UserID"], source.attrib["UserIsRequestor"]) == ("pellucid test", "true")
    assert (destination.attrib["UserID"], destination.attrib["NetworkAccessPointID"]) == ("pacs", "10.0.0.1")


@pytest.mark.parametrize(("accepted", "outcome", "kind"), [(True, "0", "sent"), (False, "8", "rejected")])
def test_a_transfer_holds_the_receivers_answer(house: House, accepted: bool, outcome: str, kind: str) -> None:
    house.trail.sent(delivery(), "10.0.0.1:104", accepted=accepted, answer="0xB000 coercion of data elements")
    record, root = house.only()
    assert record.kind == kind
    assert event_of(root) == ("110104", "R", outcome)
    assert (record.study, record.job) == (STUDY, "j" * 32)
    told = details(record)
    assert (told["answer"], told["attempt"]) == ("0xB000 coercion of data elements", "1")
    description = root.find("EventIdentification/EventOutcomeDescription")
    assert description is not None
    assert description.text == "0xB000 coercion of data elements"


@pytest.mark.parametrize(("held", "outcome", "kind"), [(True, "0", "confirmed"), (False, "4", "not confirmed")])
def test_a_confirmation_is_a_record_of_its_own(house: House, held: bool, outcome: str, kind: str) -> None:
    house.trail.confirmed(delivery(), held=held, answer="Storage Commitment")
    record, root = house.only()
    assert record.kind == kind
    assert event_of(root) == ("110104", "R", outcome)
    assert details(record)["object sha256"] == "b" * 64


def test_a_flood_of_alerts_becomes_one_a_minute_that_counts_the_rest(house: House) -> None:
    for _ in range(1000):
        house.trail.alert("10.6.6.6", "unknown AE title")
    house.trail.alert("10.6.6.7", "unknown AE title")
    assert len(house.records()) == 2
    house.now += 61
    house.trail.alert("10.6.6.6", "unknown AE title")
    last = house.records()[-1]
    assert event_of(fromstring(last.message))[0] == "110113"
    assert details(last)["same alerts left out before"] == "999"


@pytest.mark.parametrize(
    ("kind", "code"), [(message.NODE_AUTHENTICATION, "110126"), (message.USE_OF_RESTRICTED_FUNCTION, "110132")]
)
def test_an_alert_tells_a_stranger_from_a_peer_that_may_not(house: House, kind: Code, code: str) -> None:
    house.trail.alert("10.6.6.6", "unknown AE title", kind=kind)
    _, root = house.only()
    assert event_of(root) == ("110113", "E", "4")
    told = root.find("EventIdentification/EventTypeCode")
    assert told is not None
    assert told.attrib["csd-code"] == code


def test_alerts_of_ever_new_addresses_fill_no_memory(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.audit.trail._MAXIMUM_ALERTS", 10)
    for number in range(25):
        house.trail.alert(f"10.6.6.{number}", "unknown AE title")
    assert len(house.trail._alerts) <= 10
    assert len(house.records()) == 25


def test_what_retention_removed_is_a_deletion(house: House) -> None:
    house.trail.purged("retention", {"instances": "3"})
    house.trail.log_purged(number=7, digest="d" * 64)
    instances, own_log = (fromstring(record.message) for record in house.records())
    assert [event_of(root) for root in (instances, own_log)] == [("110103", "D", "0"), ("110101", "D", "0")]
    assert details(house.records()[1])["records up to"] == "7"


def test_a_message_has_the_time_and_the_name_of_its_record(house: House) -> None:
    house.trail.receiving(instance())
    record, root = house.only()
    identification, source = root.find("EventIdentification"), root.find("AuditSourceIdentification")
    assert identification is not None
    assert source is not None
    assert identification.attrib["EventDateTime"] == record.at == "2026-02-02T02:40:00.000+00:00"
    assert source.attrib["AuditSourceID"] == "ai.example"


def test_a_log_that_cannot_be_written_is_counted_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    house = House(tmp_path / "file" / "audit")
    house.trail.receiving(instance())
    assert house.failures == 1
    assert "audit log cannot be written" in caplog.text


def test_the_settings_digest_tells_settings_apart_and_holds_no_secret() -> None:
    def digest(**values: str) -> str:
        return settings_digest(load_settings(None, {f"PELLUCID__{name}": value for name, value in values.items()}))

    secrets = {"LEDGER__DATABASE_URL": "postgresql+psycopg://a:secret@b/c", "DICOMWEB__TOKEN": "secret"}
    assert digest() == digest(**secrets)
    assert digest() != digest(WORKER__LEASE_S="31.0")


def test_hostile_names_stay_text(house: House) -> None:
    house.trail.alert('"><x>&\x00', "AE title \x00\x1b[31m <script>")
    record, root = house.only()
    assert len(root.findall("ParticipantObjectIdentification")) == 1
    assert details(record)["reason"] == "AE title \x00\x1b[31m <script>"
