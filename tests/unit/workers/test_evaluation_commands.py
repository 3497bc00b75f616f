from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from packages import Stranger, write_package
from PIL import Image as Pillow
from safetensors.torch import save

from dicom_nodes.objects.read import read_image
from service.errors import NotEligibleError, SettingsError
from service.model_card import load_card
from workers.evaluation.cases import find_cases, label_to_evaluate, read_any
from workers.evaluation.planted import planted_films
from workers.phantom.files import write_samples
from workers.phantom.film import make_phantom
from workers.training_commands import evaluate, phantom, plant


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four phantoms of each class: PNG, and one DICOM among the sick."""
    root = tmp_path_factory.mktemp("cases")
    for index in range(8):
        inside = root / ("pneumonia" if index % 2 else "normal")
        inside.mkdir(exist_ok=True)
        pixels = make_phantom(index, (128, 128), opacities=3 * (index % 2)).pixels
        Pillow.fromarray((pixels // 16).astype(np.uint8)).save(inside / f"{index}.png")
    write_samples(root / "pneumonia", 1, 1, (128, 128))
    return root


def test_evaluate_writes_json_with_every_figure_and_its_interval(folder: Path, tmp_path: Path) -> None:
    arguments = ["--model", "pneumonia-compact", "--data", str(folder), "--json", "--report", str(tmp_path / "r")]
    done = CliRunner().invoke(evaluate, arguments, catch_exceptions=False)
    found = json.loads(done.stdout)
    assert found["n"] == 9
    for name in ("accuracy", "precision", "recall", "f1", "auc", "ece", "brier"):
        low, high = found[f"{name}_ci"]
        assert found[name] is None or 0 <= low <= high <= 1
    assert set(found["operating_points"]) == {"screening", "balanced", "rule-in"}
    assert sum(found["confusion"].values()) == 9
    assert found["shortcuts"]["label_change"]["n"] == 9
    assert 0 <= found["shortcuts"]["label_change"]["mean"] <= 1
    shadows = found["shortcuts"]["breast_shadows"]
    assert shadows["n"] >= 3
    assert shadows["under_shadows"] <= shadows["called_positive"] + 0.5
    assert 0.5 < found["shortcuts"]["lung_energy"]["grad-cam"]["mean"] <= 1
    assert json.loads((tmp_path / "r" / "evaluation.json").read_text()) == found
    page = (tmp_path / "r" / "evaluation.html").read_text()
    assert "http" not in page
    assert "not for primary diagnosis" in page


def test_a_csv_names_the_same_cases_as_the_folder(folder: Path) -> None:
    cases = find_cases(folder, finding="Pneumonia")
    listed = folder / "cases.csv"
    listed.write_text("path,label\n" + "".join(f"{c.path.relative_to(folder)},{c.truth}\n" for c in cases))
    assert find_cases(listed, finding="Pneumonia") == cases
    assert [case.truth for case in cases].count(1) == 5


def test_explanations_are_measured_where_the_lesions_are_known(folder: Path) -> None:
    mask = np.zeros((128, 128), dtype=np.uint8)
    mask[:, :64] = 255
    Pillow.fromarray(mask).save(folder / "mask.png")
    listed = folder / "located.csv"
    listed.write_text(
        "path,label,box,mask\nnormal/0.png,normal,,\npneumonia/1.png,Pneumonia,0 0 64 128,\n"
        "pneumonia/3.png,Pneumonia,,mask.png\n"
    )
    arguments = ["--model", "pneumonia-compact", "--data", str(listed), "--json"]
    found = json.loads(CliRunner().invoke(evaluate, arguments, catch_exceptions=False).stdout)
    measured = found["localisation"]["grad-cam"]
    assert measured["n"] == 2
    assert measured["area"] == 0.5
    assert 0 <= measured["iou"] <= measured["iou_best"] <= 1
    assert measured["centre_prior"]["energy_inside"] == pytest.approx(0.5, abs=0.01)
    lungs = measured["lungs_prior"]
    assert lungs is None or 0 <= lungs["energy_inside"] <= 1


def test_the_page_shows_performance_beside_agreement_and_subgroups(folder: Path, tmp_path: Path) -> None:
    cases = find_cases(folder, finding="Pneumonia")
    listed = folder / "sites.csv"
    rows = [f"{c.path.relative_to(folder)},{c.truth},{'A' if i % 2 else 'B'},{i * 9}\n" for i, c in enumerate(cases)]
    listed.write_text("path,label,site,age\n" + "".join(rows))
    arguments = ["--model", "pneumonia-compact", "--data", str(listed), "--json", "--report", str(tmp_path)]
    found = json.loads(CliRunner().invoke(evaluate, arguments, catch_exceptions=False).stdout)
    assert {(part["column"], part["value"]) for part in found["subgroups"]} >= {("site", "A"), ("site", "B")}
    assert all(part["note"] == "too few to say" for part in found["subgroups"])
    page = (tmp_path / "evaluation.html").read_text()
    expected = ("Model performance and agreement", "Precision and recall", "Reliability", "Confusion", "site: A")
    for part in (*expected, "Shortcuts"):
        assert part in page


def test_planted_phantoms_come_with_masks_that_evaluate_reads(tmp_path: Path) -> None:
    arguments = ["--phantoms", "--count", "2", "--out", str(tmp_path)]
    table = CliRunner().invoke(plant, arguments, catch_exceptions=False).stdout.strip()
    cases = find_cases(Path(table), finding="Pneumonia")
    assert [case.truth for case in cases] == [0, 1, 0, 1]
    arguments = ["--model", "pneumonia-compact", "--data", table, "--json"]
    found = json.loads(CliRunner().invoke(evaluate, arguments, catch_exceptions=False).stdout)
    assert found["localisation"]["grad-cam"]["n"] == 2
    assert 0 < found["localisation"]["grad-cam"]["area"] < 0.3


def test_opacities_are_planted_into_clear_films_and_the_film_is_kept_beside(tmp_path: Path) -> None:
    films = tmp_path / "clear"
    films.mkdir()
    for seed in range(3):
        pixels = make_phantom(seed, (256, 256)).pixels
        Pillow.fromarray((pixels // 16).astype(np.uint8)).save(films / f"{seed}.png")
    pairs = list(planted_films(films, 4, seed=1))
    assert len(pairs) == 8
    for clear, planted in zip(pairs[::2], pairs[1::2], strict=True):
        assert not clear.mask.any()
        assert planted.mask.any()
        changed = planted.pixels.astype(int) - clear.pixels
        assert changed[planted.mask].mean() > 5 > abs(changed[~planted.mask].mean())


def test_a_folder_without_a_usable_film_is_named(tmp_path: Path) -> None:
    Pillow.fromarray(np.zeros((64, 64), dtype=np.uint8)).save(tmp_path / "black.png")
    with pytest.raises(SettingsError, match="no film on which the lungs can be found"):
        next(planted_films(tmp_path, 1, seed=1))


def test_a_box_without_four_numbers_is_refused(tmp_path: Path) -> None:
    listed = tmp_path / "cases.csv"
    listed.write_text("path,label,box\na.png,1,3 4 5\n")
    with pytest.raises(SettingsError, match="'3 4 5' is not 'left top width height'"):
        find_cases(listed, finding="Pneumonia")


def test_a_class_that_means_nothing_is_refused(tmp_path: Path) -> None:
    listed = tmp_path / "cases.csv"
    listed.write_text("path,label\na.png,maybe\n")
    with pytest.raises(SettingsError, match="'maybe' is neither 'Pneumonia' nor 'normal'"):
        find_cases(listed, finding="Pneumonia")


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no images"):
        find_cases(tmp_path, finding="Pneumonia")


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG and no more")
    with pytest.raises(NotEligibleError, match=r"x\.png: not readable"):
        read_any(tmp_path / "x.png")


def test_sixteen_bit_pictures_keep_their_range(tmp_path: Path) -> None:
    Pillow.fromarray(np.array([[0, 65535], [32768, 100]], dtype=np.uint16)).save(tmp_path / "x.png")
    assert np.allclose(read_any(tmp_path / "x.png").grey, [[0, 1], [0.5, 0.0015]], atol=1e-3)


def test_phantom_writes_the_studies_it_names(tmp_path: Path) -> None:
    done = CliRunner().invoke(phantom, ["--out", str(tmp_path), "--count", "2", "--seed", "4"], catch_exceptions=False)
    paths = done.stdout.split()
    assert len(paths) == 2
    assert all(path.startswith(str(tmp_path)) for path in paths)
    assert read_image(tmp_path / "phantom-001.dcm").image.header.body_part == "CHEST"


def test_the_finding_that_is_meant_is_measured_where_a_model_has_several(tmp_path: Path) -> None:
    network = Stranger(labels=3)
    package = write_package(
        tmp_path / "p", save(network.state_dict()), weights='format = "safetensors"\ngraph = "resnet18"', labels=3
    )
    card = load_card(package)
    assert label_to_evaluate(card, card.labels[2].name) == 2
    for name, words in (("", "has several findings"), ("Fracture", "has no finding 'Fracture'")):
        with pytest.raises(SettingsError, match=f"{words}: say --label with one of"):
            label_to_evaluate(card, name)
    only = card.model_copy(
        update={"labels": tuple(label.model_copy(update={"background": i != 1}) for i, label in enumerate(card.labels))}
    )
    assert label_to_evaluate(only) == 1
