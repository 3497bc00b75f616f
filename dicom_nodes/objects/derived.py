"""What every object of ours has in common: file meta, patient, study, series, equipment, contributors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta, timezone
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID

from dicom_nodes.objects import codes, identity
from dicom_nodes.objects.attributes import integer, text
from dicom_nodes.objects.patient_study import copy_patient_and_study

if TYPE_CHECKING:
    from datetime import datetime

    from service.results import ModelIdentity, Refusal, Result

_OFFSET = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)")
_LO = 64
_LARGEST_IS = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of object: where it stands in the study and what the worklist calls it."""

    name: str
    sop_class_uid: str
    transfer_syntax_uid: str
    modality: str
    place: int
    """Added to the pipeline's `series_number`: 1 to 9 are built in (`catalogue`), a hospital's own take 10 to 99."""
    series_description: str


def start(source: Dataset, run: Result | Refusal, kind: Kind, *, ordinal: int = 0) -> FileDataset:
    """Begin an object of one kind about one source instance.

    Dates and times are the job's, so that a repeated task writes equal bytes.
    """
    uid = identity.sop_instance_uid(
        job_id=run.job_id, kind=kind.name, source_sop_uid=text(source, "SOPInstanceUID"), ordinal=ordinal
    )
    dataset = FileDataset("", {}, file_meta=_file_meta(kind, uid), preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    copy_patient_and_study(source, dataset)
    dataset.SOPClassUID = kind.sop_class_uid
    dataset.SOPInstanceUID = uid
    dataset.Modality = kind.modality
    dataset.SeriesNumber = run.series_number + kind.place
    dataset.SeriesInstanceUID = identity.series_instance_uid(
        study_uid=text(source, "StudyInstanceUID"),
        pipeline=run.pipeline,
        kind=kind.name,
        number=run.series_number + kind.place,
    )
    dataset.SeriesDescription = kind.series_description[:_LO]
    dataset.InstanceNumber = min(max(1, integer(source, "InstanceNumber", 1)) + ordinal, _LARGEST_IS)
    _add_times(source, dataset, run.created_at)
    _add_equipment(dataset, run, local_time(source, run.created_at))
    return dataset


def local_time(source: Dataset, moment: datetime) -> datetime:
    """Return `moment` in the time zone that the source's own dates are in.

    Timezone Offset From UTC (0008,0201) governs every date of a data set, the copied ones included. Where the source
    is silent its dates are local to the hospital by convention: then `moment` stays in the zone that it came in.
    """
    match = _OFFSET.fullmatch(text(source, "TimezoneOffsetFromUTC"))
    if not match:
        return moment
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return moment.astimezone(timezone(-offset if match[1] == "-" else offset))


def reference(dataset: Dataset) -> Dataset:
    """Return a Referenced SOP item for an instance (PS3.3 table 10-11)."""
    item = Dataset()
    item.ReferencedSOPClassUID = text(dataset, "SOPClassUID")
    item.ReferencedSOPInstanceUID = text(dataset, "SOPInstanceUID")
    return item


def _file_meta(kind: Kind, uid: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = UID(kind.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(uid)
    meta.TransferSyntaxUID = UID(kind.transfer_syntax_uid)
    meta.ImplementationClassUID = UID(identity.IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = identity.IMPLEMENTATION_VERSION_NAME
    return meta


def _add_times(source: Dataset, dataset: Dataset, created_at: datetime) -> None:
    moment = local_time(source, created_at)
    # No Series Date: a later job adds instances to the same series, whose attributes must stay equal.
    for prefix in ("Content", "InstanceCreation"):
        setattr(dataset, f"{prefix}Date", moment.strftime("%Y%m%d"))
        setattr(dataset, f"{prefix}Time", moment.strftime("%H%M%S"))


def _add_equipment(dataset: Dataset, run: Result | Refusal, moment: datetime) -> None:
    """General Equipment says who made the object; Contributing Equipment which model (IHE AI Results)."""
    dataset.Manufacturer = identity.MANUFACTURER
    dataset.ManufacturerModelName = identity.MODEL_NAME
    dataset.SoftwareVersions = run.software_version[:_LO]
    dataset.ContributingEquipmentSequence = [_contributing(run.model, run, moment)]


def _contributing(model: ModelIdentity, run: Result | Refusal, moment: datetime) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [codes.item(codes.PROCESSING_EQUIPMENT)]
    item.Manufacturer = model.manufacturer[:_LO]
    item.ManufacturerModelName = model.title[:_LO]
    item.SoftwareVersions = [model.version[:_LO], f"{run.pipeline} {run.pipeline_version}"[:_LO]]
    item.DeviceUID = identity.device_uid(model_sha256=model.sha256)
    # Without an offset of its own, which dcmtk's checker of presentation states takes for an error: like every
    # date of the object it is in Timezone Offset From UTC, or local.
    item.ContributionDateTime = moment.strftime("%Y%m%d%H%M%S")
    item.ContributionDescription = "Classified the image and explained the result"[:_LO]
    return item
