"""Model packages, loaded: a card, weights whose digest was checked, a network, and the fastest runtime that is safe.

Safe means: whenever a probability comes within `GUARD` of an operating point, float32 decides; and the fast runtime's
rounding on probe inputs is too small to carry any probability across that guard band. So rounding changes no finding.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from service.errors import ModelError
from service.model_card import CODED_FORMATS, load_card
from workers.models.calibration import calibrated, largest_change
from workers.models.folding import fast_dtype, inference_copy
from workers.models.loaders import load_network, load_onnx, read_weights
from workers.models.runtimes import TorchRuntime
from workers.preprocess import image_to_input, normalize, to_source
from workers.volumes import series_range, series_to_volume, slices_to_input, volume_to_source

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from service.images import Image, Series
    from service.model_card import ModelCard
    from workers.models.runtimes import Runtime

log = logging.getLogger(__name__)

GUARD = 0.02
"""Probabilities this near to an operating point are computed again in float32."""
PROBES = 2


@dataclass(kw_only=True, eq=False)
class PackagedClassifier:
    """A `workers.interfaces.Classifier`: a network, or an ONNX session, with what its card says of it."""

    card: ModelCard
    network: nn.Module | None
    device: torch.device
    reference: Runtime | None = None
    """What decides; None: the network in float32."""
    fast: Runtime | None = None
    """What `logits` uses where it is safe; None: the reference."""
    fast_difference: float = 0.0
    """How far the rounding seen on the probes could move a probability; see `calibration.largest_change`."""
    series: Series | None = None
    """The series that images are slices of, for models that read slices; see `of_series`."""

    def preprocess(self, image: Image) -> torch.Tensor:
        """Return the network's input, float32 (1, channels, rows, columns), with slices before rows for a volume.

        Raises:
            NotEligibleError: the image is constant, black, too small or large, or holds values that are not finite.
        """
        expected = self.card.input
        if self.series is None:
            return image_to_input(image, expected).to(self.device)
        if expected.slices:
            return series_to_volume(self.series, expected).to(self.device)
        return image_to_input(image, expected, series_range(self.series, expected)).to(self.device)

    def preprocess_series(self, series: Series) -> torch.Tensor:
        """Return the network's input for a series: one per slice, or one volume; see `workers.volumes`."""
        to_input = series_to_volume if self.card.input.slices else slices_to_input
        return to_input(series, self.card.input).to(self.device)

    def of_series(self, series: Series) -> PackagedClassifier:
        """Return a view whose images are slices of `series`.

        A slice is then scaled as the whole series is. For a model of volumes `preprocess` returns the volume whichever
        slice it is asked for, and `to_source` returns maps of shape (slices, rows, columns).
        """
        return dataclasses.replace(self, series=series)

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        """Return raw logits, float32 of shape (batch, labels), without gradient, by the fastest safe runtime.

        Raises:
            ModelError: the network answered with NaN or infinity.
        """
        if self.fast is None:
            return self.exact_logits(batch)
        logits = self.fast(batch)
        doubtful = self._doubtful(logits)
        if bool(doubtful.any()):
            logits[doubtful] = self.exact_logits(batch[doubtful])
        return logits

    def exact_logits(self, batch: torch.Tensor) -> torch.Tensor:
        """Return raw logits as `logits` does, in float32 whatever it costs: what results report.

        Raises:
            ModelError: the network answered with NaN or infinity, or not with one logit per label.
        """
        logits = self._reference()(batch).to(self.device)
        if logits.shape != (len(batch), len(self.card.labels)):
            raise ModelError(
                f"model '{self.card.name}' answered with shape {tuple(logits.shape)}, "
                f"not with one logit for each of {len(self.card.labels)} labels"
            )
        if not bool(torch.isfinite(logits).all()):
            raise ModelError(
                f"model '{self.card.name}' answered with values that are not finite; its weights are broken"
            )
        return logits

    def probabilities(self, logits: torch.Tensor) -> NDArray[np.float64]:
        """Return calibrated probabilities, shape (batch, labels)."""
        return calibrated(self.card, logits.detach().to("cpu", torch.float64).numpy())

    def to_source(self, image: Image, attribution: torch.Tensor) -> NDArray[np.float32]:
        """Carry a map on the network's input grid (or any coarser grid over it) onto the source grid."""
        if self.series is not None and self.card.input.slices:
            return volume_to_source(self.series, attribution, self.card.input)
        rows, columns = image.grey.shape
        return to_source(attribution, rows, columns, self.card.input)

    @property
    def runtime(self) -> Runtime:
        """What `logits` uses, for reports."""
        return self.fast or self._reference()

    def _reference(self) -> Runtime:
        if self.reference is None:
            if self.network is None:
                raise ModelError(f"model '{self.card.name}' has neither a network nor a runtime")
            self.reference = TorchRuntime(self.network, self.device)
        return self.reference

    def _doubtful(self, logits: torch.Tensor) -> torch.Tensor:
        """Return which inputs float32 must decide: near an operating point, or not finite."""
        finite = torch.isfinite(logits)
        probabilities = self.probabilities(torch.where(finite, logits, torch.zeros_like(logits)))
        doubtful = ~finite.all(dim=1).cpu().numpy()
        for index, label in enumerate(self.card.labels):
            for point in label.operating_points:
                doubtful |= np.abs(probabilities[:, index] - point.threshold) < GUARD
        return torch.from_numpy(doubtful).to(logits.device)


def load_package(folder: Path, device: torch.device, *, fast: bool = True) -> PackagedClassifier:
    """Load the model package in `folder` onto `device`.

    Args:
        folder: with `model.toml` and weights.
        device: where it runs.
        fast: look for a runtime faster than float32; without it every answer is float32's.

    Raises:
        SettingsError: `model.toml` is missing or wrong.
        ModelError: the weights are missing, altered, not of the card's format, hold a program nobody vouched for, do
            not fit the graph, or answer a probe with NaN, infinity or another number of labels; a file whose digest
            differs is never parsed.
    """
    card = load_card(folder)
    content = read_weights(folder, card)
    network = load_network(folder, card, content, device)
    reference = load_onnx(folder, card, content, device) if network is None else None
    classifier = PackagedClassifier(card=card, network=network, device=device, reference=reference)
    try:
        logits = classifier.exact_logits(probes(card).to(device))
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001 - a stranger's network may raise anything on an input it does not expect
        raise ModelError(
            f"{folder / card.weights.file}: the network does not take the input that model.toml describes "
            f"({type(error).__name__})"
        ) from None
    # Strangers' programs have their precision and their layout built in.
    if fast and network is not None and card.weights.format not in CODED_FORMATS:
        _choose_fast(classifier, network, logits)
    return classifier


def _choose_fast(classifier: PackagedClassifier, network: nn.Module, logits: torch.Tensor) -> None:
    """Take the fastest precision of this machine whose rounding stays within the guard band, else float32 folded."""
    expected = logits.double().cpu().numpy()
    batch = probes(classifier.card).to(classifier.device)
    for dtype in dict.fromkeys((fast_dtype(classifier.device), torch.float32)):
        precision = str(dtype).removeprefix("torch.")
        runtime = TorchRuntime(
            inference_copy(network, dtype), classifier.device, name="torch-folded", precision=precision
        )
        try:
            found = runtime(batch)
        except (NotImplementedError, RuntimeError):
            # Not every operator exists in every precision on every device: average pooling of volumes, for one.
            log.info("model %s: %s cannot be computed on this machine", classifier.card.name, precision)
            continue
        if bool(torch.isfinite(found).all()):
            difference = largest_change(classifier.card, expected, found.double().cpu().numpy())
            if difference <= GUARD:
                classifier.fast, classifier.fast_difference = runtime, difference
                return
        log.info("model %s: %s differs too much on this machine, not used", classifier.card.name, precision)


def probes(card: ModelCard) -> torch.Tensor:
    """Return inputs as a normalised image might be: smooth noise, the same for every call, (2, channels, ...)."""
    expected = card.input
    shape = (
        (expected.rows, expected.columns) if not expected.slices else (expected.slices, expected.rows, expected.columns)
    )
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((PROBES, 1, *(max(2, size // 8) for size in shape)), generator=generator)
    mode = "trilinear" if expected.slices else "bilinear"
    smooth = torch.nn.functional.interpolate(coarse, size=shape, mode=mode, align_corners=False)
    flat = smooth.reshape(PROBES, 1, -1, expected.columns) if expected.slices else smooth
    return normalize(flat, expected).reshape(PROBES, expected.channels, *shape)
