"""The page that `pellucid explain` leaves beside its objects: every map with its verdict, in one HTML file.

It opens without a network: pictures and style are inside. A map that failed its checks is named, with the reasons
and the figures, and is not drawn.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Picture

from dicom_nodes.objects import captions, colour
from dicom_nodes.objects.key_slices import key_slices, strongest_slice
from dicom_nodes.objects.legends import legend
from dicom_nodes.objects.orientation import NOT_STATED, edges
from dicom_nodes.objects.panels import explained_panel, plain_panel, scene_size
from dicom_nodes.objects.scene import scene
from dicom_nodes.objects.series import SourceSeries
from dicom_nodes.objects.subject import explained_findings, explanations_of, of_image, of_series, stood_in_for
from service.results import Verdict
from workers.explain_style import INTRODUCTION, STYLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from dicom_nodes.objects.scene import Scene
    from dicom_nodes.objects.subject import Subject
    from service.results import Assessment, Attribution, Finding, Measure, Result
    from workers.pipeline import Analysis

LARGEST = 720
"""Side of a film on the page, in pixels."""
BADGES = {
    Verdict.RELIABLE: ("reliable", "&#10003; Map reliable by its measures"),
    Verdict.CAUTION: ("caution", "! Use with caution"),
    Verdict.NOT_SHOWN: ("hidden", "&#10005; Not shown"),
}
UNASSESSED = ("caution", "! Not assessed")


@dataclass(frozen=True, kw_only=True)
class Film:
    """One analysed file or series on the page."""

    name: str
    stem: str
    """What its pictures' names begin with."""
    analysis: Analysis

    @property
    def subject(self) -> Subject:
        """What its pictures are about."""
        source, result = self.analysis.source, self.analysis.result
        if isinstance(source, SourceSeries):
            return of_series(source.headers, source.series, result)
        return of_image(source.header, source.image, result)


def write_page(films: Iterable[Film], refused: Sequence[tuple[str, str]], out: Path) -> Path:
    """Write `index.html` and a PNG per film and per map that may be shown into `out`; return the page's path.

    Films are taken one by one and let go. `refused` are names of files that were not analysed, with the reason; it
    is looked at after the last film.
    """
    results: list[Result] = []
    sections = []
    for film in films:
        results = results or [film.analysis.result]
        sections.append(_film(film, out))
    parts = [_head(results), *sections]
    if refused:
        rows = "".join(f"<li><b>{escape(name)}</b>: {escape(reason)}</li>" for name, reason in refused)
        parts.append(f"<section><h2>Not analysed</h2><ul>{rows}</ul></section>")
    path = out / "index.html"
    body = "\n".join(parts)
    path.write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Pellucid: explanations</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n",
        encoding="utf-8",
    )
    return path


def _head(results: Sequence[Result]) -> str:
    scale = _embedded(Picture.fromarray(_scale()), "colour scale")
    model = ""
    if results:
        identity = results[0].model
        model = (
            f'<p class="model">{escape(captions.model(results[0]))}. Weights {identity.sha256[:12]}. '
            f"Learned from: {escape(identity.trained_on)}. Limits: {escape(identity.limits)}</p>"
        )
    return (
        f'<header><p class="warning">{escape(captions.NOT_FOR_DIAGNOSIS)}</p><h1>What influenced the model, '
        f"and how far the maps can be trusted</h1>{INTRODUCTION}"
        f'<p class="scale">weaker {scale} stronger <span>(relative to each map\'s own maximum; the weakest quarter '
        f"is left clear; lines at 50 % and 80 %)</span></p>{model}</header>"
    )


def _film(film: Film, out: Path) -> str:
    result, about = film.analysis.result, film.subject
    parts = [f"<section><h2>{escape(film.name)}</h2>"]
    for finding in explained_findings(result):
        attributions = explanations_of(result, finding)
        strongest = strongest_slice(about, finding)
        scenes = [scene(about, finding, attribution, strongest) for attribution in attributions]
        parts.append(_summary(finding, result, attributions))
        cards = [_original(scenes[0], film, out), *(_card(one, film, out) for one in scenes)]
        parts.append(f'<div class="cards">{"".join([*cards, *_other_slices(about, finding, film, out)])}</div>')
    parts.append(_missing(result.unavailable))
    return "\n".join([*parts, "</section>"])


def _other_slices(about: Subject, finding: Finding, film: Film, out: Path) -> list[str]:
    """Return the other slices of a series that mattered and were explained, with the first map that may be shown."""
    shown = [one for one in explanations_of(about.result, finding) if captions.is_shown(one)]
    if about.series is None or not shown:
        return []
    cards = []
    for index in key_slices(about, finding):
        if index != strongest_slice(about, finding) and about.influence(shown[0])[index] > 0:
            one = scene(about, finding, shown[0], index)
            picture = explained_panel(one, scene_size(one, LARGEST))
            picture.save(out / f"{film.stem}.{shown[0].method}.slice-{index + 1}.png")
            words = escape(f"{one.place}: {shown[0].title}")
            cards.append(f"<article><h3>{words}</h3>{_embedded(picture, words)}</article>")
    return cards


def _missing(unavailable: Sequence[str]) -> str:
    """Say once for each reason which methods gave no map."""
    methods: dict[str, list[str]] = {}
    for sentence in unavailable:
        title, _, reason = sentence.partition(": ")
        methods.setdefault(reason, []).append(title)
    lines = "".join(f"<li>{escape(', '.join(names))}: {escape(why)}</li>" for why, names in methods.items())
    return f'<div class="note"><b>No map:</b><ul>{lines}</ul></div>' if lines else ""


def _summary(finding: Finding, result: Result, attributions: Sequence[Attribution]) -> str:
    side = "above" if finding.positive else "below"
    contradictions = "".join(f"<li>{escape(line)}</li>" for line in result.contradictions if finding.label in line)
    warning = (
        f'<div class="note"><b>Methods contradict each other.</b><ul>{contradictions}</ul></div>'
        if contradictions
        else ""
    )
    shown = sum(captions.is_shown(attribution) for attribution in attributions)
    default = stood_in_for(result, finding)
    instead = f" Objects sent to the PACS draw {attributions[0].title} in place of {default.title}." if default else ""
    return (
        f'<p class="finding {side}"><b>{escape(captions.verdict(finding))}</b><br>'
        f"{escape(captions.probability(finding))}<br>{escape(captions.operating_point(finding))}</p>"
        f"<p>{shown} of {len(attributions)} maps may be shown.{escape(instead)}</p>{warning}"
    )


def _original(one: Scene, film: Film, out: Path) -> str:
    size = scene_size(one, LARGEST)
    picture = plain_panel(one, size)
    picture.save(out / f"{film.stem}.original.png")
    what = f"{one.place or 'Film'} as received"
    return (
        f"<article><h3>{escape(what)}</h3>{_embedded(picture, escape(what))}{_sides(one)}"
        "<p>Windowed as the file says; never flipped or turned.</p></article>"
    )


def _card(one: Scene, film: Film, out: Path) -> str:
    attribution = one.attribution
    if attribution is None:
        return ""
    size = scene_size(one, LARGEST)
    known = legend(attribution.method)
    kind, badge = BADGES[attribution.assessment.verdict] if attribution.assessment else UNASSESSED
    if one.withheld:
        picture = '<div class="withheld">Not shown</div>'
    else:
        drawn = explained_panel(one, size)
        drawn.save(out / f"{film.stem}.{attribution.method}.png")
        picture = _embedded(drawn, f"{one.place or 'film'} with {attribution.title}") + _sides(one)
    return (
        f'<article class="{kind}"><h3>{escape(attribution.title)}</h3>{picture}<p class="badge {kind}">{badge}</p>'
        f"{_reasons(attribution.assessment)}"
        f"<p><b>How to read it:</b> {escape(known.reading)}</p>"
        f"<p><b>What it does not tell:</b> {escape(known.not_told)}</p>"
        f"{_figures(attribution)}</article>"
    )


def _sides(one: Scene) -> str:
    """Return what lies towards the picture's left and right edge."""
    stated = edges(one.header)
    if stated is None:
        return f'<p class="unsided">{NOT_STATED}</p>'
    return f'<p class="sides"><span>{escape(stated.left)}</span><span>{escape(stated.right)}</span></p>'


def _reasons(assessment: Assessment | None) -> str:
    if assessment is None:
        return "<p>Nothing was measured of this map, which is no reason to trust it.</p>"
    if not assessment.reasons:
        return "<p>No measure spoke against this map.</p>"
    return f"<ul>{''.join(f'<li>{escape(reason)}</li>' for reason in assessment.reasons)}</ul>"


def _figures(attribution: Attribution) -> str:
    measures = attribution.assessment.measures if attribution.assessment else ()
    rows = "".join(
        f"<tr><td>{escape(m.title)}</td><td>{_number(m.value, m)}</td>"
        f"<td>{'' if m.baseline is None else _number(m.baseline, m)}</td></tr>"
        for m in measures
    )
    table = (
        f"<table><tr><th>Measure</th><th>this map</th><th>by chance</th></tr>{rows}</table>"
        if rows
        else "<p>No figures.</p>"
    )
    senseless = attribution.assessment.senseless if attribution.assessment else ()
    table += "".join(f"<p class='small'>{escape(sentence)}</p>" for sentence in senseless)
    settings = "; ".join(f"{name} {value}" for name, value in attribution.parameters.items())
    return (
        f"<details><summary>Figures</summary>{table}<p class='small'>{escape(settings)} "
        f"({attribution.seconds:.2f} s)</p></details>"
    )


def _number(value: float, measure: Measure) -> str:
    unit = "" if measure.unit == "1" else f" {escape(measure.unit)}"
    return f"{value:.0%}" if measure.name.startswith(("energy-", "faithfulness-chance")) else f"{value:.3g}{unit}"


def _embedded(picture: Picture.Image, words: str) -> str:
    buffer = BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=90)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="{escape(words)}" src="data:image/jpeg;base64,{data}">'


def _scale() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the colour scale over mid grey, as it looks on a film."""
    values = np.tile(np.linspace(0, 1, 220, dtype=np.float32), (16, 1))
    return np.clip(colour.blend(np.full_like(values, 0.45), values), 0, 255).astype(np.uint8)
