"""From stored pixel values to grey values: modality LUT, VOI LUT, polarity (PS3.3 C.11.1, C.11.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import Dataset

from dicom_nodes.objects.attributes import integer, items, macro, number, numbers, text
from service.errors import NotEligibleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from service.images import Image

_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Of RGB, ITU-R BT.601; the same weights as YBR_FULL (PS3.3 C.7.6.3.1.2)."""
MONOCHROME = frozenset({"MONOCHROME1", "MONOCHROME2"})
_PERCENTILES = (0.5, 99.5)
_LUT_ENTRIES = 2**16
_FUNCTIONS = frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"})


def grey_values(dataset: Dataset, stored: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (values after the modality LUT, grey in [0, 1] in MONOCHROME2 sense).

    Args:
        dataset: the header of the image.
        stored: shape (rows, columns) of stored values, or (rows, columns, 3) of 8- or 16-bit RGB.

    Raises:
        NotEligibleError: the photometric interpretation has no grey values, or they are not finite.
    """
    if stored.ndim == 3:  # noqa: PLR2004 - rows, columns, samples
        return _luminance(stored, brightest(dataset, stored))
    if text(dataset, "PhotometricInterpretation").upper() not in MONOCHROME:
        raise NotEligibleError("The image is neither grey nor true colour.")
    values = modality_values(dataset, stored)
    padding = padding_mask(dataset, stored)
    if not np.isfinite(values).all():
        raise NotEligibleError("The image's rescale slope and intercept lead to values that are not finite.")
    grey = np.nan_to_num(voi_values(dataset, values, padding), copy=False)
    if is_inverted(dataset):
        grey = 1.0 - grey
    if padding is not None:
        # Padding is no anatomy: black, whatever the polarity, and never an extreme of the values.
        grey[padding] = 0.0
        values[padding] = values[~padding].min()
    return values, grey.astype(np.float32, copy=False)


def brightest(dataset: Dataset, stored: NDArray[Any]) -> int:
    """Return the largest value that a sample of a true colour or palette image can have."""
    whole = int(np.iinfo(stored.dtype).max)
    if text(dataset, "PhotometricInterpretation").upper() == "PALETTE COLOR":
        return whole
    return min(whole, (1 << integer(dataset, "BitsStored", 8)) - 1)


def is_inverted(dataset: Dataset) -> bool:
    """Tell whether low values are meant to be bright.

    MONOCHROME1 and Presentation LUT Shape INVERSE say the same thing twice (PS3.3 C.8.11.3.1.2); either is
    enough, and both together still invert once.
    """
    monochrome1 = text(dataset, "PhotometricInterpretation").upper() == "MONOCHROME1"
    return monochrome1 or text(dataset, "PresentationLUTShape").upper() == "INVERSE"


def padding_mask(dataset: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return where Pixel Padding Value, or its range, is stored (PS3.3 C.7.5.1.1.2); None where it is not."""
    first = _stored_number(dataset, "PixelPaddingValue")
    if first is None:
        return None
    last = _stored_number(dataset, "PixelPaddingRangeLimit")
    low, high = sorted((first, first if last is None else last))
    mask: NDArray[np.bool_] = (stored >= low) & (stored <= high)
    return mask if mask.any() and not mask.all() else None


def modality_values(dataset: Dataset, stored: NDArray[Any]) -> NDArray[np.float32]:
    """Apply Modality LUT Sequence, else rescale slope and intercept, else nothing."""
    for item in items(dataset, "ModalityLUTSequence")[:1]:
        table = _Table(item, signed_input=_is_signed(dataset))
        return table(stored)
    source = macro(dataset, "PixelValueTransformationSequence")
    slope = number(source, "RescaleSlope")
    intercept = number(source, "RescaleIntercept") or 0.0
    return np.asarray(stored * np.float32(slope or 1.0) + np.float32(intercept), dtype=np.float32)


def modality_table(dataset: Dataset) -> Dataset | None:
    """Return the item of the Modality LUT that was applied, written anew with 16 bits; None where there is none."""
    for item in items(dataset, "ModalityLUTSequence")[:1]:
        return _Table(item, signed_input=_is_signed(dataset)).item(largest=None)
    return None


def voi_values(dataset: Dataset, values: NDArray[np.float32], padding: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """Map values into [0, 1] by the first VOI LUT, else the first window, else a range that fits."""
    source = macro(dataset, "FrameVOILUTSequence")
    for grey in (_voi_table(dataset, source, values), _window(source, values)):
        # A window that leaves nothing to see was copied from another image: the values decide instead.
        if grey is not None and (np.ptp(grey) > 0 or np.ptp(values) == 0):
            return grey
    low, high = _default_range(dataset, values if padding is None else values[~padding])
    return _clip((values - low) / (high - low or 1.0))


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window as PS3.3 C.11.2.1.2 writes it."""

    center: float
    width: float
    function: str


def shown_by(dataset: Dataset, image: Image) -> Window | Dataset:
    """Return what turned `values` into `grey`: the item of the VOI LUT that was used, else one explicit window.

    Where the source has neither, or one that leaves nothing to see, the window is worked out from the pixels.
    """
    source = macro(dataset, "FrameVOILUTSequence")
    table = _voi_table(dataset, source, image.values)
    if table is not None and np.ptp(table) > 0:
        item, signed = items(source, "VOILUTSequence")[0], _signed_input(dataset, image.values)
        return _Table(item, signed_input=signed).item(largest=65535)
    window = _window(source, image.values)
    center, width = number(source, "WindowCenter"), number(source, "WindowWidth")
    if window is not None and center is not None and width is not None and np.ptp(window) > 0:
        function = _function(source)
        # LINEAR has no width below 1 (PS3.3 C.11.2.1.2.1).
        return Window(center=center, width=max(width, 1.0) if function == "LINEAR" else width, function=function)
    return _window_of(image, inverted=is_inverted(dataset))


def _window_of(image: Image, *, inverted: bool) -> Window:
    """Solve grey = (value - low) / (high - low) from the two pixels that differ most without being cut off."""
    grey, values = image.grey.ravel(), image.values.ravel()
    grey = 1.0 - grey if inverted else grey
    inner = np.nonzero((grey > 0.0) & (grey < 1.0))[0]
    low, high = float(values.min()), float(values.max())
    if inner.size:
        first, last = inner[np.argmin(grey[inner])], inner[np.argmax(grey[inner])]
        rise = float(grey[last]) - float(grey[first])
        if rise > 0:
            width = (float(values[last]) - float(values[first])) / rise
            low = float(values[first]) - width * float(grey[first])
            high = low + width
    # LINEAR counts both ends in: its width is one more than the range (PS3.3 C.11.2.1.2.1).
    return Window(center=(low + high) / 2 + 0.5, width=max(high - low, 1e-3) + 1.0, function="LINEAR")


def _voi_table(dataset: Dataset, source: Dataset, values: NDArray[np.float32]) -> NDArray[np.float32] | None:
    for item in items(source, "VOILUTSequence")[:1]:
        table = _Table(item, signed_input=_signed_input(dataset, values))
        return _clip(table(np.rint(values)) / table.maximum)
    return None


def _window(source: Dataset, values: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Apply the first window by its VOI LUT Function (PS3.3 C.11.2.1.2, C.11.2.1.3)."""
    center, width = number(source, "WindowCenter"), number(source, "WindowWidth")
    if center is None or width is None or width <= 0:
        return None
    function = _function(source)
    if function == "SIGMOID":
        exponent = np.clip(-4.0 * (values - center) / width, -80.0, 80.0)
        return np.asarray(1.0 / (1.0 + np.exp(exponent)), dtype=np.float32)
    if function == "LINEAR_EXACT":
        return _clip((values - center) / width + 0.5)
    return _clip((values - (center - 0.5)) / max(width - 1.0, 1e-6) + 0.5)


def _function(source: Dataset) -> str:
    function = text(source, "VOILUTFunction").upper()
    return function if function in _FUNCTIONS else "LINEAR"


def _signed_input(dataset: Dataset, values: NDArray[np.float32]) -> bool:
    return _is_signed(dataset) or bool(values.min() < 0)


def _default_range(dataset: Dataset, values: NDArray[np.float32]) -> tuple[float, float]:
    """Unsigned 8-bit images use their whole range; anything wider uses robust percentiles."""
    bits = integer(dataset, "BitsStored", 8)
    if bits <= 8 and not _is_signed(dataset) and not items(dataset, "ModalityLUTSequence"):  # noqa: PLR2004
        ends = modality_values(dataset, np.array([0, 2**bits - 1]))
        return float(ends.min()), float(ends.max())
    low, high = np.percentile(values, _PERCENTILES)
    return (float(low), float(high)) if high > low else (float(values.min()), float(values.max()))


def _luminance(stored: NDArray[Any], largest: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    values = np.asarray(stored[..., :3].astype(np.float32) @ _LUMINANCE, dtype=np.float32)
    return values, _clip(values / largest)


def _clip(grey: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(np.clip(grey, 0.0, 1.0), dtype=np.float32)


def _is_signed(dataset: Dataset) -> bool:
    return integer(dataset, "PixelRepresentation") == 1


def _stored_number(dataset: Dataset, keyword: str) -> int | None:
    """Read a US-or-SS attribute in the signedness of the stored values."""
    value = number(dataset, keyword)
    if value is None:
        return None
    return _wrap(int(value), signed=_is_signed(dataset))


def _wrap(value: int, *, signed: bool) -> int:
    value &= 0xFFFF
    return value - 0x10000 if signed and value >= 0x8000 else value  # noqa: PLR2004 - 16-bit complement


class _Table:
    """A lookup table of a LUT item (PS3.3 C.11.1.1.1): entries, first input value, bits per entry."""

    def __init__(self, item: Dataset, *, signed_input: bool) -> None:
        descriptor = numbers(item, "LUTDescriptor")
        entries = _lut_data(item)
        if len(descriptor) != 3 or entries.size == 0:  # noqa: PLR2004 - PS3.3 C.11.1.1.1
            raise NotEligibleError("A lookup table of the image is damaged.")
        count = int(descriptor[0]) & 0xFFFF or _LUT_ENTRIES
        if entries.size == (count + 1) // 2 and descriptor[2] <= 8:  # noqa: PLR2004
            entries = entries.astype("<u2").view(np.uint8)
        if entries.size < count:
            raise NotEligibleError("A lookup table of the image has fewer entries than it says.")
        self._signed_input = signed_input
        self._entries = entries[:count].astype(np.float32)
        self._first = _wrap(int(descriptor[1]), signed=signed_input)
        # Some makers declare 16 bits and fill 12: the larger of what is declared would turn the image black.
        declared = float(2 ** int(min(max(descriptor[2], 1), 16)) - 1)
        self.maximum = declared if self._entries.max() > declared / 2 else max(1.0, float(self._entries.max()))

    def item(self, *, largest: int | None) -> Dataset:
        """Return the table as an item of a LUT sequence: 16 bits, and nothing else of what the source's item held.

        Makers' tables have odd numbers of bits, and items of theirs can hold anything.

        Args:
            largest: what the brightest entry becomes; None keeps the entries, which are values and no brightness.
        """
        item = Dataset()
        vr = "SS" if self._signed_input else "US"
        item.add_new("LUTDescriptor", vr, [self._entries.size % _LUT_ENTRIES, self._first, 16])
        factor = 1.0 if largest is None else largest / self.maximum
        item.add_new("LUTData", "OW", np.clip(np.rint(self._entries * factor), 0, 65535).astype("<u2").tobytes())
        return item

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float32]:
        index = np.clip(values.astype(np.int64) - self._first, 0, self._entries.size - 1)
        return np.asarray(self._entries[index], dtype=np.float32)


def _lut_data(item: Dataset) -> NDArray[Any]:
    value = item.get("LUTData")
    if isinstance(value, bytes):
        # Bytes are as the file has them, in a big endian one too.
        _, little = item.original_encoding
        return np.frombuffer(value[: len(value) // 2 * 2], dtype=">u2" if little is False else "<u2").astype("<u2")
    return np.array([int(entry) & 0xFFFF for entry in numbers(item, "LUTData")], dtype=np.uint16)
