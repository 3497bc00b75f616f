"""Checks a model package on phantoms: determinism, speed, NaN, explainers, sanity; keeps the answer beside the card."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import numpy as np
import torch

from service.errors import ModelError, PellucidError, UnsupportedMethodError
from service.images import Image, ImageHeader
from workers.assessors.sanity import NothingToCompareError, check_sanity
from workers.explainers.passes import forget
from workers.explainers.pool import forget_pools
from workers.models.doubts import FILE
from workers.models.package import load_package, probes
from workers.models.runtimes import describe
from workers.phantom.film import make_phantom

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from workers.interfaces import Explainer
    from workers.models.package import PackagedClassifier

QUICK = 12
"""Cost up to which a method's sanity is tested unless all are asked for: dearer ones take minutes."""
SCREENED = 2
"""Phantoms whose maps are looked at."""
REPEATS = 5
PHANTOM_SIZE = (512, 480)


@dataclass(frozen=True, kw_only=True)
class MethodCheck:
    """What one explainer makes of the model."""

    method: str
    supported: bool
    reason: str = ""
    """Why not; empty when it is."""
    deterministic: bool | None = None
    seconds: float | None = None
    """Of one map."""
    sanity_passed: bool | None = None
    """None: not tested, as the model's weights cannot be drawn anew or the method takes too long for it."""
    sanity: str = ""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was seen of a package on this machine."""

    name: str
    sha256: str
    """Of the weights that were checked."""
    deterministic: bool
    """Equal logits for equal inputs."""
    batch_difference: float
    """Largest difference of a probability between an image alone and in a batch."""
    finite: bool
    constant: bool
    """Answers every input alike, which a trained model does not."""
    runtime: Mapping[str, str]
    """What `logits` uses."""
    fast_difference: float
    """How far its rounding could move a probability, from float32's."""
    images_per_second: float
    """Of `logits`, batch of 4 (1 for a volume), on this machine while it did whatever else it was doing."""
    methods: tuple[MethodCheck, ...]

    @property
    def passed(self) -> bool:
        """True when the model can be used at all; methods that do not support it are no fault."""
        return self.deterministic and self.finite and not self.constant


def check_package(
    folder: Path,
    device: torch.device,
    *,
    explainers: Sequence[Explainer] = (),
    sanity_below: float = QUICK,
    progress: Callable[[str], None] = lambda _: None,
) -> Check:
    """Check the package in `folder`.

    Args:
        folder: with `model.toml` and weights.
        device: where it runs.
        explainers: methods to try.
        sanity_below: cost up to which a method is put through cascading randomisation (13 maps each);
            infinite: every method.
        progress: told the name of each method before it is tried.

    Raises:
        PellucidError: the package does not load; the message says why.
    """
    classifier = load_package(folder, device)
    batch = phantom_batch(classifier)
    one, other = classifier.exact_logits(batch), classifier.exact_logits(batch)
    alone = torch.cat([classifier.exact_logits(batch[i : i + 1]) for i in range(len(batch))])
    probabilities = classifier.probabilities(one)
    spread = np.ptp(torch.cat([one, classifier.exact_logits(probes(classifier.card).to(device))]).cpu().numpy(), axis=0)
    return Check(
        name=classifier.card.name,
        sha256=classifier.card.weights.sha256,
        deterministic=bool(torch.equal(one, other)),
        batch_difference=float(np.abs(classifier.probabilities(alone) - probabilities).max()),
        finite=bool(np.isfinite(probabilities).all()),
        constant=bool((spread == 0).all()),
        runtime=describe(classifier.runtime),
        fast_difference=classifier.fast_difference,
        images_per_second=round(_speed(classifier, batch), 2),
        methods=tuple(
            _check_method(classifier, explainer, batch[:1], sanity_below, progress) for explainer in explainers
        ),
    )


def phantom_batch(classifier: PackagedClassifier) -> torch.Tensor:
    """Return inputs made of chest phantoms, or of smooth noise where the model reads something else."""
    card = classifier.card
    if card.series is not None or not set(card.eligibility.modalities) & {"CR", "DX", "RG"}:
        return probes(card).to(classifier.device)
    images = [_phantom_image(seed) for seed in range(SCREENED)]
    return torch.cat([classifier.preprocess(image) for image in images])


def _phantom_image(seed: int) -> Image:
    phantom = make_phantom(90_000 + seed, PHANTOM_SIZE, opacities=1 - seed % 2)
    grey = phantom.pixels.astype(np.float32) / float(phantom.pixels.max())
    header = ImageHeader(
        sop_instance_uid=f"2.25.{seed + 1}",
        modality="DX",
        body_part="CHEST",
        view_position="PA",
        patient_orientation=("L", "F"),
        rows=grey.shape[0],
        columns=grey.shape[1],
    )
    return Image(header=header, grey=grey, values=phantom.pixels.astype(np.float32), pixel_spacing_mm=None)


def _speed(classifier: PackagedClassifier, batch: torch.Tensor) -> float:
    batch = batch[:1] if classifier.card.input.slices else batch.repeat(2, 1, 1, 1)
    classifier.logits(batch)
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        classifier.logits(batch)
        seconds.append(time.perf_counter() - begun)
    return len(batch) / statistics.median(seconds)


def _check_method(
    classifier: PackagedClassifier,
    explainer: Explainer,
    batch: torch.Tensor,
    sanity_below: float,
    progress: Callable[[str], None],
) -> MethodCheck:
    progress(explainer.name)
    label = int(np.argmax(classifier.probabilities(classifier.exact_logits(batch))[0]))
    begun = time.perf_counter()
    try:
        (first,) = explainer.explain(classifier, batch, [label])
        seconds = time.perf_counter() - begun
        # What is kept for the next method would be compared with itself.
        forget_pools()
        if classifier.network is not None:
            forget(classifier.network)
        (second,) = explainer.explain(classifier, batch, [label])
    except PellucidError as error:
        return MethodCheck(method=explainer.name, supported=False, reason=str(error))
    except Exception as error:  # noqa: BLE001 - a stranger's network may raise anything under hooks and gradients
        reason = f"fails with this model ({type(error).__name__})"
        return MethodCheck(method=explainer.name, supported=False, reason=reason)
    if not bool(torch.isfinite(first.map).all()):
        return MethodCheck(method=explainer.name, supported=False, reason="its map holds values that are not finite")
    passed, sentence = _sanity(classifier, explainer, batch, label, sanity_below)
    return MethodCheck(
        method=explainer.name,
        supported=True,
        deterministic=bool(torch.equal(first.map, second.map)),
        seconds=round(seconds, 3),
        sanity_passed=passed,
        sanity=sentence,
    )


def _sanity(
    classifier: PackagedClassifier, explainer: Explainer, batch: torch.Tensor, label: int, below: float
) -> tuple[bool | None, str]:
    if explainer.cost > below or batch.dim() != 4:  # noqa: PLR2004 - films; volumes are not assessed
        return None, ""
    try:
        found = check_sanity(classifier, explainer, batch, label)
    except NothingToCompareError as error:
        return None, f"not tested: {error}"
    except (UnsupportedMethodError, ModelError):
        return None, ""
    except Exception as error:  # noqa: BLE001 - as above: a stranger's network, copied and randomised
        return None, f"not tested ({type(error).__name__})"
    return found.passed, found.sentence


def known_explainers() -> tuple[Explainer, ...]:
    """Return every registered explainer with its defaults, by name."""
    entries = sorted(entry_points(group="pellucid.explainers"), key=lambda entry: entry.name)
    return tuple(entry.load()() for entry in entries)


def write_check(folder: Path, check: Check) -> Path:
    """Keep a check beside the card, as `check.json`; what it did not test, and was seen of the same weights, stays."""
    path = folder / FILE
    seen = _methods_seen(path, check.sha256)
    for method in map(asdict, check.methods):
        before = seen.get(method["method"], {})
        if method["sanity_passed"] is None:
            method |= {name: before[name] for name in ("sanity_passed", "sanity") if name in before}
        seen[method["method"]] = method
    methods = [seen[name] for name in sorted(seen)]
    content = {**asdict(check), "methods": methods, "passed": check.passed}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def _methods_seen(path: Path, sha256: str) -> dict[str, dict[str, object]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(entry["method"]): entry for entry in found["methods"]} if found["sha256"] == sha256 else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}
