"""What a DICOM file holds, whatever the archive wrote around it."""

from __future__ import annotations

import hashlib
import io

from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset


def dataset_sha256(file: bytes) -> str:
    """Hash a file's data set, encoded anew in one way: archives choose the lengths of sequences for themselves."""
    found = dcmread(io.BytesIO(file), force=True)
    for element in found.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = False
            for entry in element.value:
                entry.is_undefined_length_sequence_item = False
    plain = Dataset()
    plain.update({element.tag: element for element in found if element.tag.group > 0x0002 and element.tag.element})
    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = True, False
    write_dataset(target, plain)
    return hashlib.sha256(target.getvalue()).hexdigest()
