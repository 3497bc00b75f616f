"""Is a map of a head CT held against the inside of the skull, and is that where it is?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dicom_nodes.objects.series import read_series
from service.errors import SettingsError
from service.model_card import load_card
from service.results import Verdict
from workers.assessors.case import Kind, Scene, Subject
from workers.assessors.plausibility import Plausibility
from workers.assessors.skull import DIRECTIONS, intracranial, surrounded
from workers.assessors.stack_regions import StackRegions
from workers.assessors.tube import as_series, head
from workers.assessors.verdict import judge
from workers.models.package import PackagedClassifier, load_package
from workers.phantom.demonstration_cards import CT_INPUT, MR_INPUT

SEED = 930_000
MODELS = Path("config/models")
PIXEL_MM = 220 / 96


def test_a_place_within_a_ring_meets_bone_everywhere_and_one_beside_it_does_not() -> None:
    rows, columns = np.mgrid[:64, :64]
    distance = np.hypot(rows - 31.5, columns - 31.5)
    met = surrounded((np.abs(distance - 20) < 2)[None])[0]
    assert (met[distance < 17] == DIRECTIONS).all()
    assert met[2, 2] <= 5
    assert met[31, 60] <= DIRECTIONS // 2


@pytest.mark.parametrize("flip", [(), (1,), (2,), (1, 2)])
def test_it_does_not_matter_which_way_the_slices_lie(flip: tuple[int, ...]) -> None:
    volume = head("CT", SEED, sick=True).volume.astype(np.float32)
    plain = intracranial(volume, PIXEL_MM)
    turned = intracranial(np.flip(volume, flip), PIXEL_MM)
    assert plain is not None
    assert turned is not None
    assert (np.flip(turned, flip) == plain).mean() > 0.995


@pytest.mark.parametrize("seed", range(SEED, SEED + 4))
def test_the_inside_holds_the_bleed_and_nothing_of_scalp_and_bone(seed: int) -> None:
    phantom = head("CT", seed, sick=True)
    inside = intracranial(phantom.volume.astype(np.float32), PIXEL_MM)
    assert inside is not None
    assert inside[phantom.lesion].mean() > 0.97
    assert not inside[phantom.volume < -200].any()
    assert not inside[phantom.volume > 600].any()


def test_an_open_skull_base_does_not_hide_the_brain_and_muscles_behind_it_are_outside() -> None:
    """As closing the ring of bone would: a gap in front, soft tissue behind the bone."""
    volume = head("CT", SEED, sick=False).volume.astype(np.float32)
    whole = intracranial(volume, PIXEL_MM)
    assert whole is not None
    opened = volume.copy()
    opened[10:13, :30, 46:50] = np.where(opened[10:13, :30, 46:50] > 300, 40, opened[10:13, :30, 46:50])
    rows = np.flatnonzero((opened[11] > 300).any(axis=1))
    opened[:, rows[-1] + 3 :, 30:66] = 60.0
    found = intracranial(opened, PIXEL_MM)
    assert found is not None
    assert found[10:13].sum() > 0.85 * whole[10:13].sum()
    assert not found[:, rows[-1] + 3 :, 30:66].any()


def test_without_a_skull_nothing_is_found() -> None:
    assert intracranial(np.full((5, 64, 64), 40, dtype=np.float32), 2.0) is None
    # A ring of bone as small as a vertebra is no braincase.
    rows, columns = np.mgrid[:64, :64]
    ring = np.abs(np.hypot(rows - 32, columns - 32) - 12) < 2
    assert intracranial(np.where(ring, 800, 40).astype(np.float32)[None].repeat(5, axis=0), 2.0) is None


def test_a_real_tilted_head_has_its_brain_found_and_no_muscle_of_the_neck() -> None:
    folder = Path("../shared/data/dicom/ct-series")
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/dicom/ct-series")
    series = read_series(sorted(folder.glob("*.dcm"))).series
    regions = [StackRegions(series, CT_INPUT).of_slice(index).intracranial for index in range(len(series.slices))]
    areas = [float(region.mean()) for region in regions if region is not None]
    assert len(areas) == 28
    assert areas[:4] == [0, 0, 0, 0]
    # Middle and posterior fossa, above which orbits and sinuses leave the ring of bone open.
    assert all(area > 0.05 for area in areas[6:26])
    assert max(areas) == pytest.approx(0.29, abs=0.04)


def test_regions_know_the_inside_of_ct_alone() -> None:
    assert StackRegions(as_series(head("MR", SEED, sick=True), "MR"), MR_INPUT).of_volume().intracranial is None
    inside = StackRegions(as_series(head("CT", SEED, sick=True), "CT"), CT_INPUT).of_slice(12).intracranial
    assert inside is not None
    assert inside.shape == (96, 96)


@pytest.fixture(scope="module")
def bleeds() -> PackagedClassifier:
    """The demonstration model, whose finding lies inside the skull."""
    return load_package(MODELS / "head-ct-bleed-demo", torch.device("cpu"))


@pytest.mark.parametrize(
    ("outside", "verdict"), [(0.0, Verdict.RELIABLE), (0.35, Verdict.CAUTION), (0.9, Verdict.NOT_SHOWN)]
)
def test_a_map_outside_the_skull_is_flagged_or_hidden(
    bleeds: PackagedClassifier, outside: float, verdict: Verdict
) -> None:
    series = as_series(head("CT", SEED, sick=True), "CT")
    regions = StackRegions(series, bleeds.card.input).of_slice(12)
    assert regions.intracranial is not None
    values = regions.intracranial * (1 - outside) / regions.intracranial.sum()
    scalp = regions.body & ~regions.intracranial
    values = torch.from_numpy((values + scalp * outside / scalp.sum()).astype(np.float32))
    scene = Scene(
        classifier=bleeds, batch=torch.zeros(1, 1, 96, 96), seed=0, kind=Kind.SLICE, find_regions=lambda *_: regions
    )
    subject = Subject(method="m", title="M", label=0, map=values)
    measures = Plausibility().assess(scene, subject, ())
    figures = {measure.name: measure for measure in measures}
    assert figures["energy-intracranial"].value == pytest.approx(1 - outside, abs=0.01)
    criteria = [c for c in Plausibility().criteria if c.measure == "energy-intracranial"]
    found = judge(measures, criteria)
    assert found.verdict is verdict
    assert all("inside the skull" in reason for reason in found.reasons)
    nothing = judge(Plausibility().assess(_without_skull(scene), subject, ()), criteria)
    assert nothing.verdict is Verdict.CAUTION
    assert nothing.reasons == ("Whether the map lies inside the skull could not be measured: no skull was found.",)


def _without_skull(scene: Scene) -> Scene:
    assert scene.regions is not None
    none = replace(scene.regions, intracranial=None)
    return replace(scene, find_regions=lambda *_: none)


def test_a_card_may_name_the_skull_for_ct_series_alone(tmp_path: Path) -> None:
    card = (MODELS / "head-ct-bleed-demo" / "model.toml").read_text("utf-8")
    assert load_card(MODELS / "head-ct-bleed-demo").labels[0].target == "intracranial"
    (tmp_path / "model.toml").write_text(card.replace('["CT"]', '["MR"]'), "utf-8")
    with pytest.raises(SettingsError, match="CT series alone"):
        load_card(tmp_path)
