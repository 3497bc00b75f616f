"""Reads Part 10 files within bounds: a hostile file costs a message, never the process."""

from __future__ import annotations

import io
import re
import warnings
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import pydicom
from pydicom import config
from pydicom.dataset import FileDataset
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_nodes.objects.character_sets import declare_actual
from service.errors import InvalidInstanceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.tag import BaseTag

MAX_INFLATED_BYTES = 256 * 2**20
"""A deflated data set may grow to this; 1 MB of zeros' deflate grows to 1 GB."""
MAX_FILE_BYTES = 2**30
"""A file whose pixels are wanted may be this large: it is read into memory."""
MAX_DEPTH = 8
MAX_ITEMS = 64
"""Of sequences that are looked into; deeper and longer ones are made to exhaust us, or hold the frames of a volume."""
_META_START = 132
_UID = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")
_PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})


class _Clamped(io.BufferedReader):
    """Reads no more than is there: Python allocates what an element claims before it looks."""

    def __init__(self, raw: io.FileIO, size: int) -> None:
        super().__init__(raw)
        self._size = size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


@contextmanager
def tolerant() -> Iterator[None]:
    """Read and write values as they are: no validation, no warning (its text would quote patient data)."""
    before = (config.settings.reading_validation_mode, config.settings.writing_validation_mode)
    config.settings.reading_validation_mode = config.IGNORE
    config.settings.writing_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.settings.reading_validation_mode, config.settings.writing_validation_mode = before


def read_part10(path: Path, *, pixels: bool) -> FileDataset:
    """Read one file; with `pixels` false everything before the pixel data, which is cheap.

    Every element of the result is converted and its text decoded; what cannot be converted is left out.

    Raises:
        InvalidInstanceError: the file is missing, no DICOM, truncated before its identity, nested too
            deep, or inflates to more than 256 MiB.
    """
    with tolerant():
        try:
            dataset = _read(path, pixels=pixels)
            _drop_unreadable(dataset)
        except OSError as error:
            # pydicom raises the same type, without a number, for a sequence that never ends.
            reason = "cannot be read from disk" if error.errno else "is cut off, or not in its transfer syntax"
            raise InvalidInstanceError(f"The file {reason}.") from None
        except RecursionError:
            raise InvalidInstanceError("The file nests sequences too deeply.") from None
        except InvalidInstanceError:
            raise
        except Exception:  # noqa: BLE001 - pydicom raises a dozen kinds on hostile bytes, RecursionError too
            # The cause is dropped on purpose: pydicom's messages may quote values of the patient.
            raise InvalidInstanceError("The file is not a readable DICOM instance.") from None
    _check_identity(dataset)
    return dataset


def _read(path: Path, *, pixels: bool) -> FileDataset:
    if not path.is_file():
        raise InvalidInstanceError("The file is not there, or is no file.")
    size = path.stat().st_size
    if pixels and size > MAX_FILE_BYTES:
        raise InvalidInstanceError("The file is larger than 1 GiB.")
    with path.open("rb") as file:
        is_part10 = file.read(_META_START)[128:] == b"DICM"
    if is_part10 and _transfer_syntax(path) == DeflatedExplicitVRLittleEndian:
        return _read_deflated(path, pixels=pixels)
    with _Clamped(io.FileIO(path), size) as stream:
        return pydicom.dcmread(stream, stop_before_pixels=not pixels, force=not is_part10)


def _transfer_syntax(path: Path) -> str:
    return str(read_file_meta_info(path).get("TransferSyntaxUID", ""))


def _read_deflated(path: Path, *, pixels: bool) -> FileDataset:
    meta = read_file_meta_info(path)
    with path.open("rb") as file:
        file.seek(_META_START + 12 + int(meta.FileMetaInformationGroupLength))
        stream = io.BytesIO(_inflate(file))
    stop = None if pixels else _at_pixels
    elements = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=stop)
    return FileDataset(
        str(path), elements, file_meta=meta, is_implicit_VR=False, is_little_endian=True, preamble=b"\0" * 128
    )


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in _PIXEL_TAGS


def _inflate(file: IO[bytes]) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(file.read(), MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise InvalidInstanceError("The deflated data set inflates to more than 256 MiB.")
    return inflated


def _drop_unreadable(dataset: Dataset) -> None:
    """Decode text by its true character set and convert every element now, while values are taken as is."""
    for tag in list(dataset.keys()):
        try:
            dataset.get_item(tag)
        except Exception:  # noqa: BLE001 - one broken element must not hide the others
            del dataset[tag]
    declare_actual(dataset)
    _convert(dataset, depth=0)


def _convert(dataset: Dataset, *, depth: int) -> None:
    """Convert every element, those of items too, as deep and as many as anything here looks at."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
            if element.VR == "SQ" and depth < MAX_DEPTH:
                for item in list(element.value or ())[:MAX_ITEMS]:
                    _convert(item, depth=depth + 1)
        except Exception:  # noqa: BLE001 - one broken element must not hide the others
            del dataset[tag]


def _check_identity(dataset: Dataset) -> None:
    """A UID that is none would break every reference to it; leading zeros are common and do no harm."""
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        value = dataset.get(keyword)
        if not value:
            raise InvalidInstanceError(f"The instance has no {keyword}.")
        if not _UID.fullmatch(str(value)):
            raise InvalidInstanceError(f"The {keyword} of the instance is no valid UID.")
