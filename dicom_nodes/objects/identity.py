"""Who we are, and the names of what we write: UIDs derived from the work, so a repeat never duplicates."""

from __future__ import annotations

import uuid

MANUFACTURER = "Pellucid"
MODEL_NAME = "Pellucid explanation service"
IMPLEMENTATION_CLASS_UID = "2.25.112613733968372214325474116935906306581"
"""Made once at random; names this implementation (PS3.7 D.3.3.2)."""
IMPLEMENTATION_VERSION_NAME = "PELLUCID_0_1"
_NAMESPACE = uuid.UUID("7f0d9a52-5d0f-4d6f-9a5b-6d0c5a2f3e11")


def derived_uid(*parts: str) -> str:
    """Return a UUID-derived UID (PS3.5 B.2) of the parts: equal parts, equal UID, on every machine."""
    # The lengths keep ("ab", "c") and ("a", "bc") apart.
    name = "".join(f"{len(part)}:{part}" for part in parts)
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"


def sop_instance_uid(*, job_id: str, kind: str, source_sop_uid: str, ordinal: int = 0) -> str:
    """Name one object of a job: the same job makes the same object again."""
    return derived_uid("instance", job_id, kind, source_sop_uid, str(ordinal))


def series_instance_uid(*, study_uid: str, pipeline: str, kind: str, number: int) -> str:
    """Name the series of one kind of object; one per study and pipeline, so that worklists stay tidy.

    Its Series Number is part of the name: a pipeline that is given another number begins another series, as all
    instances of a series have one number (PS3.3 C.7.3.1).
    """
    return derived_uid("series", study_uid, pipeline, kind, str(number))


def tracking_uid(*, job_id: str, source_sop_uid: str, finding: str, ordinal: int) -> str:
    """Name one region of a report (PS3.16 TID 1410, Tracking Unique Identifier)."""
    return derived_uid("tracking", job_id, source_sop_uid, finding, str(ordinal))


def device_uid(*, model_sha256: str) -> str:
    """Name the observing device: the model, by its weights."""
    return derived_uid("device", model_sha256)


def is_our_equipment(manufacturer: str, model_name: str) -> bool:
    """Tell whether Manufacturer (0008,0070) and Manufacturer's Model Name (0008,1090) are those that we write.

    The SOP class does not say: a chest radiograph can arrive as Secondary Capture.
    """
    return manufacturer == MANUFACTURER and model_name == MODEL_NAME
