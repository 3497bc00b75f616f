"""`pellucid bench localisation` and `pellucid bench thresholds`: explanations beside a truth that is known."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from importlib.metadata import entry_points
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from rich.console import Console
from rich.progress import Progress

from service.cli import UsageError, settings_of
from service.errors import UnsupportedMethodError
from service.pipelines import load_pipelines
from service.validation import nearest
from workers.assessors.calibration import flagged, gather, plausibility_of, propose
from workers.assessors.faithfulness import Faithfulness
from workers.assessors.plausibility import Plausibility
from workers.assessors.shortcut import FILMS, STEPS, as_batch, grey_of, lettered_phantom, teach_shortcut
from workers.assessors.stability import Stability
from workers.bench_series import criteria_of_series, gather_series, localise_heads
from workers.device import choose_device
from workers.evaluation.localisation import Place, centre_prior, place, soften
from workers.evaluation.planted import known_phantoms, planted_films
from workers.explainers.cam import GradCam
from workers.models.package import load_package
from workers.phantom.film import make_phantom
from workers.preprocess import to_source
from workers.registry import load_explainers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from numpy.typing import NDArray

    from workers.assessors.calibration import Gathered
    from workers.evaluation.planted import KnownImage
    from workers.interfaces import Classifier, Explainer
    from workers.models.package import PackagedClassifier

FIRST_PHANTOM = 7_000_000_000
"""Seed of the first phantom; no training run and no other benchmark draws from here on."""
SIZE = (224, 224)
BELOW = "probability below the operating point"


@dataclass(kw_only=True)
class Tally:
    """Places of one method's maps so far."""

    places: list[Place] = field(default_factory=list)
    unsupported: str = ""

    def as_dict(self) -> dict[str, float | int | str]:
        """Return means for the report."""
        if self.unsupported:
            return {"n": 0, "unsupported": self.unsupported}
        means = {f.name: round(float(np.mean([getattr(p, f.name) for p in self.places])), 4) for f in fields(Place)}
        return {"n": len(self.places), **means}


@click.command()
@click.option("--phantoms", default=500, show_default=True, type=click.IntRange(min=1), help="With opacities.")
@click.option("--dear", default=500, show_default=True, help="Phantoms for methods of more than 100 forward passes.")
@click.option("--methods", default="all", show_default=True, help="Names with commas between, or all.")
@click.option("--model", default="", help="Name of a model package; default: the default pipeline's.")
@click.option("--labelled", default=100, show_default=True, type=click.IntRange(min=0), help="Films of the shortcut.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def localisation(
    ctx: click.Context, *, phantoms: int, dear: int, methods: str, model: str, labelled: int, as_json: bool
) -> None:
    """Where explanations lie on phantoms with known lesions, and whether a model with a shortcut is caught.

    A model of CT or MR series is given phantom heads, and its maps' verdicts are counted as well.
    """
    classifier = _classifier(ctx, model)
    explainers = load_explainers(_names(methods), {})
    with Progress(console=Console(stderr=True)) as progress:
        advance = _bar(progress, "phantoms", phantoms)
        if classifier.card.series is not None:
            _echo(localise_heads(classifier, explainers, phantoms, dear=dear, advance=advance), as_json=as_json)
            return
        report = localise_phantoms(classifier, explainers, phantoms, dear=dear, advance=advance)
        if labelled:
            advance = _bar(progress, "shortcut", FILMS + STEPS + labelled)
            report["shortcut"] = catch_shortcut(classifier, labelled, advance=advance)
    _echo(report, as_json=as_json)


@click.command()
@click.option("--phantoms", default=60, show_default=True, type=click.IntRange(min=0))
@click.option(
    "--films",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of clear films; opacities are planted into them. Best films that chose nothing else of the model.",
)
@click.option("--planted", default=60, show_default=True, type=click.IntRange(min=0), help="Planted films.")
@click.option("--labelled", default=40, show_default=True, type=click.IntRange(min=1), help="Of the shortcut.")
@click.option("--model", default="", help="Name of a model package; default: the default pipeline's.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def thresholds(
    ctx: click.Context, *, phantoms: int, films: Path | None, planted: int, labelled: int, model: str, as_json: bool
) -> None:
    """Print thresholds of the verdict for a pipeline's TOML, with what each costs and catches. See docs/trust.md.

    For a model of CT or MR series, --phantoms are heads with a lesion, and --labelled heads with a tube beside them.
    """
    classifier = _classifier(ctx, model)
    criteria = tuple(c for a in (Faithfulness(), Stability(), Plausibility()) for c in a.criteria)
    with Progress(console=Console(stderr=True)) as progress:
        bar = partial(_bar, progress)
        if classifier.card.series is None:
            gathered = _gather_films(classifier, phantoms, (films, planted), labelled, bar)
        else:
            gathered = gather_series(classifier, heads=phantoms, tubes=labelled, progress=bar)
            criteria = criteria_of_series(classifier, criteria)
    proposals = propose(gathered, criteria)
    counts = {name: len(rows) for name, rows in gathered.good.items()}
    if as_json:
        rest = {
            "good": counts,
            "chance": len(gathered.chance),
            "label_reader": len(gathered.label_reader),
            "missed": gathered.missed,
            "negative": gathered.negative,
        }
        click.echo(json.dumps({**rest, "thresholds": [asdict(p) for p in proposals]}, indent=2))
        return
    click.echo(f"# good maps: {counts}; by chance: {len(gathered.chance)}; of the shortcut's reader: {labelled}")
    click.echo(f"# maps that missed the lesion: {gathered.missed}; {BELOW}: {gathered.negative}")
    for p in proposals:
        click.echo(
            f"\n[explanation.thresholds.{p.measure}]  # good flagged {p.good_flagged:.1%}, hidden "
            f"{p.good_hidden:.1%}; bad flagged {p.bad_flagged:.1%}, hidden {p.bad_hidden:.1%}"
        )
        click.echo(f"caution = {p.caution}\nhide = {p.hide}")
        good, good_hidden, bad, bad_hidden = p.shipped
        click.echo(f"# as shipped: good {good:.1%}, {good_hidden:.1%}; bad {bad:.1%}, {bad_hidden:.1%}")


def _gather_films(
    classifier: Classifier,
    phantoms: int,
    planted: tuple[Path | None, int],
    labelled: int,
    bar: Callable[[str, int], Callable[[int], None]],
) -> Gathered:
    folder, count = planted
    sets: dict[str, Iterator[KnownImage]] = {"phantoms": known_phantoms(phantoms, seed=3)}
    if folder is not None:
        sets["planted films"] = islice(planted_films(folder, count, 0), 2 * count)
    shortcut = teach_shortcut(1, bar("teaching the shortcut", FILMS + STEPS))
    advance = bar("measuring", phantoms + (count if folder else 0) + labelled)
    return gather(classifier, GradCam(), sets, shortcut, lettered=labelled, advance=advance)


def localise_phantoms(
    classifier: Classifier,
    explainers: tuple[Explainer, ...],
    count: int,
    *,
    dear: int,
    advance: Callable[[int], None],
) -> dict[str, object]:
    """Explain `count` phantoms with one to three opacities each by every method; dear methods only the first `dear`.

    Beside them stand chance (the opacities' share of the film), a bell in the middle, and the phantoms' own lungs.
    """
    found = {explainer.name: Tally() for explainer in explainers}
    centre, lungs, area, called = Tally(), Tally(), [], 0
    point = classifier.card.labels[0].default_operating_point()
    for index in range(count):
        phantom = make_phantom(FIRST_PHANTOM + index, SIZE, opacities=1 + index % 3)
        if not phantom.opacities.any():
            continue
        batch = _batch(classifier, grey_of(phantom))
        called += float(classifier.probabilities(classifier.logits(batch))[0, 0]) >= point.threshold
        for explainer in explainers:
            if explainer.cost <= 100 or index < dear:  # noqa: PLR2004 - said in the option's help
                _score(found[explainer.name], classifier, explainer, batch, phantom.opacities)
        centre.places.append(place(centre_prior(SIZE), phantom.opacities))
        lungs.places.append(place(soften(phantom.lungs.astype(np.float32)), phantom.opacities))
        area.append(float(phantom.opacities.mean()))
        advance(1)
    return {
        "model": classifier.card.name,
        "model_sha256": classifier.card.weights.sha256,
        "n": count,
        "called": round(called / count, 4),
        "chance": round(float(np.mean(area)), 4),
        "centre_prior": centre.as_dict(),
        "lungs_prior": lungs.as_dict(),
        "methods": {name: tally.as_dict() for name, tally in found.items()},
    }


def catch_shortcut(classifier: Classifier, count: int, *, advance: Callable[[int], None]) -> dict[str, float | int]:
    """Teach a model to read a label and count how many of its maps, and of the honest model's, are flagged.

    Both see the same lettered phantoms with opacities; flagged means that plausibility alone forbids `reliable`.
    """
    shortcut = teach_shortcut(1, advance)
    criteria, explainer = Plausibility().criteria, GradCam()
    caught, blamed = [], []
    answers: dict[bool, list[float]] = {True: [], False: []}
    for index in range(count):
        grey = lettered_phantom(20_000 + index, SIZE[0], opacities=1 + index % 3)
        caught.append(flagged(plausibility_of(shortcut, explainer, grey), criteria))
        blamed.append(flagged(plausibility_of(classifier, explainer, grey), criteria))
        plain = grey_of(make_phantom(FIRST_PHANTOM + index, SIZE, opacities=index % 3))
        for lettered, film in ((True, grey), (False, plain)):
            logits = shortcut.logits(_batch(shortcut, film))
            answers[lettered].append(float(shortcut.probabilities(logits)[0, 0]))
        advance(1)
    return {
        "n": count,
        "flagged_shortcut": round(float(np.mean(caught)), 4),
        "flagged_honest": round(float(np.mean(blamed)), 4),
        "shortcut_probability_with_label": round(float(np.mean(answers[True])), 4),
        "shortcut_probability_without_label": round(float(np.mean(answers[False])), 4),
    }


def _score(
    tally: Tally, classifier: Classifier, explainer: Explainer, batch: torch.Tensor, opacities: NDArray[np.bool_]
) -> None:
    if tally.unsupported:
        return
    try:
        (explanation,) = explainer.explain(classifier, batch, [0])
    except UnsupportedMethodError as error:
        tally.unsupported = str(error)
        return
    tally.places.append(place(to_source(explanation.map, *opacities.shape), opacities))


def _batch(classifier: Classifier, grey: NDArray[np.float32]) -> torch.Tensor:
    return as_batch(grey, classifier.card.input.rows, classifier.card.input.columns).to(classifier.device)


def _names(methods: str) -> list[str]:
    known = sorted(entry.name for entry in entry_points(group="pellucid.explainers"))
    if methods == "all":
        return known
    chosen = [name.strip() for name in methods.split(",")]
    for name in chosen:
        if name not in known:
            raise UsageError(f"there is no method '{name}'{nearest(name, known)}")
    return chosen


def _classifier(ctx: click.Context, model: str) -> PackagedClassifier:
    settings = settings_of(ctx)
    name = model or load_pipelines(settings)[0].pipeline.model
    return load_package(settings.models_directory / name, choose_device(settings.worker.device))


def _bar(progress: Progress, title: str, total: int) -> Callable[[int], None]:
    task = progress.add_task(title, total=total)
    return lambda n: progress.advance(task, n)


def _echo(report: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    for name, value in report.items():
        rows = value if name == "methods" and isinstance(value, dict) else {name: value}
        for title, figures in rows.items():
            click.echo(f"{title:24} {figures}")
