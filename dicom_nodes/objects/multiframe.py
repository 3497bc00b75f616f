"""What Segmentations and Parametric Maps share: equipment, frame of reference, functional groups, dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from dicom_nodes.objects import codes, identity
from dicom_nodes.objects.anatomy import add_body_part
from dicom_nodes.objects.attributes import text
from dicom_nodes.objects.codes import dcm
from dicom_nodes.objects.derived import reference
from dicom_nodes.objects.lossy import add_lossy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.dataset import FileDataset

    from dicom_nodes.objects.geometry import Geometry
    from dicom_nodes.objects.subject import Subject
    from service.concepts import Code

IMAGE_POSITION = 0x00200032
PLANE_POSITION_GROUP = 0x00209113


def add_multiframe(dataset: FileDataset, about: Subject, geometry: Geometry) -> None:
    """Write Enhanced General Equipment, Frame of Reference, and where the sources lie."""
    dataset.DeviceSerialNumber = f"sha256 {about.result.model.sha256[:16]}"
    dataset.FrameOfReferenceUID = geometry.frame_of_reference_uid
    dataset.PositionReferenceIndicator = geometry.position_reference
    add_lossy(about.headers, dataset)
    series = Dataset()
    series.SeriesInstanceUID = text(about.header, "SeriesInstanceUID")
    series.ReferencedInstanceSequence = [reference(header) for header in about.headers]
    dataset.ReferencedSeriesSequence = [series]
    # Laterality would contradict Frame Anatomy, which speaks for every frame.
    add_body_part(about.header, dataset, side=False)


def add_dimensions(dataset: Dataset, job_id: str, pointers: Sequence[tuple[int, int]]) -> None:
    """Write Multi-frame Dimension (PS3.3 C.7.6.17): (index pointer, functional group pointer) of each dimension."""
    uid = identity.derived_uid("dimensions", job_id, str(dataset.SOPInstanceUID))
    organization = Dataset()
    organization.DimensionOrganizationUID = uid
    dataset.DimensionOrganizationSequence = [organization]
    indices = []
    for pointer, group in pointers:
        item = Dataset()
        item.DimensionOrganizationUID = uid
        item.DimensionIndexPointer = pointer
        item.FunctionalGroupPointer = group
        indices.append(item)
    dataset.DimensionIndexSequence = indices


def shared_geometry(geometry: Geometry) -> Dataset:
    """Return the Shared Functional Groups item with Pixel Measures and Plane Orientation."""
    measures = Dataset()
    measures.PixelSpacing = [f"{value:.10g}" for value in geometry.pixel_spacing]
    measures.SliceThickness = f"{geometry.slice_thickness:.10g}"
    measures.SpacingBetweenSlices = f"{geometry.slice_spacing:.10g}"
    orientation = Dataset()
    orientation.ImageOrientationPatient = [f"{value:.8g}" for value in geometry.orientation]
    item = Dataset()
    item.PixelMeasuresSequence = [measures]
    item.PlaneOrientationSequence = [orientation]
    return item


def frame(about: Subject, geometry: Geometry, index: int, dimension_values: Sequence[int], derivation: Code) -> Dataset:
    """Return the Per-frame Functional Groups item of a frame that lies exactly on slice `index`."""
    content = Dataset()
    content.DimensionIndexValues = list(dimension_values)
    position = Dataset()
    position.ImagePositionPatient = [f"{value:.10g}" for value in geometry.positions[index]]
    item = Dataset()
    item.FrameContentSequence = [content]
    item.PlanePositionSequence = [position]
    item.DerivationImageSequence = [_derivation(about.headers[index], derivation)]
    return item


def _derivation(header: Dataset, derivation: Code) -> Dataset:
    source = reference(header)
    source.PurposeOfReferenceCodeSequence = [codes.item(codes.SOURCE_IMAGE)]
    source.SpatialLocationsPreserved = "YES"
    item = Dataset()
    item.DerivationCodeSequence = [codes.item(derivation)]
    item.SourceImageSequence = [source]
    return item


def method_identification(about: Subject) -> Dataset:
    """Return Algorithm Identification (PS3.3 table 10-19) of the model."""
    item = Dataset()
    item.AlgorithmFamilyCodeSequence = [codes.item(dcm("123110", "Artificial Intelligence"))]
    item.AlgorithmName = about.result.model.title[:64]
    item.AlgorithmVersion = about.result.model.version[:64]
    return item
