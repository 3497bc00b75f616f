"""The demonstration models find what was planted, in held-out phantoms, and their maps point at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from service.concepts import Code
from service.errors import PipelineError
from service.pipelines import Explanation
from service.results import Assessment, Attribution, Finding, OperatingPoint, Verdict
from service.settings import packaged_config
from workers.explainers.cam import GradCam, HiResCam
from workers.explainers.gradients import Saliency, SmoothGrad
from workers.explainers.occlusion import Occlusion
from workers.findings import labels_to_explain
from workers.models.package import PackagedClassifier, load_package
from workers.phantom.head import HeadPhantom, make_brain_mr, make_head_ct
from workers.phantom.teach import phantom_series
from workers.series_reading import _joined, explain_series, find_in_series, reading_of, slices_to_explain

if TYPE_CHECKING:
    from workers.interfaces import Explainer

CPU = torch.device("cpu")
LIMITS = Explanation(assessors=(), consensus=False)
HEADS = 16
FIRST_SEED = 800_000
"""Beyond those that the models learned from and were calibrated on."""


def package(name: str) -> PackagedClassifier:
    return load_package(packaged_config() / "models" / name, CPU)


def head(kind: str, seed: int, *, sick: bool) -> HeadPhantom:
    return make_head_ct(seed, bleed=sick) if kind == "CT" else make_brain_mr(seed, tumour=sick)


@pytest.mark.parametrize(("kind", "name"), [("CT", "head-ct-bleed-demo"), ("MR", "brain-mr-tumour-demo")])
def test_planted_lesions_are_found_and_pointed_at(kind: str, name: str) -> None:
    classifier = package(name)
    right, hits, energy, area = 0, 0, [], []
    for seed in range(FIRST_SEED, FIRST_SEED + HEADS):
        sick = seed % 2 == 0
        phantom = head(kind, seed, sick=sick)
        series = phantom_series(phantom, "CT" if kind == "CT" else "MR")
        findings = find_in_series(classifier, series)
        right += findings[0].positive is sick
        if not sick:
            continue
        explained = explain_series(
            classifier, [GradCam()], series, findings=findings, labels=[0], limits=LIMITS, doubts={}
        )
        values = np.maximum(explained.attributions[0].map, 0)
        assert values.shape == phantom.volume.shape
        hits += bool(phantom.lesion[np.unravel_index(int(values.argmax()), values.shape)])
        energy.append(float(values[phantom.lesion].sum() / values.sum()))
        area.append(float(phantom.lesion.mean()))
    assert right >= HEADS - 2
    assert hits >= HEADS // 2 - 1
    # Chance would be the lesion's share of the volume, about 1 in 500.
    assert np.mean(energy) > 20 * np.mean(area)


def test_a_slice_reader_gives_a_probability_for_every_slice_and_a_volume_reader_none() -> None:
    ct, mr = package("head-ct-bleed-demo"), package("brain-mr-tumour-demo")
    phantom = make_head_ct(FIRST_SEED, bleed=True)
    (bleed,) = find_in_series(ct, phantom_series(phantom, "CT"))
    assert len(bleed.slice_probabilities) == 24
    assert phantom.lesion[int(np.argmax(bleed.slice_probabilities))].any()
    (tumour,) = find_in_series(mr, phantom_series(make_brain_mr(FIRST_SEED, tumour=True), "MR"))
    assert tumour.slice_probabilities == ()


def test_only_the_slices_that_mattered_have_a_map() -> None:
    classifier = package("head-ct-bleed-demo")
    series = phantom_series(make_head_ct(FIRST_SEED, bleed=True), "CT")
    findings = find_in_series(classifier, series)
    explained = explain_series(classifier, [GradCam()], series, findings=findings, labels=[0], limits=LIMITS, doubts={})
    (attribution,) = explained.attributions
    with_map = {int(index) for index in np.flatnonzero(np.abs(attribution.map).sum(axis=(1, 2)))}
    chosen = slices_to_explain(findings[0], 3)
    assert with_map == set(chosen)
    assert attribution.parameters["slices"] == f"{', '.join(str(i + 1) for i in chosen)} of 24"


def test_a_model_of_single_images_reads_no_series() -> None:
    with pytest.raises(PipelineError, match=r"no \[series\]"):
        reading_of(package("pneumonia-compact"))


def finding(name: str, probability: float, threshold: float = 0.5, slices: tuple[float, ...] = ()) -> Finding:
    point = OperatingPoint(name="balanced", threshold=threshold, sensitivity=0.9, specificity=0.9)
    code = Code(value="1", scheme="99TEST", meaning=name)
    return Finding(label=name, code=code, probability=probability, operating_point=point, slice_probabilities=slices)


def test_slices_above_the_operating_point_are_explained_in_order_and_at_least_one() -> None:
    assert slices_to_explain(finding("a", 0.9, slices=(0.1, 0.8, 0.2, 0.9, 0.6)), 2) == (1, 3)
    assert slices_to_explain(finding("a", 0.2, slices=(0.1, 0.3, 0.2)), 2) == (1,)


def test_with_nothing_above_the_label_nearest_to_its_own_threshold_is_explained() -> None:
    card = package("pneumonia-compact").card
    labels = tuple(card.labels[0].model_copy(update={"name": name}) for name in "abc")
    three = card.model_copy(update={"labels": labels})
    below = [finding("a", 0.40, 0.9), finding("b", 0.30, 0.35), finding("c", 0.1)]
    assert labels_to_explain(three, below, 2) == [1]
    above = [finding("a", 0.95, 0.9), finding("b", 0.60, 0.35), finding("c", 0.99)]
    assert labels_to_explain(three, above, 2) == [2, 0]


def test_a_slice_whose_map_may_not_be_shown_stays_empty_and_is_named() -> None:
    series = phantom_series(make_head_ct(FIRST_SEED, bleed=True, shape=(4, 32, 32)), "CT")

    def part(verdict: Verdict) -> Attribution:
        return Attribution(
            method="m",
            title="M",
            finding="f",
            map=np.ones((32, 32), np.float32),
            parameters={},
            seconds=1.0,
            assessment=Assessment(
                verdict=verdict, reasons=() if verdict is Verdict.RELIABLE else ("It is elsewhere.",), measures=()
            ),
        )

    joined = _joined(series, {1: part(Verdict.RELIABLE), 2: part(Verdict.NOT_SHOWN)})
    assert joined.map[1].all()
    assert not joined.map[2].any()
    assert joined.assessment is not None
    assert joined.assessment.verdict is Verdict.CAUTION
    assert joined.assessment.reasons == ("Slices without a map that may be shown: 3. It is elsewhere.",)
    hidden = _joined(series, {1: part(Verdict.NOT_SHOWN), 2: part(Verdict.NOT_SHOWN)})
    assert hidden.assessment is not None
    assert hidden.assessment.verdict is Verdict.NOT_SHOWN


@pytest.mark.parametrize(
    ("kind", "name", "methods"),
    [
        ("CT", "head-ct-bleed-demo", (GradCam(), HiResCam())),
        ("MR", "brain-mr-tumour-demo", (GradCam(), HiResCam(), Saliency())),
    ],
)
def test_every_explanation_of_a_series_carries_a_verdict_with_figures(
    kind: str, name: str, methods: tuple[Explainer, ...]
) -> None:
    classifier = package(name)
    series = phantom_series(head(kind, FIRST_SEED + 4, sick=True), "CT" if kind == "CT" else "MR")
    findings = find_in_series(classifier, series)
    explained = explain_series(
        classifier, methods, series, findings=findings, labels=[0], limits=Explanation(), doubts={}
    )
    assert [a.method for a in explained.attributions] == [*(method.name for method in methods), "consensus"]
    for attribution in explained.attributions:
        assert attribution.map.shape == (24, 96, 96)
        assert attribution.assessment is not None
        figures = {measure.name: measure.value for measure in attribution.assessment.measures}
        assert set(figures) >= {"faithfulness-chance", "stability-shift", "energy-body", "energy-border"}
        assert ("agreement-top" in figures) == (attribution.method != "consensus")
        assert figures["energy-unscanned"] == 0
        assert "energy-lungs" not in figures
        assert any("lungs" in sentence for sentence in attribution.assessment.senseless)
    first = explained.attributions[0].assessment
    assert first is not None
    assert first.verdict is Verdict.RELIABLE, first.reasons
    assert {m.name: m.value for m in first.measures}["faithfulness-chance"] < 0.15


def test_a_reason_that_holds_for_some_slices_names_them() -> None:
    series = phantom_series(make_head_ct(FIRST_SEED, bleed=True, shape=(4, 32, 32)), "CT")

    def part(*reasons: str) -> Attribution:
        return Attribution(
            method="m",
            title="M",
            finding="f",
            map=np.ones((32, 32), np.float32),
            parameters={},
            seconds=1.0,
            assessment=Assessment(verdict=Verdict.CAUTION, reasons=reasons, measures=(), senseless=("No lungs.",)),
        )

    joined = _joined(series, {1: part("Both.", "One."), 2: part("Both.")})
    assert joined.assessment is not None
    assert joined.assessment.reasons == ("Both.", "Slice 2: One.")
    assert joined.assessment.senseless == ("No lungs.",)


@pytest.mark.parametrize("method", [SmoothGrad(samples=4), Occlusion(windows=12)])
def test_methods_that_look_for_a_fast_precision_explain_a_volume_that_has_none(method: Explainer) -> None:
    # Average pooling of volumes does not exist in bfloat16 on a CPU.
    classifier = package("brain-mr-tumour-demo")
    series = phantom_series(make_brain_mr(FIRST_SEED, tumour=True), "MR")
    findings = find_in_series(classifier, series)
    explained = explain_series(classifier, [method], series, findings=findings, labels=[0], limits=LIMITS, doubts={})
    (attribution,) = explained.attributions
    assert attribution.map.max() > 0
