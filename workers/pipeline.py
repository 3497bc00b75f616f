"""One image or series through a pipeline: read, classify, explain, build. Knows no Celery and no network."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from dicom_nodes.objects import refusal_report
from dicom_nodes.objects.read import SourceImage, read_header, read_image
from dicom_nodes.objects.series import SourceSeries, read_series
from dicom_nodes.objects.true_colour import has_colour
from dicom_nodes.objects.write import to_bytes
from service.destinations import REFUSAL
from service.eligibility import is_result, reason_not_to_read
from service.errors import InvalidInstanceError, NotEligibleError, ObjectRefusedError, PipelineError
from service.records import OutboxObject
from service.results import Refusal, Result
from workers.assessors.loading import load_assessors
from workers.device import choose_device
from workers.explaining import explain_image
from workers.findings import findings_of, labels_to_explain
from workers.models.doubts import doubts_of
from workers.models.package import load_package
from workers.registry import (
    IMAGE_OUTPUTS,
    SERIES_OUTPUTS,
    load_explainers,
    load_outputs,
    load_series_outputs,
    outputs_of_profile,
)
from workers.series_reading import explain_series, find_in_series, reading_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from pydicom import Dataset

    from service.images import Image
    from service.pipelines import Pipeline
    from service.results import Finding
    from service.settings import Settings
    from workers.explaining import Explained
    from workers.interfaces import Explainer
    from workers.models.package import PackagedClassifier
    from workers.registry import OutputBuilder, SeriesOutputBuilder


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
    """What a pipeline made of one image or series."""

    source: SourceImage | SourceSeries
    result: Result
    objects: tuple[BuiltObject, ...]
    not_written: tuple[str, ...] = ()
    """Outputs that could not say the result truthfully, with the reason."""


class Analyst:
    """A pipeline with its model, explainers and outputs loaded, ready for images, or for series if its model is.

    `now` is the clock of the emergency brake on explaining, in seconds.
    """

    def __init__(self, pipeline: Pipeline, settings: Settings, *, now: Callable[[], float] = time.monotonic) -> None:
        self.pipeline = pipeline
        self._now = now
        self._explainers: Sequence[Explainer] = load_explainers(
            pipeline.explainers, pipeline.parameters, seed=pipeline.explanation.seed
        )
        load_assessors(pipeline.explanation.assessors)  # a name that does not exist stops the worker here
        folder = settings.models_directory / pipeline.model
        self.classifier: PackagedClassifier = load_package(folder, choose_device(settings.worker.device))
        _check_layers(self._explainers, self.classifier, pipeline.name)
        self._doubts = doubts_of(folder, self.classifier.card)
        self._outputs: dict[str, OutputBuilder] = {}
        self._series_outputs: dict[str, SeriesOutputBuilder] = {}
        peers = settings.peers.values()
        if self.reads_series:
            self._series_outputs = load_series_outputs(pipeline.outputs)
            for peer in peers:
                self._series_outputs |= load_series_outputs(outputs_of_profile(peer.outputs, SERIES_OUTPUTS))
        else:
            self._outputs = load_outputs(pipeline.outputs)
            for peer in peers:
                self._outputs |= load_outputs(outputs_of_profile(peer.outputs, IMAGE_OUTPUTS))

    @property
    def reads_series(self) -> bool:
        """True when a study's images are read together, as one series.

        Raises:
            PipelineError: the model reads series and the pipeline single images.
        """
        if self.classifier.card.series is not None and self.pipeline.input != "study":
            raise PipelineError(
                f"pipeline '{self.pipeline.name}': model '{self.pipeline.model}' reads series: set input = 'study'"
            )
        return self.classifier.card.series is not None

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
            PipelineError: the model reads series.
        """
        if self.reads_series:
            raise PipelineError(f"model '{self.pipeline.model}' reads series, not single images")
        dataset, header = read_header(path)
        reason = reason_not_to_read(header, self.classifier.card.eligibility, self.pipeline.modalities)
        if reason:
            raise NotEligibleError(reason)
        if has_colour(path, dataset, header):
            raise NotEligibleError("the image is in colour: this model reads grey images")
        source = read_image(path)
        findings = self._classify(source.image)
        limits = self.pipeline.explanation
        labels = labels_to_explain(self.classifier.card, findings, limits.maximum_findings)
        explained = explain_image(
            self.classifier, self._explainers, source.image, labels, limits, doubts=self._doubts, now=self._now
        )
        result = self._result(findings, explained, job_id, created_at, tuple(supersedes))
        builders = {name: partial(build, source.header, source.image, result) for name, build in self._outputs.items()}
        objects, not_written = _build(builders, outputs or self.pipeline.outputs)
        return Analysis(source=source, result=result, objects=objects, not_written=not_written)

    def analyse_series(
        self,
        paths: Sequence[Path],
        *,
        job_id: str,
        created_at: datetime,
        supersedes: Sequence[OutboxObject] = (),
        outputs: Sequence[str] = (),
    ) -> Analysis:
        """Analyse the series of a study that the model reads; which one that is, `read_series` decides.

        Args:
            paths: the study's DICOM files, in any order.
            job_id: of the job; names what is written.
            created_at: of the job; dates what is written.
            supersedes: objects of the earlier result.
            outputs: names of what to write; empty: the pipeline's.

        Raises:
            NotEligibleError: no series of the study is one that the model reads; the message says why.
            PipelineError: the model reads single images.
        """
        rules = self.classifier.card.eligibility
        source = read_series(
            paths,
            accepts=partial(reason_not_to_read, rules=rules, modalities=self.pipeline.modalities),
            minimum_slices=reading_of(self.classifier).minimum_slices,
        )
        findings = find_in_series(self.classifier, source.series)
        limits = self.pipeline.explanation
        labels = labels_to_explain(self.classifier.card, findings, limits.maximum_findings)
        explained = explain_series(
            self.classifier,
            self._explainers,
            source.series,
            findings=findings,
            labels=labels,
            limits=limits,
            doubts=self._doubts,
            now=self._now,
        )
        result = self._result(findings, explained, job_id, created_at, tuple(supersedes), notes=source.notes)
        builders = {
            name: partial(build, source.headers, source.series, result) for name, build in self._series_outputs.items()
        }
        objects, not_written = _build(builders, outputs or self.pipeline.outputs)
        return Analysis(source=source, result=result, objects=objects, not_written=not_written)

    def refuse(self, path: Path, *, job_id: str, created_at: datetime, reason: str) -> BuiltObject | None:
        """Build the short report "not analysed" about an image; None about what is no image that somebody took."""
        try:
            header, summary = read_header(path)
        except InvalidInstanceError:
            return None
        if is_result(summary):
            return None
        refusal = Refusal(
            job_id=job_id,
            created_at=created_at,
            pipeline=self.pipeline.name,
            pipeline_version=self.pipeline.version,
            series_number=self.pipeline.series_number,
            software_version=version("pellucid"),
            model=self.classifier.card.identity,
            reason=reason,
        )
        dataset = refusal_report.build(header, refusal)
        return BuiltObject(kind=REFUSAL, dataset=dataset, data=to_bytes(dataset))

    def _classify(self, image: Image) -> tuple[Finding, ...]:
        # In float32: a worker without bfloat16 must report the same probability, to the last byte of the report.
        logits = self.classifier.exact_logits(self.classifier.preprocess(image))
        return findings_of(self.classifier.card, self.classifier.probabilities(logits)[0])

    def _result(
        self,
        findings: tuple[Finding, ...],
        explained: Explained,
        job_id: str,
        created_at: datetime,
        supersedes: tuple[OutboxObject, ...],
        *,
        notes: tuple[str, ...] = (),
    ) -> Result:
        return Result(
            job_id=job_id,
            created_at=created_at,
            pipeline=self.pipeline.name,
            pipeline_version=self.pipeline.version,
            series_number=self.pipeline.series_number,
            software_version=version("pellucid"),
            model=self.classifier.card.identity,
            findings=findings,
            attributions=explained.attributions,
            contradictions=explained.contradictions,
            unavailable=explained.unavailable,
            notes=notes,
            supersedes=supersedes,
        )


def _check_layers(explainers: Sequence[Explainer], classifier: PackagedClassifier, pipeline: str) -> None:
    """Refuse a layer that the network does not have before a study is lost by it.

    Raises:
        PipelineError: the message names the method and the layer.
    """
    if classifier.network is None:
        return  # no method that needs a layer works with this model, and each says so
    names = dict(classifier.network.named_modules())
    for explainer in explainers:
        layer = getattr(explainer, "layer", "")
        if layer and layer not in names:
            raise PipelineError(
                f"pipeline '{pipeline}': parameters.{explainer.name}.layer: model '{classifier.card.name}' has no "
                f"layer '{layer}'"
            )


def _build(
    builders: Mapping[str, Callable[[], Dataset]], outputs: Sequence[str]
) -> tuple[tuple[BuiltObject, ...], tuple[str, ...]]:
    """Build what was asked for; an output that cannot say the result truthfully is named, with its reason."""
    objects, not_written = [], []
    for kind in outputs:
        if kind not in builders:
            continue  # of a destination's profile, and for the other kind of input only
        try:
            dataset = builders[kind]()
        except ObjectRefusedError as error:
            not_written.append(f"{kind}: {error}")
        else:
            objects.append(BuiltObject(kind=kind, dataset=dataset, data=to_bytes(dataset)))
    return tuple(objects), tuple(not_written)
