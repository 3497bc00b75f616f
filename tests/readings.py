"""What a model might say of an image: one finding, explained by one map; or why it says nothing."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from service.concepts import Code
from service.results import Attribution, Finding, ModelIdentity, OperatingPoint, Refusal, Result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WHEN = dt.datetime(2026, 11, 23, 11, 5, 9, tzinfo=dt.UTC)
MODEL = ModelIdentity(
    name="compact",
    title="Compact ResNet",
    version="1.0.0",
    sha256="ab" * 32,
    manufacturer="Pellucid",
    trained_on="Paediatric chest radiographs of one hospital",
    limits="Not validated on adults.",
)


def pneumonia(probability: float) -> Finding:
    """Return the finding; it is positive from 0.5 on."""
    point = OperatingPoint(name="balanced", threshold=0.5, sensitivity=0.96, specificity=0.94)
    screening = OperatingPoint(name="screening", threshold=0.05, sensitivity=0.99, specificity=0.7)
    return Finding(
        label="Pneumonia",
        code=Code(value="233604007", scheme="SCT", meaning="Pneumonia"),
        probability=probability,
        operating_point=point,
        operating_points=(screening, point),
    )


def reading(attribution: NDArray[np.float32], *, probability: float = 0.9) -> Result:
    """Return a result whose finding has this map for Grad-CAM's."""
    return Result(
        job_id="job-1",
        created_at=WHEN,
        pipeline="chest-xray-pneumonia",
        pipeline_version="1",
        series_number=9000,
        software_version="0.1.0",
        model=MODEL,
        findings=(pneumonia(probability),),
        attributions=(
            Attribution(
                method="grad-cam",
                title="Grad-CAM",
                finding="Pneumonia",
                map=attribution,
                parameters={"layer": "stage4"},
                seconds=0.1,
            ),
        ),
    )


def lateral() -> Refusal:
    """Return the refusal of a lateral view."""
    return Refusal(
        job_id="job-2",
        created_at=WHEN,
        pipeline="chest-xray-pneumonia",
        pipeline_version="1",
        series_number=9000,
        software_version="0.1.0",
        model=MODEL,
        reason="The image is a lateral view.",
        details=("View position: LL",),
    )
