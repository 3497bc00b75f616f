"""The figures of a model as one HTML file that opens without a network."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from workers.evaluation.drawings import Bar, bars, curve
from workers.evaluation.figures import RATES, precision_recall, reliability, roc
from workers.evaluation.report import NAMES, TITLES, TOO_FEW, shortcut_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from service.model_card import ModelCard
    from workers.evaluation.localisation import Localisation, Place
    from workers.evaluation.run import Evaluation
    from workers.evaluation.subgroups import Subgroup

PUBLISHED = {"accuracy": 0.93, "precision": 0.91, "recall": 0.92, "f1": 0.915}
"""The case study's table: ResNet-50, pneumonia on chest radiographs."""
PUBLISHED_AGREEMENT = 0.89
"""Of radiologists with Grad-CAM, in the case study."""
STYLE = (
    "body{font:15px system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #bbb;padding:.3rem .7rem;text-align:right}"
    "th{background:#f2f2f2}td:first-child,th:first-child{text-align:left}svg{margin:.5rem 1rem .5rem 0}"
    ".notice{border-left:4px solid #c60;padding:.3rem .8rem;background:#fff6ec}"
)


def as_html(card: ModelCard, evaluation: Evaluation, *, data: str) -> str:
    """Return one self-contained page: tables, curves, and the bars of performance beside agreement."""
    figures = evaluation.figures
    title = escape(f"{card.title} {card.version}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"<h1>{title}</h1><p>{figures.n} images from {escape(data)}, finding {escape(evaluation.label)}, threshold "
        f"{figures.threshold:.4f}. Model sha256 {card.weights.sha256}.</p>"
        f'<p class="notice">Research use; not for primary diagnosis. {escape(card.limits)}</p>'
        + _performance(evaluation)
        + _figures(evaluation)
        + _points(evaluation)
        + _curves(evaluation)
        + _where(evaluation.localisation)
        + _shortcuts(evaluation)
        + _subgroups(evaluation.subgroups)
        + f"<p>Intervals are 95 %: DeLong for AUC, stratified percentile bootstrap for {', '.join(RATES)}.</p></html>\n"
    )


def _performance(evaluation: Evaluation) -> str:
    figures = evaluation.figures
    entries = [
        Bar(
            title=TITLES[name],
            value=getattr(figures, name),
            interval=figures.intervals[name],
            published=PUBLISHED.get(name),
        )
        for name in ("accuracy", "precision", "recall", "f1", "auc")
        if math.isfinite(getattr(figures, name))
    ]
    for name, found in evaluation.localisation.items():
        published = PUBLISHED_AGREEMENT if name == "grad-cam" else None
        entries.append(Bar(title=f"Agreement, {name}", value=found.agreement, published=published))
    note = (
        "Grey: the case study's published values. Its agreement is of radiologists with the map; ours is of the map "
        "with the known place of the lesion (maximum inside, or overlap of at least a quarter)."
    )
    return f"<h2>Model performance and agreement of explanations</h2>{bars('', entries)}<p>{note}</p>"


def _figures(evaluation: Evaluation) -> str:
    figures = evaluation.figures
    rows = [
        (TITLES[name], f"{getattr(figures, name):.4f}", "{:.4f} to {:.4f}".format(*figures.intervals[name]))
        for name in NAMES
    ]
    rows.append(("Average precision", f"{figures.average_precision:.4f}", ""))
    return "<h2>Figures</h2>" + _table(("", "value", "95 % interval"), rows)


def _points(evaluation: Evaluation) -> str:
    figures = evaluation.figures
    rows = [
        (name, f"{at.sensitivity:.4f}", f"{at.specificity:.4f}", f"{at.precision:.4f}")
        for name, at in figures.operating_points.items()
    ]
    at = figures.confusion
    counts = [
        ("with the finding", str(at.true_positive), str(at.false_negative)),
        ("without", str(at.false_positive), str(at.true_negative)),
    ]
    return (
        "<h2>Operating points</h2>"
        + _table(("operating point", "sensitivity", "specificity", "precision"), rows)
        + "<h2>Confusion matrix</h2>"
        + _table(("", "called positive", "called negative"), counts)
    )


def _curves(evaluation: Evaluation) -> str:
    truth, probability = evaluation.truth, evaluation.probability
    share = float(truth.mean())
    diagonal = ((0.0, 0.0), (1.0, 1.0))
    return (
        "<h2>Curves</h2>"
        + curve("ROC", roc(truth, probability), across="1 - specificity", up="sensitivity", chance=diagonal)
        + curve(
            "Precision and recall",
            precision_recall(truth, probability),
            across="recall",
            up="precision",
            chance=((0.0, share), (1.0, share)),
        )
        + curve(
            "Reliability",
            reliability(truth, probability),
            across="probability",
            up="share with the finding",
            chance=diagonal,
            dots=True,
        )
    )


def _where(localisation: Mapping[str, Localisation]) -> str:
    if not localisation:
        return ""
    rows = []
    for name, found in localisation.items():
        rows.append((name, *_place(found.found), f"{found.agreement:.3f}"))
        if found.called is not None:
            rows.append((f"{name}, {found.n_called} called positive", *_place(found.called), ""))
    first = next(iter(localisation.values()))
    rows.append(("centre prior", *_place(first.centre_prior), ""))
    if first.lungs_prior is not None:
        rows.append(("lungs prior", *_place(first.lungs_prior), ""))
    rows.append(("chance (area)", f"{first.area:.3f}", f"{first.area:.3f}", "", "", ""))
    heads = ("explanation", "pointing", "energy inside", "IoU as drawn", "IoU, best level", "agreement")
    return f"<h2>Explanations beside the lesions' known place, {first.n} images</h2>" + _table(heads, rows)


def _shortcuts(evaluation: Evaluation) -> str:
    rows = shortcut_rows(evaluation.shortcuts)
    return "<h2>Shortcuts</h2>" + _table(("", "value", ""), rows) if rows else ""


def _place(found: Place) -> tuple[str, ...]:
    return tuple(f"{value:.3f}" for value in (found.pointing, found.energy_inside, found.iou, found.iou_best))


def _subgroups(parts: Sequence[Subgroup]) -> str:
    if not parts:
        return ""
    rows = []
    for part in parts:
        figures = [TOO_FEW, "", "", ""]
        if part.auc is not None and part.auc_interval is not None:
            figures = [
                f"{part.auc:.3f}",
                "{:.3f} to {:.3f}".format(*part.auc_interval),
                f"{part.sensitivity:.3f}",
                f"{part.specificity:.3f}",
            ]
        rows.append((f"{part.column}: {part.value}", str(part.n), str(part.sick), *figures))
    heads = ("subgroup", "n", "with the finding", "AUC", "95 % interval", "sensitivity", "specificity")
    return "<h2>Subgroups</h2>" + _table(heads, rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
