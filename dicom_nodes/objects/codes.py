"""The coded concepts of our objects, as (value, scheme, meaning); PS3.16 unless a scheme says otherwise."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from service.concepts import Code

if TYPE_CHECKING:
    from service.results import Assessment, Measure

PRIVATE_SCHEME = "99PELLUCID"
PRIVATE_SCHEME_UID = "2.25.312054866233407306430911962935190362519"
PERCENT = Code(value="%", scheme="UCUM", meaning="Percent")
SQUARE_MILLIMETRE = Code(value="mm2", scheme="UCUM", meaning="Square millimeter")
NO_UNITS = Code(value="1", scheme="UCUM", meaning="no units")
DETECTED = Code(value="260373001", scheme="SCT", meaning="Detected")
NOT_DETECTED = Code(value="260415000", scheme="SCT", meaning="Not detected")
PROCESSING_EQUIPMENT = Code(value="109102", scheme="DCM", meaning="Processing Equipment")
SOURCE_IMAGE = Code(value="121322", scheme="DCM", meaning="Source image for image processing operation")

_CODE_LENGTH = 16
_UNITS = {
    "1": "no units",
    "%": "Percent",
    "mm": "millimeter",
    "{pixels}": "pixels",
    "mm2": "Square millimeter",
    "s": "seconds",
    "[hnsf'U]": "Hounsfield unit",
}

_METHODS = {
    "grad-cam": Code(value="130403", scheme="DCM", meaning="Gradient-weighted class activation"),
    "grad-cam-plus-plus": Code(value="130403", scheme="DCM", meaning="Gradient-weighted class activation"),
    "hires-cam": Code(value="130403", scheme="DCM", meaning="Gradient-weighted class activation"),
    "layer-cam": Code(value="130403", scheme="DCM", meaning="Gradient-weighted class activation"),
    "score-cam": Code(value="130402", scheme="DCM", meaning="Class activation"),
    "cam": Code(value="130402", scheme="DCM", meaning="Class activation"),
    "saliency": Code(value="130404", scheme="DCM", meaning="Saliency"),
    "smoothgrad": Code(value="130404", scheme="DCM", meaning="Saliency"),
    "input-x-gradient": Code(value="130404", scheme="DCM", meaning="Saliency"),
}
"""CID 217, Visual Explanation; it has no code for perturbation and path methods."""

_PROCEDURES = {
    "CT": Code(value="77477000", scheme="SCT", meaning="Computed tomography"),
    "MR": Code(value="113091000", scheme="SCT", meaning="Magnetic resonance imaging"),
    "CR": Code(value="168537006", scheme="SCT", meaning="Plain radiography"),
    "DX": Code(value="168537006", scheme="SCT", meaning="Plain radiography"),
}
_CHEST_RADIOGRAPH = Code(value="399208008", scheme="SCT", meaning="Plain chest X-ray")
_IMAGING = Code(value="363679005", scheme="SCT", meaning="Imaging procedure")
_SITES = {
    "ABDOMEN": Code(value="818981001", scheme="SCT", meaning="Abdomen"),
    "BRAIN": Code(value="12738006", scheme="SCT", meaning="Brain"),
    "CHEST": Code(value="51185008", scheme="SCT", meaning="Thoracic structure"),
    "HEAD": Code(value="69536005", scheme="SCT", meaning="Head"),
    "LIVER": Code(value="10200004", scheme="SCT", meaning="Liver"),
    "NECK": Code(value="45048000", scheme="SCT", meaning="Neck"),
    "PELVIS": Code(value="12921003", scheme="SCT", meaning="Pelvis"),
    "SPINE": Code(value="421060004", scheme="SCT", meaning="Spine"),
    "THORAX": Code(value="51185008", scheme="SCT", meaning="Thoracic structure"),
}
WHOLE_BODY = Code(value="38266002", scheme="SCT", meaning="Entire body as a whole")
VISUAL_EXPLANATION = Code(value="130401", scheme="DCM", meaning="Visual explanation")


def dcm(value: str, meaning: str) -> Code:
    """Return a concept of the standard's own scheme."""
    return Code(value=value, scheme="DCM", meaning=meaning)


PRIVATE_CONCEPTS = {
    "ai-report": "AI analysis report",
    "refusal": "AI analysis not performed",
    "explanations": "Explanations of the model",
    "how-to-read": "How to read the maps",
    "limits": "Limits",
    "model": "Model and software",
    "verdict": "Verdict",
    "probability": "Probability of (label)",
    "threshold": "Operating point",
    "not-indicated": "(label) not indicated",
    "trust": "Verdict on the explanation",
    "reliable": "Reliable",
    "caution": "Use with caution",
    "not-shown": "Not shown",
    "not-assessed": "Not assessed",
    "reason": "Reason",
    "not-measured": "Not measured",
    "baseline": "Value for comparison",
    "influence-share": "Share of influence",
    "label-place": "Place of a label; no region",
    "attribution": "Attribution of a model's result to the image",
}
"""Every fixed concept of our scheme; methods without a code of DICOM's, and figures, add their names to it."""


def private(value: str, meaning: str) -> Code:
    """Return a concept of our own scheme, which every object that uses it declares (PS3.3 C.12.1)."""
    return Code(value=value, scheme=PRIVATE_SCHEME, meaning=meaning)


def method_code(method: str, title: str) -> Code:
    """Return the code of an explanation method: CID 217 where it has one, else ours."""
    return _METHODS.get(method) or private(_short(method), title[:64])


def measure_code(measure: Measure) -> Code:
    """Return the code of a figure about an explanation; DICOM has none, so it is ours."""
    return private(_short(measure.name), measure.title[:64])


def trust_code(assessment: Assessment | None) -> Code:
    """Return the code of a verdict on an explanation."""
    if assessment is None:
        return private("not-assessed", "Not assessed")
    return private(assessment.verdict.name.lower().replace("_", "-"), assessment.verdict.value.capitalize())


def unit(symbol: str) -> Code:
    """Return a UCUM unit."""
    return Code(value=symbol, scheme="UCUM", meaning=_UNITS.get(symbol, symbol))


def _short(name: str) -> str:
    """Return a name as a code value of at most 16 characters (PS3.3 8.1); longer ones keep apart by a digest."""
    if len(name) <= _CODE_LENGTH:
        return name
    return f"{name[:9]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def procedure_code(modality: str, body_part: str) -> Code:
    """Return the imaging procedure for (121058, DCM, "Procedure reported")."""
    if modality in {"CR", "DX"} and body_part in {"CHEST", "THORAX"}:
        return _CHEST_RADIOGRAPH
    return _PROCEDURES.get(modality, _IMAGING)


def finding_site(body_part: str) -> Code | None:
    """Return the anatomy of Body Part Examined where it is known (PS3.16 annex L)."""
    return _SITES.get(body_part)


def item(code: Code) -> Dataset:
    """Return a Code Sequence item (PS3.3 table 8.8-1)."""
    dataset = Dataset()
    dataset.CodeValue = code.value
    dataset.CodingSchemeDesignator = code.scheme
    dataset.CodeMeaning = code.meaning
    return dataset


def private_scheme() -> Dataset:
    """Return the Coding Scheme Identification item that declares our scheme."""
    dataset = Dataset()
    dataset.CodingSchemeDesignator = PRIVATE_SCHEME
    dataset.CodingSchemeUID = PRIVATE_SCHEME_UID
    dataset.CodingSchemeName = "Pellucid concepts"
    dataset.CodingSchemeResponsibleOrganization = "Pellucid"
    return dataset
