"""The content items of Structured Reports (PS3.3 C.17.3), one function per value type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from dicom_nodes.objects import codes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from service.concepts import Code

CONTAINS = "CONTAINS"
CONTEXT = "HAS OBS CONTEXT"
MODIFIER = "HAS CONCEPT MOD"
PROPERTIES = "HAS PROPERTIES"
SELECTED = "SELECTED FROM"
INFERRED = "INFERRED FROM"
ACQUISITION = "HAS ACQ CONTEXT"


def container(name: Code, children: Sequence[Dataset], *, template: str = "", relationship: str = CONTAINS) -> Dataset:
    """Return a CONTAINER; `template` is its TID in the DICOM Content Mapping Resource."""
    item = _item("CONTAINER", name, relationship)
    item.ContinuityOfContent = "SEPARATE"
    if template:
        item.ContentTemplateSequence = [content_template(template)]
    item.ContentSequence = list(children)
    return item


def content_template(template: str) -> Dataset:
    """Return the identification of a template of PS3.16."""
    item = Dataset()
    item.MappingResource = "DCMR"
    item.TemplateIdentifier = template
    return item


def text(name: Code, value: str, *, relationship: str = CONTAINS) -> Dataset:
    """Return a TEXT item."""
    item = _item("TEXT", name, relationship)
    item.TextValue = value or "-"
    return item


def code(name: Code, value: Code, *, relationship: str = CONTAINS, children: Sequence[Dataset] = ()) -> Dataset:
    """Return a CODE item."""
    item = _item("CODE", name, relationship)
    item.ConceptCodeSequence = [codes.item(value)]
    return _with(item, children)


def uid(name: Code, value: str, *, relationship: str = CONTAINS) -> Dataset:
    """Return a UIDREF item."""
    item = _item("UIDREF", name, relationship)
    item.UID = value
    return item


def number(
    name: Code,
    value: float,
    unit: Code,
    *,
    relationship: str = CONTAINS,
    children: Sequence[Dataset] = (),
) -> Dataset:
    """Return a NUM item; the value as a decimal string of six digits."""
    item = _item("NUM", name, relationship)
    measured = Dataset()
    measured.NumericValue = f"{value:.6g}"
    measured.MeasurementUnitsCodeSequence = [codes.item(unit)]
    item.MeasuredValueSequence = [measured]
    return _with(item, children)


def outline(name: Code, points: NDArray[np.float64], image: Dataset, *, relationship: str = CONTAINS) -> Dataset:
    """Return a SCOORD polyline on an image.

    Args:
        name: the concept.
        points: shape (n, 2), column and row from the top-left corner of the first pixel (PS3.3 C.18.6.1.1).
        image: a Referenced SOP item.
        relationship: to what it is a child of.
    """
    item = _item("SCOORD", name, relationship)
    item.GraphicType = "POLYLINE"
    item.GraphicData = [float(f"{coordinate:.2f}") for coordinate in points.ravel()]
    return _with(item, [reference("IMAGE", None, image, relationship=SELECTED)])


def reference(value_type: str, name: Code | None, referenced: Dataset, *, relationship: str = CONTAINS) -> Dataset:
    """Return an IMAGE or COMPOSITE item."""
    item = _item(value_type, name, relationship)
    item.ReferencedSOPSequence = [referenced]
    return item


def _item(value_type: str, name: Code | None, relationship: str) -> Dataset:
    item = Dataset()
    if relationship:
        item.RelationshipType = relationship
    item.ValueType = value_type
    if name is not None:
        item.ConceptNameCodeSequence = [codes.item(name)]
    return item


def _with(item: Dataset, children: Sequence[Dataset]) -> Dataset:
    if children:
        item.ContentSequence = list(children)
    return item
