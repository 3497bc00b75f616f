"""Decodes one compressed frame and ends: `python -m dicom_nodes.objects.decode_child`.

Standard input is the file's name. Standard output is one line of JSON (`dtype`, `shape`, or `error`) and then the bytes
of the array. The parent decides about time; memory and processor time are limited here.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gdcm
import numpy as np
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, JPEGExtended12Bit

from dicom_nodes.objects.part10 import read_part10, tolerant

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

MEMORY_GROWTH = 2**30
"""Bytes of address space beyond what the started process already has."""
CPU_SECONDS = 10
"""A 30-megapixel JPEG 2000 mammogram takes 3 s on one slow core."""


def main() -> int:
    """Wait for a file's name, decode that file."""
    _limit()
    name = sys.stdin.buffer.read()
    if not name:
        return 0  # our parent ended and needs nothing
    try:
        path = Path(os.fsdecode(name))
        dataset = read_part10(path, pixels=True)
        is_extended = dataset.file_meta.TransferSyntaxUID == JPEGExtended12Bit and dataset.BitsAllocated > 8  # noqa: PLR2004
        pixels = _extended(path, dataset) if is_extended else _decode(dataset)
    except MemoryError:
        return _answer({"error": "memory"})
    except NotImplementedError:
        return _answer({"error": "unsupported"})
    except Exception:  # noqa: BLE001 - the outermost loop of the process; decoders raise anything
        return _answer({"error": "damaged"})
    _answer({"dtype": pixels.dtype.str, "shape": pixels.shape})
    sys.stdout.buffer.write(np.ascontiguousarray(pixels).data)
    return 0


def _answer(head: dict[str, Any]) -> int:
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n")
    return 0 if "error" not in head else 1


def _limit() -> None:
    statm = Path("/proc/self/statm")
    if statm.exists():
        in_use = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY_GROWTH, in_use + MEMORY_GROWTH))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _decode(dataset: Dataset) -> NDArray[Any]:
    """Try each decoder that is installed, gdcm last: it crashes most, and is needed for JPEG Lossless."""
    decoder = get_decoder(UID(str(dataset.file_meta.TransferSyntaxUID)))
    plugins = sorted(decoder.available_plugins, key=lambda plugin: plugin == "gdcm")
    if not plugins:
        raise NotImplementedError
    failure: Exception = NotImplementedError()
    for plugin in plugins:
        try:
            with tolerant():
                return np.asarray(decoder.as_array(dataset, index=0, decoding_plugin=plugin)[0])
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the next decoder may read it
            failure = error
    raise failure


def _extended(path: Path, dataset: Dataset) -> NDArray[Any]:
    """Decode JPEG Extended of 12 bits by gdcm's own reader: pydicom's way to it, and every other decoder, refuses."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        raise ValueError
    buffer = reader.GetImage().GetBuffer()
    data = buffer.encode("utf-8", "surrogateescape") if isinstance(buffer, str) else buffer
    return np.frombuffer(data, dtype="<i2" if dataset.PixelRepresentation else "<u2").reshape(
        dataset.Rows, dataset.Columns
    )


if __name__ == "__main__":
    raise SystemExit(main())
