"""One image through a pipeline: read, classify, explain, build. Knows no Celery and no network."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from dicom_nodes.objects import refusal_report
from dicom_nodes.objects.read import SourceImage, read_header, read_image
from dicom_nodes.objects.write import to_bytes
from service.destinations import REFUSAL
from service.eligibility import reason_not_to_read
from service.errors import NotEligibleError, ObjectRefusedError
from service.types import Finding, OutboxObject, Refusal, Result
from workers.device import choose_device
from workers.explaining import explain_image
from workers.models.package import load_package
from workers.registry import IMAGE_OUTPUTS, load_explainers, load_outputs, outputs_of_profile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from pydicom import Dataset

    from service.pipelines import Pipeline
    from service.settings import Settings
    from service.types import Image
    from workers.interfaces import Classifier, Explainer
    from workers.registry import OutputBuilder


@dataclass(frozen=True, kw_only=True)
class BuiltObject:
    """One finished DICOM object."""

    kind: str
    dataset: Dataset
    data: bytes
    """The whole Part 10 file."""

    def in_outbox(self, *, job_id: str, key: str) -> OutboxObject:
        """Describe it for the ledger."""
        return OutboxObject(
            sop_instance_uid=str(self.dataset.SOPInstanceUID),
            sop_class_uid=str(self.dataset.SOPClassUID),
            study_instance_uid=str(self.dataset.StudyInstanceUID),
            series_instance_uid=str(self.dataset.SeriesInstanceUID),
            transfer_syntax_uid=str(self.dataset.file_meta.TransferSyntaxUID),
            job_id=job_id,
            kind=self.kind,
            key=key,
            sha256=hashlib.sha256(self.data).hexdigest(),
            size=len(self.data),
        )


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What a pipeline made of one image."""

    source: SourceImage
    result: Result
    objects: tuple[BuiltObject, ...]
    not_written: tuple[str, ...] = ()
    """Outputs that could not say the result truthfully, with the reason."""


class Analyst:
    """A pipeline with its model, explainers and outputs loaded, ready for images."""

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self.pipeline = pipeline
        self._explainers: Sequence[Explainer] = load_explainers(pipeline.explainers, pipeline.parameters)
        self._outputs: dict[str, OutputBuilder] = load_outputs(pipeline.outputs)
        for peer in settings.peers.values():
            self._outputs |= load_outputs(outputs_of_profile(peer.outputs, IMAGE_OUTPUTS))
        device = choose_device(settings.worker.device)
        self.classifier: Classifier = load_package(settings.models_directory / pipeline.model, device)

    def analyse(
        self,
        path: Path,
        *,
        job_id: str,
        created_at: datetime,
        supersedes: Sequence[OutboxObject] = (),
        outputs: Sequence[str] = (),
    ) -> Analysis:
        """Analyse one image.

        Args:
            path: a DICOM file.
            job_id: of the job; names what is written.
            created_at: of the job; dates what is written.
            supersedes: objects of the earlier result.
            outputs: names of what to write; empty: the pipeline's.

        Raises:
            NotEligibleError: the model does not read this image; the message says why.
            InvalidInstanceError: the file is no usable DICOM instance.
        """
        _, header = read_header(path)
        reason = reason_not_to_read(header, self.classifier.card.eligibility, self.pipeline.modalities)
        if reason:
            raise NotEligibleError(reason)
        source = read_image(path)
        result = self._result(source.image, job_id, created_at, tuple(supersedes))
        objects, not_written = self._build(source, result, outputs or self.pipeline.outputs)
        return Analysis(source=source, result=result, objects=objects, not_written=not_written)

    def refuse(self, path: Path, *, job_id: str, created_at: datetime, reason: str) -> BuiltObject:
        """Build the short report "not analysed" for a study."""
        header, _ = read_header(path)
        refusal = Refusal(
            job_id=job_id,
            created_at=created_at,
            pipeline=self.pipeline.name,
            pipeline_version=self.pipeline.version,
            software_version=version("pellucid"),
            model=self.classifier.card.identity,
            reason=reason,
        )
        dataset = refusal_report.build(header, refusal)
        return BuiltObject(kind=REFUSAL, dataset=dataset, data=to_bytes(dataset))

    def _result(self, image: Image, job_id: str, created_at: datetime, supersedes: tuple[OutboxObject, ...]) -> Result:
        card = self.classifier.card
        logits = self.classifier.logits(self.classifier.preprocess(image))
        probabilities = self.classifier.probabilities(logits)[0]
        findings = tuple(
            Finding(
                label=label.name,
                code=label.code.code(),
                probability=float(probability),
                operating_point=label.default_operating_point(),
                operating_points=tuple(point.operating_point() for point in label.operating_points),
            )
            for label, probability in zip(card.labels, probabilities, strict=True)
        )
        limits = self.pipeline.explanation
        labels = _labels_to_explain(findings, limits.maximum_findings)
        explained = explain_image(self.classifier, self._explainers, image, labels, limits)
        return Result(
            job_id=job_id,
            created_at=created_at,
            pipeline=self.pipeline.name,
            pipeline_version=self.pipeline.version,
            software_version=version("pellucid"),
            model=card.identity,
            findings=findings,
            attributions=explained.attributions,
            contradictions=explained.contradictions,
            unavailable=explained.unavailable,
            supersedes=supersedes,
        )

    def _build(
        self, source: SourceImage, result: Result, outputs: Sequence[str]
    ) -> tuple[tuple[BuiltObject, ...], tuple[str, ...]]:
        objects, not_written = [], []
        for kind in outputs:
            if kind not in self._outputs:
                continue  # of a destination's profile, and for series only
            try:
                dataset = self._outputs[kind](source.header, source.image, result)
            except ObjectRefusedError as error:
                not_written.append(f"{kind}: {error}")
            else:
                objects.append(BuiltObject(kind=kind, dataset=dataset, data=to_bytes(dataset)))
        return tuple(objects), tuple(not_written)


def _labels_to_explain(findings: Sequence[Finding], most: int) -> list[int]:
    """Explain what is above its operating point; with nothing there, the most probable finding."""
    ranked = sorted(range(len(findings)), key=lambda index: -findings[index].probability)
    return [index for index in ranked if findings[index].positive][:most] or ranked[:1]
