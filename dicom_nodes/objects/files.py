"""Finds DICOM files: single files, folders and what a DICOMDIR lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import dcmread

from dicom_nodes.objects.part10 import tolerant
from service.errors import InvalidInstanceError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_MAGIC = slice(128, 132)


def dicom_files(paths: Iterable[Path]) -> list[Path]:
    """List the DICOM files among files and folders, sorted; a file that is named is listed whatever it holds."""
    found: dict[Path, None] = {}
    for path in paths:
        for file in _expand(path):
            found[file] = None
    return list(found)


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        directory = path / "DICOMDIR"
        if directory.is_file():
            return _listed(directory)
        return [file for file in sorted(path.rglob("*")) if file.is_file() and _may_be_part10(file)]
    return _listed(path) if path.name.upper() == "DICOMDIR" else [path]


def _may_be_part10(path: Path) -> bool:
    try:
        return is_part10(path)
    except OSError:
        return True  # who reads it will say what is wrong


def is_part10(path: Path) -> bool:
    """Tell whether a file has the DICOM prefix after its preamble (PS3.10 section 7.1)."""
    with path.open("rb") as file:
        return file.read(132)[_MAGIC] == b"DICM"


def _listed(directory: Path) -> list[Path]:
    """Files that a DICOMDIR names (PS3.3 F.3) and that lie below it, or should: who reads them will miss them.

    Raises:
        InvalidInstanceError: it cannot be read, or names nothing.
    """
    root = directory.parent.resolve()
    found: set[Path] = set()
    with tolerant():
        try:
            records = dcmread(directory).get("DirectoryRecordSequence") or ()
            named = [record.get("ReferencedFileID") for record in records]
            for parts in filter(None, named):
                found.add(root.joinpath(*([parts] if isinstance(parts, str) else map(str, parts))).resolve())
        except Exception:  # noqa: BLE001 - whatever pydicom and the file system make of hostile bytes
            raise InvalidInstanceError(f"{directory} is no readable DICOMDIR.") from None
    files = sorted(file for file in found if file.is_relative_to(root))
    if not files:
        raise InvalidInstanceError(f"{directory} names no file below it.")
    return files
