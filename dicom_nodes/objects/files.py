"""Finds DICOM files: single files, folders and what a DICOMDIR lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

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
        return [file for file in sorted(path.rglob("*")) if file.is_file() and is_part10(file)]
    return _listed(path) if path.name.upper() == "DICOMDIR" else [path]


def is_part10(path: Path) -> bool:
    """Tell whether a file has the DICOM prefix after its preamble (PS3.10 section 7.1)."""
    with path.open("rb") as file:
        return file.read(132)[_MAGIC] == b"DICM"


def _listed(directory: Path) -> list[Path]:
    """Files that a DICOMDIR names (PS3.3 F.3) and that lie below it."""
    try:
        dataset = dcmread(directory)
    except InvalidDicomError:
        return []
    root = directory.parent.resolve()
    files = []
    for record in dataset.get("DirectoryRecordSequence", ()):
        parts = record.get("ReferencedFileID")
        if parts:
            file = root.joinpath(*([parts] if isinstance(parts, str) else parts)).resolve()
            if file.is_relative_to(root) and file.is_file():
                files.append(file)
    return sorted(files)
