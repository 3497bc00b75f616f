"""The figures of a model as JSON for machines and as a table for a terminal."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from service.model_card import ModelCard
    from workers.evaluation.figures import Confusion
    from workers.evaluation.localisation import Localisation, Place
    from workers.evaluation.run import Evaluation
    from workers.evaluation.shortcuts import BreastShadows, LabelChange, LungEnergy, Shortcuts
    from workers.evaluation.subgroups import Subgroup

NAMES = ("accuracy", "precision", "recall", "f1", "auc", "ece", "brier")
"""Figures that have an interval."""
TITLES = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall (sensitivity)",
    "f1": "F1",
    "auc": "AUC",
    "ece": "Expected calibration error",
    "brier": "Brier score",
}
TOO_FEW = "too few to say"


def as_json(card: ModelCard, evaluation: Evaluation) -> dict[str, Any]:
    """Return the figures by name, each interval beside its figure as `<name>_ci`; NaN becomes null."""
    figures = evaluation.figures
    result: dict[str, Any] = {"model": card.name, "version": card.version, "sha256": card.weights.sha256}
    result |= {"label": evaluation.label, "n": figures.n, "threshold": figures.threshold}
    for name in NAMES:
        result[name] = _number(getattr(figures, name))
        result[f"{name}_ci"] = [_number(bound) for bound in figures.intervals[name]]
    result["average_precision"] = _number(figures.average_precision)
    result["confusion"] = _counts(figures.confusion)
    result["operating_points"] = {
        name: {"sensitivity": _number(at.sensitivity), "specificity": _number(at.specificity), **_counts(at)}
        for name, at in figures.operating_points.items()
    }
    result["localisation"] = {name: _places(found) for name, found in evaluation.localisation.items()}
    result["shortcuts"] = _shortcuts(evaluation.shortcuts)
    result["subgroups"] = [_subgroup(part) for part in evaluation.subgroups]
    return result


def as_table(card: ModelCard, evaluation: Evaluation) -> Table:
    """Return the figures with their intervals, for a terminal."""
    figures = evaluation.figures
    table = Table(title=f"{card.title} {card.version}, {evaluation.label}, {figures.n} images", title_justify="left")
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
        if places.called is not None:
            title = f"{name}: pointing where called positive ({places.n_called})"
            table.add_row(title, f"{places.called.pointing:.4f}", "")
        table.add_row(f"{name}: agreement with the lesion", f"{places.agreement:.4f}", "")
        inside = f"{found.energy_inside:.4f}"
        table.add_row(f"{name}: energy inside", inside, f"centre {prior.energy_inside:.4f}, area {places.area:.4f}")
        if places.lungs_prior is not None:
            lungs = places.lungs_prior
            table.add_row(
                "lungs alone: pointing / energy inside", f"{lungs.pointing:.4f} / {lungs.energy_inside:.4f}", ""
            )
    for title, value, note in shortcut_rows(evaluation.shortcuts):
        table.add_row(title, value, note)
    counts = figures.confusion
    table.add_row(
        "TP / FP / TN / FN",
        f"{counts.true_positive} / {counts.false_positive} / {counts.true_negative} / {counts.false_negative}",
        "",
    )
    return table


def shortcut_rows(found: Shortcuts) -> list[tuple[str, str, str]]:
    """Return (what, value, note) of each figure on shortcuts."""
    rows = [
        (f"{name}: energy in the lung estimate ({energy.n} images)", f"{energy.mean:.4f}", "")
        for name, energy in found.lung_energy.items()
    ]
    if change := found.label_change:
        rows.append(("change by a burned-in text label, mean", f"{change.mean:.4f}", f"95 % below {change.p95:.4f}"))
    if shadows := found.breast_shadows:
        title = f"called positive without the finding, under drawn breast shadows ({shadows.n} images)"
        rows.append((title, f"{shadows.under_shadows:.4f}", f"{shadows.called_positive:.4f} without"))
    return rows


def _shortcuts(found: Shortcuts) -> dict[str, Any]:
    change = found.label_change
    return {
        "label_change": None if change is None else _rounded(change),
        "breast_shadows": None if found.breast_shadows is None else _rounded(found.breast_shadows),
        "lung_energy": {name: _rounded(energy) for name, energy in found.lung_energy.items()},
    }


def _places(found: Localisation) -> dict[str, Any]:
    lungs = None if found.lungs_prior is None else _rounded(found.lungs_prior)
    return {
        "n": found.n,
        **_rounded(found.found),
        "called_positive": None if found.called is None else {"n": found.n_called, **_rounded(found.called)},
        "agreement": round(found.agreement, 6),
        "area": round(found.area, 6),
        "centre_prior": _rounded(found.centre_prior),
        "lungs_prior": lungs,
    }


def _rounded(found: Place | LabelChange | BreastShadows | LungEnergy) -> dict[str, float]:
    return {name: round(value, 6) for name, value in asdict(found).items()}


def _subgroup(part: Subgroup) -> dict[str, Any]:
    known = {"column": part.column, "value": part.value, "n": part.n, "with_finding": part.sick}
    if part.auc is None or part.auc_interval is None:
        return {**known, "note": TOO_FEW}
    return {
        **known,
        "auc": _number(part.auc),
        "auc_ci": [_number(bound) for bound in part.auc_interval],
        "sensitivity": _number(part.sensitivity or 0.0),
        "specificity": _number(part.specificity or 0.0),
    }


def _counts(at: Confusion) -> dict[str, int]:
    return {
        "true_positive": at.true_positive,
        "false_positive": at.false_positive,
        "true_negative": at.true_negative,
        "false_negative": at.false_negative,
    }


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
