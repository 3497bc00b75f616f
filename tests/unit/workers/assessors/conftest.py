"""The model, film and scene that the tests of this folder share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bright_spots import bright_spots, film_with_spot
from films import as_image

from workers.assessors.case import Scene

if TYPE_CHECKING:
    from workers.models.package import PackagedClassifier


@pytest.fixture
def model() -> PackagedClassifier:
    return bright_spots()


@pytest.fixture
def scene(model: PackagedClassifier) -> Scene:
    return Scene(classifier=model, batch=model.preprocess(as_image(film_with_spot())), seed=3)
