"""The figures of a model as JSON, as a table for a terminal, and as one HTML file that needs no network."""

from __future__ import annotations

import math
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING, Any

from rich.table import Table

from workers.evaluation.figures import RATES, reliability, roc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.model_card import ModelCard
    from workers.evaluation.figures import Confusion
    from workers.evaluation.localisation import Localisation
    from workers.evaluation.run import Evaluation

NAMES = ("accuracy", "precision", "recall", "f1", "auc", "ece", "brier")
TITLES = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall (sensitivity)",
    "f1": "F1",
    "auc": "AUC",
    "ece": "Expected calibration error",
    "brier": "Brier score",
}
SIDE = 320
"""Width and height of a drawing, in CSS pixels."""
STYLE = (
    "body{font:15px system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #bbb;padding:.3rem .7rem;text-align:right}"
    "th{background:#f2f2f2}td:first-child,th:first-child{text-align:left}svg{margin:.5rem 1rem .5rem 0}"
)


def as_json(card: ModelCard, evaluation: Evaluation) -> dict[str, Any]:
    """Return the figures by name, each interval beside its figure as `<name>_ci`; NaN becomes null."""
    figures = evaluation.figures
    result: dict[str, Any] = {"model": card.name, "version": card.version, "sha256": card.weights.sha256}
    result |= {"label": card.labels[0].name, "n": figures.n, "threshold": figures.threshold}
    for name in NAMES:
        result[name] = _number(getattr(figures, name))
        result[f"{name}_ci"] = [_number(bound) for bound in figures.intervals[name]]
    result["confusion"] = _counts(figures.confusion)
    result["operating_points"] = {
        name: {"sensitivity": _number(at.sensitivity), "specificity": _number(at.specificity), **_counts(at)}
        for name, at in figures.operating_points.items()
    }
    result["localisation"] = {name: _places(found) for name, found in evaluation.localisation.items()}
    return result


def as_table(card: ModelCard, evaluation: Evaluation) -> Table:
    """Return the figures with their intervals, for a terminal."""
    figures = evaluation.figures
    table = Table(title=f"{card.title} {card.version}, {figures.n} images", title_justify="left")
    for column in ("", "value", "95 % interval"):
        table.add_column(column, justify="left" if not column else "right")
    for name in NAMES:
        low, high = figures.intervals[name]
        table.add_row(TITLES[name], f"{getattr(figures, name):.4f}", f"{low:.4f} to {high:.4f}")
    for name, at in figures.operating_points.items():
        table.add_row(f"{name}: sensitivity / specificity", f"{at.sensitivity:.4f} / {at.specificity:.4f}", "")
    for name, places in evaluation.localisation.items():
        found, prior = places.found, places.centre_prior
        table.add_row(f"{name}: pointing ({places.n} images)", f"{found.pointing:.4f}", f"centre {prior.pointing:.4f}")
        inside = f"{found.energy_inside:.4f}"
        table.add_row(f"{name}: energy inside", inside, f"centre {prior.energy_inside:.4f}, area {places.area:.4f}")
    counts = figures.confusion
    table.add_row(
        "TP / FP / TN / FN",
        f"{counts.true_positive} / {counts.false_positive} / {counts.true_negative} / {counts.false_negative}",
        "",
    )
    return table


def as_html(card: ModelCard, evaluation: Evaluation, *, data: str) -> str:
    """Return one self-contained page with tables, ROC and reliability curves."""
    figures, truth, probability = evaluation.figures, evaluation.truth, evaluation.probability
    rows = "".join(
        f"<tr><td>{TITLES[name]}</td><td>{getattr(figures, name):.4f}</td>"
        f"<td>{figures.intervals[name][0]:.4f} to {figures.intervals[name][1]:.4f}</td></tr>"
        for name in NAMES
    )
    points = "".join(
        f"<tr><td>{escape(name)}</td><td>{at.sensitivity:.4f}</td><td>{at.specificity:.4f}</td></tr>"
        for name, at in figures.operating_points.items()
    )
    at = figures.confusion
    title = escape(f"{card.title} {card.version}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"<h1>{title}</h1><p>{figures.n} images from {escape(data)}. Threshold {figures.threshold:.4f}. "
        "Research use; not for primary diagnosis.</p>"
        f"<p>{escape(card.limits)}</p>"
        f"<table><tr><th></th><th>value</th><th>95 % interval</th></tr>{rows}</table>"
        f"<table><tr><th>operating point</th><th>sensitivity</th><th>specificity</th></tr>{points}</table>"
        f"<table><tr><th></th><th>called positive</th><th>called negative</th></tr>"
        f"<tr><td>with the finding</td><td>{at.true_positive}</td><td>{at.false_negative}</td></tr>"
        f"<tr><td>without</td><td>{at.false_positive}</td><td>{at.true_negative}</td></tr></table>"
        + "".join(_where(name, found) for name, found in evaluation.localisation.items())
        + _curve("ROC: sensitivity over 1 - specificity", roc(truth, probability))
        + _curve("Reliability: share with the finding over probability", reliability(truth, probability))
        + f"<p>Intervals: DeLong for AUC, stratified percentile bootstrap for {', '.join(RATES)}.</p></html>\n"
    )


def _where(name: str, found: Localisation) -> str:
    places, prior = found.found, found.centre_prior
    return (
        f"<p>{escape(name)} beside the lesions' known place, {found.n} images: pointing {places.pointing:.3f} (a map "
        f"of the film's centre: {prior.pointing:.3f}), energy inside {places.energy_inside:.3f} (centre: "
        f"{prior.energy_inside:.3f}, chance: {found.area:.3f}).</p>"
    )


def _places(found: Localisation) -> dict[str, Any]:
    places = {name: round(value, 6) for name, value in asdict(found.found).items()}
    prior = {name: round(value, 6) for name, value in asdict(found.centre_prior).items()}
    return {"n": found.n, **places, "area": round(found.area, 6), "centre_prior": prior}


def _curve(title: str, points: Sequence[tuple[float, float]]) -> str:
    path = " ".join(f"{x * SIDE:.1f},{(1 - y) * SIDE:.1f}" for x, y in points)
    return (
        f'<svg width="{SIDE + 20}" height="{SIDE + 40}" viewBox="-10 -30 {SIDE + 20} {SIDE + 40}" role="img">'
        f'<text x="0" y="-12" font-size="13">{escape(title)}</text>'
        f'<rect width="{SIDE}" height="{SIDE}" fill="none" stroke="#888"/>'
        f'<line x1="0" y1="{SIDE}" x2="{SIDE}" y2="0" stroke="#ccc"/>'
        f'<polyline points="{path}" fill="none" stroke="#2060b0" stroke-width="2"/></svg>'
    )


def _counts(at: Confusion) -> dict[str, int]:
    return {
        "true_positive": at.true_positive,
        "false_positive": at.false_positive,
        "true_negative": at.true_negative,
        "false_negative": at.false_negative,
    }


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
