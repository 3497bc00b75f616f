"""The cards of the two demonstration models, up to what teaching them adds: digest, calibration, operating points.

Their labels have private codes and say that they are about phantoms: on a patient's images these networks cry wolf (the
muscles below a real skull were a "bleed" to one of them), and no archive should then hold a code of a haemorrhage.
"""

from __future__ import annotations

import json

from service.model_card import Input, SeriesReading

CT_INPUT = Input(rows=96, columns=96, normalization="window", window_center=45.0, window_width=110.0, mean=0.3, std=0.3)
MR_INPUT = Input(
    rows=48, columns=48, slices=24, normalization="percentile", mean=0.25, std=0.25, spacing_mm=(6.25, 4.6, 4.6)
)
CT_READING = SeriesReading(reading="slices", aggregation="top-k-mean", top_k=2, explained_slices=3)
MR_READING = SeriesReading(reading="volume")

_HEAD = """# Trained on synthetic phantoms only. A demonstration of how series are read; never for patients.
name = "{name}"
title = "{title}"
version = "1"
manufacturer = "Pellucid"
intended_use = "Demonstration only: shows how {reading} read and explained. Never for patients, never for diagnosis."
limits = "Learned from procedural phantoms alone, never saw a patient. On real images its answer means nothing."
task = "binary"

[weights]
file = "weights.safetensors"
sha256 = "{{sha256}}"
graph = "{graph}"
cam_layer = "features"

[input]
{expected}

[series]
{series}

[eligibility]
modalities = ["{modality}"]
body_parts = {body_parts}
minimum_rows = 64
minimum_columns = 64

[training]
data = "{data}"
licence = "Apache-2.0"
attribution = "Pellucid, workers/phantom"

[[labels]]
name = "{label}"
code = {{{{ value = "{code}", scheme = "99PELLUCID", meaning = "{meaning}" }}}}
{target}"""


def _toml(section: Input | SeriesReading) -> str:
    values = section.model_dump(exclude_defaults=True)
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())


CT_CARD = _HEAD.format(
    name="head-ct-bleed-demo",
    title="Head CT bleed (phantoms only, demonstration)",
    reading="the slices of a CT series are",
    graph="slice-net",
    expected=_toml(CT_INPUT),
    series=_toml(CT_READING),
    modality="CT",
    body_parts='["HEAD", "BRAIN", "SKULL"]',
    data="240 procedural head CT phantoms, half of them with a planted bleed; no patient",
    label="Planted bleed (phantoms only)",
    code="PLANTED-BLEED",
    meaning="Bleed planted in a phantom",
    target='target = "intracranial"\n',
)
MR_CARD = _HEAD.format(
    name="brain-mr-tumour-demo",
    title="Brain MR tumour (phantoms only, demonstration)",
    reading="a whole MR volume is",
    graph="volume-net",
    expected=_toml(MR_INPUT),
    series=_toml(MR_READING),
    modality="MR",
    body_parts='["HEAD", "BRAIN", "SKULL"]',
    data="320 procedural brain MR phantoms, half of them with a planted tumour; no patient",
    label="Planted tumour (phantoms only)",
    code="PLANTED-TUMOUR",
    meaning="Tumour planted in a phantom",
    target="",
)
