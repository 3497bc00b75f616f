"""What holds for every method that looks inside the network."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from white_box import Plain, Pooled, batch, classifier

from dicom_nodes.objects.read import read_image
from service.errors import UnsupportedMethodError
from workers.explainers.cam import GradCam, GradCamPlusPlus, HiResCam, LayerCam
from workers.explainers.gradients import InputXGradient, Saliency, SmoothGrad
from workers.explainers.guided import GuidedGradCam
from workers.explainers.integrated_gradients import IntegratedGradients
from workers.explainers.relevance import LrpAlphaBeta, LrpComposite, LrpEpsilon, LrpGamma
from workers.explainers.shapley_gradients import DeepShap, GradientShap
from workers.registry import load_explainers

if TYPE_CHECKING:
    from pathlib import Path

    from workers.interfaces import Explainer

EXPLAINERS = {
    explainer.name: explainer
    for explainer in (
        GradCam(),
        GradCamPlusPlus(),
        HiResCam(),
        LayerCam(),
        Saliency(),
        SmoothGrad(samples=4, precision="float32"),
        InputXGradient(),
        IntegratedGradients(steps=17, precision="float32"),
        GuidedGradCam(),
        LrpComposite(),
        LrpEpsilon(),
        LrpGamma(),
        LrpAlphaBeta(),
        GradientShap(samples=8, precision="float32"),
        DeepShap(baselines=2),
    )
}
RANDOM = {"smoothgrad"}
"""Its noise does not turn with the image."""
every = pytest.mark.parametrize("explainer", EXPLAINERS.values(), ids=EXPLAINERS)


def map_of(explainer: Explainer, loaded: object, image: torch.Tensor, label: int = 1) -> torch.Tensor:
    (explanation,) = explainer.explain(loaded, image, [label])
    return explanation.map


@every
def test_a_method_is_found_by_its_name(explainer: Explainer) -> None:
    (found,) = load_explainers([explainer.name], {})
    assert type(found) is type(explainer)
    assert found.title == explainer.title


@every
def test_films_of_several_channels_and_volumes_are_explained(explainer: Explainer) -> None:
    for axes, shape in ((2, (3, 12, 16)), (3, (2, 6, 8, 10))):
        loaded = classifier(Pooled(axes=axes, channels=shape[0]))
        found = explainer.explain(loaded, batch(*shape), [2, 0])
        assert [explanation.label for explanation in found] == [2, 0]
        for explanation in found:
            assert explanation.map.shape == shape[1:]
            assert explanation.map.dtype == torch.float32
            assert bool(explanation.map.isfinite().all())
            assert float(explanation.map.std()) > 0
        assert not torch.equal(found[0].map, found[1].map)


@pytest.mark.parametrize("turn", ["rows", "columns", "quarter"])
@pytest.mark.parametrize("name", sorted(EXPLAINERS.keys() - RANDOM))
def test_a_turned_film_gives_the_turned_map(name: str, turn: str) -> None:
    loaded, image = classifier(Pooled(symmetric=True)), batch()

    def turned(x: torch.Tensor) -> torch.Tensor:
        return {"rows": x.flip(-2), "columns": x.flip(-1), "quarter": torch.rot90(x, 1, (-2, -1))}[turn]

    straight = map_of(EXPLAINERS[name], loaded, image)
    found = map_of(EXPLAINERS[name], loaded, turned(image).contiguous())
    torch.testing.assert_close(found, turned(straight), atol=1e-3 * float(straight.abs().max()), rtol=0)


@every
def test_the_same_film_gives_the_same_map(explainer: Explainer) -> None:
    first, second = (map_of(explainer, classifier(Pooled()), batch()) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("make", [SmoothGrad, GradientShap])
def test_the_seed_decides(make: type) -> None:
    loaded, image = classifier(Pooled()), batch()
    one, again, other = (map_of(make(samples=4, seed=seed), loaded, image) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@every
def test_the_network_and_the_image_stay_as_they_were(explainer: Explainer) -> None:
    loaded, image = classifier(Pooled()), batch()
    state = {name: value.clone() for name, value in loaded.network.state_dict().items()}
    before = image.clone()
    explainer.explain(loaded, image, [0, 1])
    assert torch.equal(image, before)
    assert not image.requires_grad
    assert all(torch.equal(value, state[name]) for name, value in loaded.network.state_dict().items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in loaded.network.parameters())
    assert not loaded.network.training
    assert hooks(loaded.network) == 0


@every
def test_nothing_of_an_image_stays_in_memory(explainer: Explainer) -> None:
    loaded, kept = classifier(Pooled()), []
    for _ in range(4):
        map_of(explainer, loaded, batch())
        gc.collect()
        kept.append(sum(type(thing) is torch.Tensor for thing in gc.get_objects()))
    # The first image leaves what every later one uses: copies of the network, probes.
    assert kept[1] == kept[-1]


@every
def test_no_hook_stays_after_an_error(explainer: Explainer) -> None:
    loaded = classifier(Pooled())
    with pytest.raises(Exception, match=r".+"):
        explainer.explain(loaded, batch(2, 16, 16), [0])  # a channel too many
    assert hooks(loaded.network) == 0


@every
def test_works_inside_of_no_grad_and_leaves_the_mode_alone(explainer: Explainer) -> None:
    loaded, image = classifier(Pooled()), batch()
    with torch.no_grad():
        found = map_of(explainer, loaded, image)
        assert not torch.is_grad_enabled()
    assert float(found.std()) > 0


@every
def test_a_model_without_gradients_is_refused_in_words(explainer: Explainer) -> None:
    with pytest.raises(UnsupportedMethodError, match="no gradients"):
        explainer.explain(classifier(None), batch(), [0])


@every
def test_a_film_and_its_inverted_twin_give_the_same_map(explainer: Explainer, tmp_path: Path) -> None:
    loaded = classifier(Pooled())
    grey = np.random.default_rng(0).integers(0, 4096, (24, 20), dtype=np.uint16)
    maps = []
    for photometric, pixels in (("MONOCHROME2", grey), ("MONOCHROME1", 4095 - grey)):
        image = read_image(saved(tmp_path / photometric, pixels, photometric)).image
        attribution = map_of(explainer, loaded, loaded.preprocess(image))
        maps.append(loaded.to_source(image, attribution))
    assert maps[0].shape == (24, 20)
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-4 * float(np.abs(maps[0]).max()))


@pytest.mark.parametrize("name", ["integrated-gradients", "deep-shap", "gradient-shap"])
def test_what_equals_its_baseline_gets_nothing(name: str) -> None:
    image = torch.zeros(1, 1, 16, 16)
    assert float(map_of(EXPLAINERS[name], classifier(Plain(), "4"), image).abs().max()) == 0.0


def hooks(network: torch.nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        for module in network.modules()
    )


def saved(path: Path, pixels: np.ndarray, photometric: str) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "2.25.1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.2", "2.25.3"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "CR", "CHEST", "PA"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PhotometricInterpretation = photometric
    dataset.PixelData = pixels.tobytes()
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path
