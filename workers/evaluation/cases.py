"""Labelled images to measure a model on: a folder with one sub-folder per class, or a CSV."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image as Pillow

from dicom_nodes.objects.read import read_image
from service.errors import NotEligibleError, SettingsError
from service.images import Image, ImageHeader
from workers.assessors.lung_field import lung_field
from workers.assessors.shortcut import letter
from workers.evaluation.shortcuts import energy
from workers.evaluation.subgroups import COLUMNS
from workers.preprocess import scaled, to_source
from workers.training.breasts import lay_breasts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from service.model_card import ModelCard
    from workers.interfaces import Explainer
    from workers.models.package import PackagedClassifier

PICTURES = {".png", ".jpg", ".jpeg"}
DICOM = {".dcm", ".dicom", ""}
Box = tuple[float, float, float, float]
POSITIVE = {"1", "true", "yes", "positive", "abnormal"}
NEGATIVE = {"0", "false", "no", "negative", "normal"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image with its truth."""

    path: Path
    truth: int
    """1 with the finding, 0 without."""
    boxes: tuple[Box, ...] = ()
    """Where the lesions lie, if known: (left, top, width, height) in pixels of the image."""
    mask: Path | None = None
    """A picture of the image's size, not black on the lesions."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """What the CSV says of sex, age, view, manufacturer or site, by column."""

    @property
    def located(self) -> bool:
        """True when it is known where the lesions lie."""
        return bool(self.boxes) or self.mask is not None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model said of one case."""

    case: Case
    probability: float
    """Calibrated, of the label that is evaluated."""
    maps: Mapping[str, NDArray[np.float32]]
    """By explainer, on the image's grid; only where it is known where the lesions lie."""
    lungs: NDArray[np.float32] | None = None
    """Estimate of the lung fields on the image's grid, beside `maps`; None where none was found."""
    lettered: float | None = None
    """Probability once a text label is burned into the image; None where the model does not read grey values."""
    shadowed: float | None = None
    """Probability of a clear film once breast shadows lie over it; None as `lettered`, or where no lungs were found."""
    lung_energy: Mapping[str, float] = field(default_factory=dict)
    """By explainer, share of the map's positive sum in the lung fields, where lungs were found."""


def label_to_evaluate(card: ModelCard, name: str = "") -> int:
    """Return the index of the label of this name; without one, of the only finding.

    Raises:
        SettingsError: there is none of that name, or there are several findings and none was named.
    """
    findings = {label.name: index for index, label in enumerate(card.labels) if not label.background}
    if name in findings:
        return findings[name]
    if not name and len(findings) == 1:
        return next(iter(findings.values()))
    words = f"model '{card.name}' has no finding '{name}'" if name else f"model '{card.name}' has several findings"
    raise SettingsError(f"{words}: say --label with one of {', '.join(findings)}")


def find_cases(data: Path, *, finding: str) -> list[Case]:
    """List the cases of a folder or CSV, in a fixed order.

    A sub-folder or label counts as positive when it is the name of `finding` or says so (`1`, `true`, `positive`,
    `abnormal`), as negative when it says `0`, `false`, `negative` or `normal`; case does not matter. A CSV has the
    columns `path` (relative to the CSV) and `label`, and may have `box` ("left top width height" in pixels, several
    separated by a semicolon), `mask` (path of a picture), and `sex`, `age`, `view`, `manufacturer` and `site`.

    Raises:
        SettingsError: no case, or a name that is neither.
    """
    cases = list(_from_csv(data, finding) if data.is_file() else _from_folder(data, finding))
    if not cases:
        raise SettingsError(f"{data}: no images; a folder with one sub-folder per class, or a CSV, is expected")
    return cases


def answer_cases(
    classifier: PackagedClassifier, explainers: Sequence[Explainer], cases: Iterable[Case], *, label: int = 0
) -> Iterator[Answer]:
    """Yield the model's answer on one label to each case, exactly as the service would compute it.

    Explanations are computed of cases with the finding, and kept where the lesions' place is known.

    Raises:
        NotEligibleError: an image cannot be read; the message names the file.
    """
    for number, case in enumerate(cases):
        image = read_any(case.path)
        batch = classifier.preprocess(image)
        probability = _probability(classifier, batch, label)
        maps, lungs = {}, _lungs(image)
        if case.truth:
            maps = {
                explainer.name: classifier.to_source(image, explainer.explain(classifier, batch, [label])[0].map)
                for explainer in explainers
            }
        yield Answer(
            case=case,
            probability=probability,
            maps=maps if case.located else {},
            lungs=lungs if case.located else None,
            lettered=_lettered(classifier, image, label, number),
            shadowed=None if case.truth or lungs is None else _shadowed(classifier, image, lungs, label, number),
            lung_energy={} if lungs is None else {name: energy(found, lungs) for name, found in maps.items()},
        )


def _probability(classifier: PackagedClassifier, batch: torch.Tensor, label: int) -> float:
    return float(classifier.probabilities(classifier.exact_logits(batch))[0, label])


def _lettered(classifier: PackagedClassifier, image: Image, label: int, seed: int) -> float | None:
    if scaled(image, classifier.card.input) is not image.grey:
        return None
    return _probability(classifier, classifier.preprocess(replace(image, grey=letter(image.grey, seed))), label)


def _shadowed(
    classifier: PackagedClassifier, image: Image, lungs: NDArray[np.float32], label: int, seed: int
) -> float | None:
    if scaled(image, classifier.card.input) is not image.grey:
        return None
    film, field_of = (torch.from_numpy(values)[None, None] for values in (image.grey, lungs))
    laid = lay_breasts(film, field_of, torch.Generator().manual_seed(seed))[0, 0].numpy()
    return _probability(classifier, classifier.preprocess(replace(image, grey=laid)), label)


def _lungs(image: Image) -> NDArray[np.float32] | None:
    found = lung_field(image.grey)
    return None if found is None else to_source(torch.from_numpy(found).float(), *image.grey.shape)


def region_of(case: Case, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return where the lesions of a case lie, on the grid of its image.

    Raises:
        SettingsError: the mask has another size than the image.
    """
    region = np.zeros(shape, dtype=np.bool_)
    for left, top, width, height in case.boxes:
        region[round(top) : round(top + height), round(left) : round(left + width)] = True
    if case.mask is not None:
        drawn = read_any(case.mask).grey > 0
        if drawn.shape != region.shape:
            raise SettingsError(f"{case.mask}: is {drawn.shape}, its image {region.shape} (rows, columns)")
        region |= drawn
    return region


def read_any(path: Path) -> Image:
    """Read a DICOM, PNG or JPEG image.

    Raises:
        NotEligibleError: it cannot be read as one grey image.
    """
    if path.suffix.lower() not in PICTURES:
        return read_image(path).image
    try:
        with Pillow.open(path) as picture:
            grey = _grey(picture)
    except (OSError, ValueError, Pillow.DecompressionBombError) as error:
        raise NotEligibleError(f"{path}: not readable as a picture ({error})") from None
    return Image(header=_header(path, grey.shape), grey=grey, values=grey, pixel_spacing_mm=None)


def _grey(picture: Pillow.Image) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    # 16-bit PNG opens as I;16 and would be clipped to 8 bits by a conversion to L.
    if picture.mode.startswith("I"):
        return (np.asarray(picture, dtype=np.float32) / np.float32(65535)).clip(0, 1)
    return np.asarray(picture.convert("L"), dtype=np.float32) / np.float32(255)


def _header(path: Path, shape: tuple[int, ...]) -> ImageHeader:
    return ImageHeader(
        sop_instance_uid=path.name,
        rows=shape[0],
        columns=shape[1],
    )


def _from_folder(folder: Path, finding: str) -> Iterator[Case]:
    for inside in sorted(path for path in folder.iterdir() if path.is_dir()):
        for path in sorted(inside.rglob("*")):
            if path.is_file() and path.suffix.lower() in PICTURES | DICOM:
                yield Case(path=path, truth=_truth(inside.name, finding, where=folder))


def _from_csv(file: Path, finding: str) -> Iterator[Case]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        if not {"path", "label"} <= set(reader.fieldnames or ()):
            raise SettingsError(f"{file}: needs the columns 'path' and 'label'")
        for row in reader:
            yield Case(
                path=file.parent / row["path"],
                truth=_truth(row["label"], finding, where=file),
                boxes=_boxes(row.get("box") or "", where=file),
                mask=file.parent / row["mask"] if row.get("mask") else None,
                groups={column: row[column] or "" for column in COLUMNS if column in row},
            )


def _boxes(text: str, *, where: Path) -> tuple[Box, ...]:
    boxes = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        try:
            left, top, width, height = (float(number) for number in part.split())
        except ValueError:
            raise SettingsError(f"{where}: box '{part}' is not 'left top width height'") from None
        boxes.append((left, top, width, height))
    return tuple(boxes)


def _truth(name: str, finding: str, *, where: Path) -> int:
    word = name.strip().casefold()
    if word in POSITIVE or word == finding.casefold():
        return 1
    if word in NEGATIVE:
        return 0
    raise SettingsError(f"{where}: class '{name}' is neither '{finding}' nor 'normal'; rename it or write 1 and 0")
