"""Films on disk: who they belong to, which are the same, how they split, decoded once."""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Pillow

from service.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SUFFIXES = {".jpeg", ".jpg", ".png"}
SICK = re.compile(r"person(?P<number>\d+)_(?P<kind>bacteria|virus)")
WELL = re.compile(r"(?P<series>NORMAL2-)?IM-(?P<number>\d+)")


@dataclass(frozen=True, kw_only=True)
class Film:
    """One file with its class and the patient it belongs to."""

    path: Path
    label: int
    """1 with the finding, 0 without."""
    patient: str


@dataclass(frozen=True, kw_only=True)
class FilmSet:
    """Decoded films: `pixels` uint8 (films, rows, columns), MONOCHROME2; `labels` int64 (films,)."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    patients: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def patient_of(name: str) -> str:
    """Return the patient's key for a Kermany file name; a file that follows no rule is its own patient.

    Person numbers of bacterial and viral cases overlap without being the same child, so the kind is part of
    the key. Films of the well count by their IM number within their series.
    """
    if match := SICK.search(name):
        return f"{match['kind']}-{int(match['number'])}"
    if match := WELL.search(name):
        return f"{'normal2' if match['series'] else 'normal'}-{int(match['number'])}"
    return name


def find_films(data: Path, *, negative: str, positive: str) -> list[Film]:
    """List the films of both classes, sorted by name, exact duplicates once.

    `data` is a folder with one sub-folder per class, or a CSV with the columns `path` (relative to the CSV) and
    `label`, and perhaps `patient`.

    Raises:
        SettingsError: a class has no films, or a label is neither.
    """
    listed = _listed if data.is_file() else _in_folders
    films: list[Film] = []
    seen: set[str] = set()
    for film in listed(data, (negative, positive)):
        digest = hashlib.sha256(film.path.read_bytes()).hexdigest()
        if digest not in seen:
            seen.add(digest)
            films.append(film)
    for label, name in enumerate((negative, positive)):
        if all(film.label != label for film in films):
            raise SettingsError(f"{data}: no film of '{name}'; check [data] folder, negative and positive")
    return films


def find_clear_films(data: Path, *, negative: str) -> list[Film]:
    """List films without the finding: those of a folder, by name, or of a CSV whose every `label` is `negative`.

    Raises:
        SettingsError: there is none, or one with another label.
    """
    films = list(_listed(data, (negative,)) if data.is_file() else _in_folders(data, ("",)))
    if not films:
        raise SettingsError(f"{data}: no film; check [data] clear")
    return films


def _in_folders(folder: Path, names: tuple[str, ...]) -> Iterator[Film]:
    for label, name in enumerate(names):
        for path in sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES):
            yield Film(path=path, label=label, patient=patient_of(path.name))


def _listed(table: Path, names: tuple[str, ...]) -> Iterator[Film]:
    with table.open(encoding="utf-8-sig", newline="") as lines:
        for row in csv.DictReader(lines):
            label, path = row.get("label", ""), table.parent / row.get("path", "")
            if label not in names:
                raise SettingsError(f"{table}: label '{label}' is not " + " or ".join(f"'{name}'" for name in names))
            yield Film(path=path, label=names.index(label), patient=row.get("patient") or patient_of(path.name))


def split_by_patient(films: Sequence[Film], *, share: float, seed: int) -> tuple[list[Film], list[Film]]:
    """Return (training, validation): about `share` of each class's patients, no patient in both."""
    held: set[str] = set()
    for label in (0, 1):
        patients = sorted({film.patient for film in films if film.label == label})
        order = np.random.default_rng((seed, label)).permutation(len(patients))
        held.update(patients[i] for i in order[: max(1, round(share * len(patients)))])
    training = [film for film in films if film.patient not in held]
    validation = [film for film in films if film.patient in held]
    return training, validation


def decode(films: Sequence[Film], *, rows: int, columns: int, cache: Path, advance: Callable[[int], None]) -> FilmSet:
    """Decode and resize the films, or take them from `cache` when it holds exactly these.

    `advance` is called with the number of films done since the last call.
    """
    identity = _identity(films, rows, columns)
    labels = np.array([film.label for film in films], dtype=np.int64)
    patients = tuple(film.patient for film in films)
    if (pixels := _cached(cache, identity)) is None:
        pixels = np.empty((len(films), rows, columns), dtype=np.uint8)
        for index, film in enumerate(films):
            pixels[index] = read_grey(film.path, rows=rows, columns=columns)
            advance(1)
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez(cache, identity=np.array(identity), pixels=pixels)
    return FilmSet(pixels=pixels, labels=labels, patients=patients)


def read_grey(path: Path, *, rows: int, columns: int) -> NDArray[np.uint8]:
    """Read a PNG or JPEG as 8-bit grey of the given size, anti-aliased where it shrinks."""
    with Pillow.open(path) as picture:
        grey = picture.convert("L")
        if grey.size != (columns, rows):
            grey = grey.resize((columns, rows), Pillow.Resampling.BILINEAR)
        return np.asarray(grey, dtype=np.uint8)


def _identity(films: Sequence[Film], rows: int, columns: int) -> str:
    digest = hashlib.sha256(f"{rows}x{columns}".encode())
    for film in films:
        stat = film.path.stat()
        digest.update(f"{film.path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _cached(cache: Path, identity: str) -> NDArray[np.uint8] | None:
    if not cache.exists():
        return None
    with np.load(cache) as stored:
        if str(stored["identity"]) != identity:
            return None
        pixels: NDArray[np.uint8] = stored["pixels"]
        return pixels
