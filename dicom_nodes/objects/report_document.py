"""What all our Structured Reports share: kind, document module, evidence, language, observer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_nodes.objects import codes, identity
from dicom_nodes.objects import content_items as content
from dicom_nodes.objects.attributes import text
from dicom_nodes.objects.codes import dcm
from dicom_nodes.objects.derived import Kind, reference, start
from service.concepts import Code
from service.results import Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.dataset import FileDataset

    from service.images import Image
    from service.records import OutboxObject
    from service.results import ModelIdentity, Refusal

_SR_CLASSES = "1.2.840.10008.5.1.4.1.1.88."
_ENGLISH = Code(value="en-US", scheme="RFC5646", meaning="English (United States)")


def report_kind(name: str, sop_class_uid: str, *, place: int, series_description: str) -> Kind:
    """Return a kind of object that is a Structured Report."""
    return Kind(
        name=name,
        sop_class_uid=sop_class_uid,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        modality="SR",
        place=place,
        series_description=series_description,
    )


def write_report(
    sources: Sequence[Dataset],
    run: Result | Refusal,
    kind: Kind,
    title: Code,
    items: Sequence[Dataset],
    *,
    template: str = "",
) -> FileDataset:
    """Write a report: its language, who observed, its content.

    Args:
        sources: headers of what it is about, instances of one series.
        run: whose report it is. Of what it supersedes only reports are predecessors; a picture is no document.
        kind: see `report_kind`.
        title: concept of the root.
        items: what the root holds.
        template: of the root, if it follows one of PS3.16.
    """
    dataset = start(sources[0], run, kind)
    _add_document(sources, dataset, run.supersedes if isinstance(run, Result) else ())
    context = observer(run.model, run.software_version)
    # Viewers print items in their order. Templates begin with the observer; without one, what people opened it for.
    told = [*context, *items] if template else [*items, *context]
    dataset.update(content.container(title, [language(), *told], template=template, relationship=""))
    return dataset


def _add_document(sources: Sequence[Dataset], dataset: FileDataset, supersedes: Sequence[OutboxObject]) -> None:
    """Write the SR Document General module (PS3.3 C.17.2): complete, and verified by nobody."""
    dataset.CodingSchemeIdentificationSequence = [codes.private_scheme()]
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.PerformedProcedureCodeSequence = []
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.CurrentRequestedProcedureEvidenceSequence = [evidence(sources)]
    predecessors = [earlier for earlier in supersedes if earlier.sop_class_uid.startswith(_SR_CLASSES)]
    if predecessors:
        dataset.PredecessorDocumentsSequence = [_predecessor(earlier) for earlier in predecessors]


def evidence(sources: Sequence[Dataset]) -> Dataset:
    """Return the Hierarchical SOP Instance Reference of instances of one series."""
    first = sources[0]
    instances = [reference(source) for source in sources]
    return _hierarchy(text(first, "StudyInstanceUID"), text(first, "SeriesInstanceUID"), instances)


def _predecessor(earlier: OutboxObject) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = earlier.sop_class_uid
    item.ReferencedSOPInstanceUID = earlier.sop_instance_uid
    return _hierarchy(earlier.study_instance_uid, earlier.series_instance_uid, [item])


def _hierarchy(study: str, series: str, instances: list[Dataset]) -> Dataset:
    """Hierarchical SOP Instance Reference (PS3.3 C.17.2.1)."""
    inner = Dataset()
    inner.SeriesInstanceUID = series
    inner.ReferencedSOPSequence = instances
    outer = Dataset()
    outer.StudyInstanceUID = study
    outer.ReferencedSeriesSequence = [inner]
    return outer


def language() -> Dataset:
    """Return the language of the words (TID 1204)."""
    name = dcm("121049", "Language of Content Item and Descendants")
    return content.code(name, _ENGLISH, relationship=content.MODIFIER)


def procedure_reported(image: Image) -> Dataset:
    """Return the imaging procedure whose images were read (TID 1500 row 4; required by IHE AI Results)."""
    procedure = codes.procedure_code(image.header.modality, image.header.body_part)
    return content.code(dcm("121058", "Procedure reported"), procedure, relationship=content.MODIFIER)


def observer(model: ModelIdentity, software_version: str) -> list[Dataset]:
    """Return the observer context of a device (TID 1002, TID 1004): the model observes, no person does."""
    device = {
        ("121013", "Device Observer Name"): model.title,
        ("121014", "Device Observer Manufacturer"): model.manufacturer,
        ("121015", "Device Observer Model Name"): f"{model.name} {model.version}",
        ("121016", "Device Observer Serial Number"): f"sha256 {model.sha256} / Pellucid {software_version}",
    }
    device_uid = identity.device_uid(model_sha256=model.sha256)
    return [
        content.code(dcm("121005", "Observer Type"), dcm("121007", "Device"), relationship=content.CONTEXT),
        content.uid(dcm("121012", "Device Observer UID"), device_uid, relationship=content.CONTEXT),
        *(content.text(dcm(*name), value, relationship=content.CONTEXT) for name, value in device.items() if value),
    ]
