"""What a result says in words, section by section: the same for the text report and the page for humans."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_nodes.objects import captions
from dicom_nodes.objects.codes import dcm, private
from dicom_nodes.objects.derived import local_time
from dicom_nodes.objects.key_slices import key_slices
from dicom_nodes.objects.legends import legend
from dicom_nodes.objects.subject import default_explanation, explained_findings, explanations_of, stood_in_for

if TYPE_CHECKING:
    from dicom_nodes.objects.subject import Subject
    from service.concepts import Code
    from service.results import Attribution, Finding, ModelIdentity, Refusal, Result

RESEARCH = "Research use; not for primary diagnosis."
_EXPLANATIONS = private("explanations", "Explanations of the model")
_HOW_TO_READ = private("how-to-read", "How to read the maps")
_LIMITS = private("limits", "Limits")
_MODEL = private("model", "Model and software")
NEGATIVE = "A finding below its operating point does not exclude disease."


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and its sentences."""

    heading: Code
    lines: tuple[str, ...]


def sections(subject: Subject) -> tuple[Section, ...]:
    """Tell a result: findings, explanations with their verdicts and doubts, how to read them, limits, model."""
    result = subject.result
    return _told(
        (dcm("121070", "Findings"), findings(result)),
        (_EXPLANATIONS, explanations(subject)),
        (_HOW_TO_READ, how_to_read(result)),
        (_LIMITS, limits(result)),
        (_MODEL, (*model(result.model), *run(subject), *settings(result))),
    )


def short_sections(subject: Subject) -> tuple[Section, ...]:
    """Tell what a page with one map needs: no figures, settings or other maps' legends, and no findings' table."""
    result = subject.result
    drawn, _ = default_explanation(result)
    shown = dataclasses.replace(result, attributions=(drawn,) if drawn and captions.is_shown(drawn) else ())
    return _told(
        (_EXPLANATIONS, verdicts(subject)),
        (_HOW_TO_READ, how_to_read(shown)),
        (_LIMITS, limits(result)),
        (_MODEL, (*model(result.model), *run(subject))),
    )


def _told(*told: tuple[Code, tuple[str, ...]]) -> tuple[Section, ...]:
    return tuple(Section(heading=heading, lines=lines) for heading, lines in told if lines)


def findings(result: Result) -> tuple[str, ...]:
    """Tell each finding with its probability and every operating point of the card."""
    lines: list[str] = []
    for finding in result.findings:
        lines.append(f"{captions.verdict(finding)}: model probability {captions.percent(finding.probability)}.")
        points = finding.operating_points or (finding.operating_point,)
        lines += [f"{finding.label}. {captions.threshold(point, finding)}." for point in points]
    if not all(finding.positive for finding in result.findings):
        lines.append(NEGATIVE)
    return tuple(lines)


def explanations(subject: Subject) -> tuple[str, ...]:
    """Tell each explanation's verdict, doubts and figures, contradictions, and the slices that mattered."""
    told = (
        " ".join(filter(None, (_verdict(each), _figures(each), captions.senseless(each))))
        for each in subject.result.attributions
    )
    return (*told, *_context(subject))


def verdicts(subject: Subject) -> tuple[str, ...]:
    """Tell the same without figures, for a page that people read; what a map leaves out is told of the drawn one."""
    drawn, _ = default_explanation(subject.result)
    others = (_trust(each) for each in subject.result.attributions if each is not drawn)
    return (*((_verdict(drawn),) if drawn else ()), *others, *_context(subject))


def _context(subject: Subject) -> list[str]:
    result = subject.result
    lines = [] if result.attributions else ["No explanation was computed."]
    lines += [_none_shown(result, finding) for finding in explained_findings(result)]
    lines += [_stand_in(result, finding) for finding in explained_findings(result)]
    lines += [f"Methods contradict each other: {_sentence(line)}" for line in result.contradictions]
    lines += [f"Not computed: {_sentence(line)}" for line in result.unavailable]
    if subject.series is not None:
        lines += [line for finding in explained_findings(result) for line in _slices(subject, finding)]
    return [line for line in lines if line]


def _none_shown(result: Result, finding: Finding) -> str:
    told = captions.none_shown(explanations_of(result, finding))
    return f"{finding.label}: {told[0].lower()}{told[1:]}" if told else ""


def _stand_in(result: Result, finding: Finding) -> str:
    default = stood_in_for(result, finding)
    if default is None:
        return ""
    drawn = explanations_of(result, finding)[0]
    return f"{finding.label}: pictures and regions show {drawn.title} in place of {default.title}, which is not shown."


def how_to_read(result: Result) -> tuple[str, ...]:
    """Tell how to read each method's map, and what it does not tell."""
    if not result.attributions:
        return ()
    positive = any(finding.positive for finding in explained_findings(result))
    lines = [captions.HOW_TO_READ if positive else captions.HOW_TO_READ_NEGATIVE]
    titles: dict[str, list[str]] = {}
    for attribution in result.attributions:
        told = legend(attribution.method)
        titles.setdefault(f"{told.reading} {told.not_told}", []).append(attribution.title)
    return (*lines, *(f"{', '.join(dict.fromkeys(names))}: {told}" for told, names in titles.items()))


def limits(result: Result) -> tuple[str, ...]:
    """Tell what was left out, what the model was not made for, and for what this must not be used."""
    read = (f"What was read: {_sentence(note)}" for note in result.notes)
    lines = (*read, result.model.limits, captions.replaces(result), RESEARCH)
    return tuple(line for line in lines if line)


def model(identity: ModelIdentity) -> tuple[str, ...]:
    """Tell the facts of the model card."""
    return (
        f"Model: {identity.title} {identity.version}, {identity.manufacturer}.",
        f"Trained on: {_sentence(identity.trained_on)}",
        f"Weights: sha256 {identity.sha256}",
    )


def run(subject: Subject) -> tuple[str, ...]:
    """Tell which software ran when."""
    result: Result | Refusal = subject.result
    when = captions.moment(local_time(subject.header, result.created_at))
    return (f"Pipeline: {result.pipeline} {result.pipeline_version}; Pellucid {result.software_version}; {when}.",)


def settings(result: Result) -> tuple[str, ...]:
    """Tell the settings of every method."""
    return tuple(f"{attribution.title}: {parameters(attribution)}" for attribution in result.attributions)


def parameters(attribution: Attribution) -> str:
    """Tell the settings of a method."""
    told = ", ".join(f"{key}={value}" for key, value in sorted(attribution.parameters.items()))
    return told or "no parameters"


def _verdict(attribution: Attribution) -> str:
    parts = (
        _trust(attribution),
        captions.spread(attribution),
        captions.no_positive(attribution),
        captions.ignored_negative(attribution),
    )
    return " ".join(filter(None, parts))


def _trust(attribution: Attribution) -> str:
    verdict = f"{captions.method(attribution)}: {captions.trust(attribution)}."
    return f"{verdict} {captions.doubts(attribution)}".strip()


def _figures(attribution: Attribution) -> str:
    measures = attribution.assessment.measures if attribution.assessment else ()
    return "; ".join(captions.measure(value) for value in measures) + "." if measures else ""


def _slices(subject: Subject, finding: Finding) -> list[str]:
    places = [subject.place(index) for index in key_slices(subject, finding)]
    return [f"{finding.label}, slices that mattered: {'; '.join(places)}."] if places else []


def _sentence(text: str) -> str:
    return f"{text.rstrip('.')}."
