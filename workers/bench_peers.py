"""The libraries that a user would pick instead: captum, `lime` and `shap`, at their defaults, in float32.

Each takes one `Task` and returns a map and how many inputs the network saw. They come with the extra `peers` and are
imported when asked for. Where a library has no default (captum's occlusion, SmoothGrad's and KernelSHAP's samples), the
figure is stated beside it.
"""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workers.explainers.superpixels import superpixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray
    from torch import nn

BATCH = 10
"""Inputs per forward pass of `lime`'s default, used for `shap`'s as well, which leaves it to the user."""
SMOOTH_SAMPLES = 50
"""The paper's; captum's default is 5."""
SMOOTH_NOISE = 0.1
"""Share of the input's range, as Pellucid's."""
OCCLUSION = (32, 16)
"""Window and stride; captum has no default, so they are Pellucid's."""
KERNEL_SAMPLES = 2048
"""Beside two for each region, the default of `shap.KernelExplainer`."""
OWEN_EVALUATIONS = 500
"""The default of `shap.PartitionExplainer`."""
REGIONS = 56
"""Superpixels of KernelSHAP: Pellucid's, so that both play one game; `shap` brings none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """One explanation to make."""

    network: nn.Module
    """Float32, evaluation mode."""
    layer: str
    """Name of the layer for class activation."""
    batch: torch.Tensor
    """One input, (1, channels, rows, columns)."""
    hidden: torch.Tensor
    """What Pellucid shows where it hides; the peers' baseline, of the batch's shape."""
    label: int
    limit: int | None = None
    """Samples that `lime`, KernelSHAP and Owen values may take at most; None: the libraries' defaults."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PeerMap:
    """What a peer found."""

    map: torch.Tensor
    """Signed, (rows, columns) of any grid over the input."""
    samples: int
    """Inputs that went forward through the network."""
    left: int = 0
    """Inputs that the library's default would have taken beyond them, had it not been limited."""
    left_seconds: float = 0.0
    """What the network alone would have taken for those at the pace of this run."""
    left_cpu_seconds: float = 0.0


class Counted:
    """A network that counts its inputs and its time."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self.inputs = 0
        self._seconds = self._cpu_seconds = 0.0

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits without gradient, `BATCH` inputs at a time."""
        self.inputs += len(batch)
        wall, cpu = time.perf_counter(), time.process_time()
        with torch.no_grad():
            logits = torch.cat([self._network(part) for part in torch.split(batch, BATCH)])
            if logits.is_cuda:
                torch.cuda.synchronize()
        self._seconds += time.perf_counter() - wall
        self._cpu_seconds += time.process_time() - cpu
        return logits

    def found(self, values: torch.Tensor, left: int) -> PeerMap:
        """Return a map, and the network's time alone for the inputs left: never more than the library would take."""
        share = left / max(self.inputs, 1)
        return PeerMap(
            map=values,
            samples=self.inputs,
            left=left,
            left_seconds=share * self._seconds,
            left_cpu_seconds=share * self._cpu_seconds,
        )


def _fewer(default: int, limit: int | None) -> int:
    return default if limit is None else min(default, limit)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars and the libraries' warnings out of the figures."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _captum(task: Task, name: str, passes: int, *arguments: Any, **options: Any) -> PeerMap:
    import captum.attr  # noqa: PLC0415 - belongs to the extra `peers`

    method = getattr(captum.attr, name)(task.network, *arguments)
    batch = task.batch.clone().requires_grad_()
    found = method.attribute(batch, target=task.label, **options)
    return PeerMap(map=found.detach()[0].sum(dim=0), samples=passes)


def _layer(task: Task) -> nn.Module:
    return task.network.get_submodule(task.layer)


def grad_cam(task: Task) -> PeerMap:
    """Return captum's Grad-CAM."""
    return _captum(task, "LayerGradCam", 1, _layer(task))


def guided_grad_cam(task: Task) -> PeerMap:
    """Return captum's Guided Grad-CAM."""
    return _captum(task, "GuidedGradCam", 2, _layer(task))


def saliency(task: Task) -> PeerMap:
    """Return captum's saliency, signed as ours."""
    return _captum(task, "Saliency", 1, abs=False)


def input_x_gradient(task: Task) -> PeerMap:
    """Return captum's input x gradient."""
    return _captum(task, "InputXGradient", 1)


def integrated_gradients(task: Task) -> PeerMap:
    """Return captum's Integrated Gradients, 50 steps by default."""
    return _captum(task, "IntegratedGradients", 50, baselines=task.hidden)


def smoothgrad(task: Task) -> PeerMap:
    """Return captum's SmoothGrad, `SMOOTH_SAMPLES` copies."""
    import captum.attr  # noqa: PLC0415 - belongs to the extra `peers`

    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(task.network))
    noise = SMOOTH_NOISE * float(task.batch.max() - task.batch.min())
    found = tunnel.attribute(
        task.batch.clone().requires_grad_(),
        target=task.label,
        abs=False,
        nt_samples=SMOOTH_SAMPLES,
        nt_samples_batch_size=1,
        stdevs=noise,
    )
    return PeerMap(map=found.detach()[0].sum(dim=0), samples=SMOOTH_SAMPLES)


def lrp(task: Task) -> PeerMap:
    """Return captum's LRP with its default rule, epsilon."""
    return _captum(task, "LRP", 1)


def gradient_shap(task: Task) -> PeerMap:
    """Return captum's GradientShap, 5 samples by default."""
    return _captum(task, "GradientShap", 5, baselines=torch.cat([task.hidden, torch.zeros_like(task.hidden)]))


def deep_shap(task: Task) -> PeerMap:
    """Return captum's DeepLiftShap over two baselines, the fewest it takes."""
    return _captum(task, "DeepLiftShap", 2, baselines=torch.cat([task.hidden, torch.zeros_like(task.hidden)]))


def occlusion(task: Task) -> PeerMap:
    """Return captum's occlusion, one window at a time by default."""
    window, stride = OCCLUSION
    channels = task.batch.shape[1]
    counted = Counted(task.network)
    import captum.attr  # noqa: PLC0415 - belongs to the extra `peers`

    found = captum.attr.Occlusion(counted).attribute(
        task.batch,
        target=task.label,
        baselines=task.hidden,
        sliding_window_shapes=(channels, window, window),
        strides=(channels, stride, stride),
    )
    return PeerMap(map=found[0].mean(dim=0), samples=counted.inputs)


def lime(task: Task, regions: NDArray[np.intp] | None = None, samples: int = 1000) -> PeerMap:
    """Return the map of the program `lime`: quickshift, mean colours, 1,000 samples, as it comes.

    Args:
        task: what to explain.
        regions: use these instead of quickshift, and hide by the image's mean; for comparisons with a reference.
        samples: the default's 1,000.
    """
    import lime.lime_image  # noqa: PLC0415 - belongs to the extra `peers`

    grey = task.batch[0].mean(dim=0).double().cpu().numpy()
    low, high = float(grey.min()), float(grey.max())
    counted = Counted(task.network)

    def classify(images: NDArray[np.float64]) -> NDArray[np.float64]:
        films = torch.from_numpy(images[..., 0] * (high - low) + low).float().unsqueeze(1)
        logits = counted(films.expand(-1, task.batch.shape[1], -1, -1).to(task.batch.device)).double()
        return (torch.sigmoid(logits) if regions is None else logits).cpu().numpy()

    film = (grey - low) / (high - low)
    found = lime.lime_image.LimeImageExplainer(random_state=0).explain_instance(
        np.stack([film] * 3, axis=-1),
        classify,
        labels=(task.label,),
        top_labels=None,
        num_samples=_fewer(samples, task.limit),
        hide_color=None if regions is None else float(film.mean()),
        segmentation_fn=None if regions is None else lambda _: regions,
        random_seed=0,
    )
    values = np.zeros(int(found.segments.max()) + 1, dtype=np.float32)
    for region, value in found.local_exp[task.label]:
        values[region] = value
    return counted.found(torch.from_numpy(values[found.segments]), samples - _fewer(samples, task.limit))


def kernel_shap(task: Task) -> PeerMap:
    """Return the map of `shap.KernelExplainer` at its default, 2 x regions + 2,048 samples."""
    import shap  # noqa: PLC0415 - belongs to the extra `peers`

    regions = superpixels(task.batch, REGIONS)
    count = int(regions.max()) + 1
    counted = Counted(task.network)
    where = torch.from_numpy(regions)

    def game(shown: NDArray[np.float64]) -> NDArray[np.float64]:
        answers = []
        for part in torch.split(torch.from_numpy(shown > 0.5), BATCH):  # noqa: PLR2004 - 0 hides, 1 shows
            masks = part[:, where].unsqueeze(1).to(task.batch.device)
            answers.append(counted(torch.where(masks, task.batch, task.hidden))[:, task.label])
        return torch.cat(answers).double().cpu().numpy()

    explainer = shap.KernelExplainer(game, np.zeros((1, count)))
    default = 2 * count + KERNEL_SAMPLES
    samples = _fewer(default, task.limit)
    values = explainer.shap_values(np.ones((1, count)), nsamples=samples, silent=True)[0]
    return counted.found(torch.from_numpy(values.astype(np.float32)[regions]), default - samples)


def owen(task: Task) -> PeerMap:
    """Return the map of `shap.PartitionExplainer` over pixels, 500 evaluations by default."""
    import shap  # noqa: PLC0415 - belongs to the extra `peers`

    counted = Counted(task.network)

    def game(images: NDArray[np.float64]) -> NDArray[np.float64]:
        batch = torch.from_numpy(np.moveaxis(images, -1, 1)).float().to(task.batch.device)
        return counted(batch)[:, [task.label]].double().cpu().numpy()

    image, hidden = (np.moveaxis(batch.cpu().double().numpy(), 1, -1)[0] for batch in (task.batch, task.hidden))
    explainer = shap.PartitionExplainer(game, shap.maskers.Image(hidden, image.shape))
    evaluations = _fewer(OWEN_EVALUATIONS, task.limit)
    found = explainer(image[None], max_evals=evaluations)
    values = torch.from_numpy(np.asarray(found.values, dtype=np.float32).reshape(image.shape)).sum(dim=-1)
    return counted.found(values, OWEN_EVALUATIONS - evaluations)


PEERS: Mapping[str, tuple[str, Callable[[Task], PeerMap]]] = {
    "grad-cam": ("captum.LayerGradCam", grad_cam),
    "guided-grad-cam": ("captum.GuidedGradCam", guided_grad_cam),
    "saliency": ("captum.Saliency", saliency),
    "input-x-gradient": ("captum.InputXGradient", input_x_gradient),
    "integrated-gradients": ("captum.IntegratedGradients", integrated_gradients),
    "smoothgrad": ("captum.NoiseTunnel(Saliency), 50 samples", smoothgrad),
    "lrp-epsilon": ("captum.LRP", lrp),
    "gradient-shap": ("captum.GradientShap", gradient_shap),
    "deep-shap": ("captum.DeepLiftShap", deep_shap),
    "occlusion": ("captum.Occlusion", occlusion),
    "lime": ("lime.LimeImageExplainer", lime),
    "kernel-shap": ("shap.KernelExplainer", kernel_shap),
    "owen": ("shap.PartitionExplainer", owen),
}
"""By the name of our method; methods that no library of these has are missing."""
