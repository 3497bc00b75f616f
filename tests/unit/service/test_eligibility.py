from __future__ import annotations

from dataclasses import replace

import pytest

from service.eligibility import is_result, reason_not_to_read
from service.images import ImageHeader
from service.model_card import Eligibility

RULES = Eligibility(modalities=("CR", "DX"), body_parts=("CHEST", "THORAX"), views=("PA", "AP"))
CHEST = ImageHeader(
    sop_instance_uid="1",
    modality="DX",
    body_part="CHEST",
    view_position="PA",
    patient_orientation=("L", "F"),
    rows=1000,
    columns=900,
)


def reason(**changes: object) -> str | None:
    return reason_not_to_read(replace(CHEST, **changes), RULES, ("CR", "DX"))


def test_a_frontal_chest_film_is_read() -> None:
    assert reason() is None


def test_a_film_that_says_little_is_read() -> None:
    assert reason(body_part="", view_position="", patient_orientation=()) is None


@pytest.mark.parametrize("conversion_type", ["", "DF", "DI", "DV", "SI", "WSD"])
def test_a_digitised_or_converted_film_is_read(conversion_type: str) -> None:
    assert reason(conversion_type=conversion_type) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modality": "CT"}, "modality CT"),
        ({"modality": ""}, "modality not given"),
        ({"rows": 0}, "no pixels"),
        ({"columns": 0}, "no pixels"),
        ({"frames": 2}, "2 frames"),
        ({"body_part": "KNEE"}, "body part KNEE"),
        ({"view_position": "LL"}, "view LL"),
        ({"view_position": "", "patient_orientation": ("A", "F")}, "lateral view"),
        ({"view_position": "", "patient_orientation": ("PR", "F")}, "lateral view"),
        ({"view_position": "", "descriptions": ("THORAX LAT",)}, "lateral view"),
        ({"view_position": "", "study_description": "THORAX LAT"}, "lateral view"),
        (
            {
                "view_position": "",
                "patient_orientation": (),
                "descriptions": ("LATERAL",),
                "study_description": "CHEST PA AND LATERAL",
            },
            "lateral view, by its description",
        ),
        ({"view_position": "RIGHT LATERAL"}, "view RIGHT LATERAL"),
        ({"patient_orientation": ("F", "P")}, "lateral view"),
        ({"patient_orientation": ("F", "R")}, "stored turned or mirrored, by its patient orientation F"),
        ({"patient_orientation": ("R", "H")}, "stored turned or mirrored"),
        ({"patient_orientation": ("R", "F")}, "stored turned or mirrored"),
        ({"for_processing": True}, "raw data FOR PROCESSING"),
        ({"descriptions": ("CANINE LATERAL THORAX 0-15cm",)}, "animal"),
        ({"species": "Canis lupus familiaris"}, "animal"),
        ({"rows": 63}, "63 x 900 pixels: this model needs at least 64 x 64"),
        ({"columns": 63}, "1000 x 63 pixels"),
        ({"conversion_type": "WSD", "marked_up": True}, "made on a workstation"),
        ({"conversion_type": "SYN"}, "made by a program"),
        ({"conversion_type": "DRW"}, "made by drawing"),
        ({"conversion_type": "SD"}, "scanning a document"),
    ],
)
def test_what_the_model_does_not_read_is_refused_in_words(changes: dict[str, object], words: str) -> None:
    found = reason(**changes)
    assert found is not None
    assert words in found


@pytest.mark.parametrize(
    "changes",
    [{"rows": 64, "columns": 64}, {"body_part": "Chest"}, {"view_position": "ap"}, {"species": "Homo sapiens"}],
)
def test_the_smallest_film_and_any_case_of_letters_are_read(changes: dict[str, object]) -> None:
    assert reason(**changes) is None


@pytest.mark.parametrize(("model", "pipeline"), [(("CR",), ("CR", "DX")), (("CR", "DX"), ("CR",))])
def test_a_modality_must_be_both_the_models_and_the_pipelines(
    model: tuple[str, ...], pipeline: tuple[str, ...]
) -> None:
    assert reason_not_to_read(CHEST, RULES.model_copy(update={"modalities": model}), pipeline) == (
        "modality DX: this pipeline reads CR"
    )


@pytest.mark.parametrize(
    "changes",
    [{"modality": "SEG"}, {"modality": "RWV"}, {"modality": "RTDOSE"}, {"rows": 0}, {"columns": 0}]
    + [{"conversion_type": kind} for kind in ("SYN", "DRW", "SD")]
    + [{"conversion_type": "WSD", "marked_up": True}],
)
def test_what_was_computed_or_drawn_is_a_result_and_a_film_is_none(changes: dict[str, object]) -> None:
    assert is_result(replace(CHEST, **changes))
    assert not is_result(CHEST)


@pytest.mark.parametrize("key", ["modality", "body_part", "view_position"])
@pytest.mark.parametrize("value", ["Mustermann^Erika", "\x1b[2J\x1b[31mKNEE", "KNEE\nINFO: all is well", "K" * 200])
def test_what_is_no_code_is_never_quoted(key: str, value: str) -> None:
    found = reason(**{key: value})
    assert found is not None
    assert "that is no code" in found
    assert value.upper() not in found.upper()


@pytest.mark.parametrize("words", ["CAT SCAN HEAD W/O CONTRAST", "DOG BITE, RULE OUT FOREIGN BODY"])
def test_people_with_animals_in_their_description_are_read(words: str) -> None:
    assert reason(study_description=words) is None


@pytest.mark.parametrize("orientation", [("L", "F"), ("LF", "FR"), ("L",), ("",), ("CR", "CD")])
def test_an_upright_film_and_one_that_does_not_say_are_read(orientation: tuple[str, ...]) -> None:
    assert reason(patient_orientation=orientation) is None


def test_a_series_that_says_frontal_is_read_in_a_study_of_a_lateral_too() -> None:
    said = {"descriptions": ("CHEST PA",), "study_description": "CHEST LATERAL"}
    assert reason(view_position="", patient_orientation=(), **said) is None


def test_a_description_of_both_views_does_not_refuse_a_film_without_view() -> None:
    assert reason(view_position="", descriptions=("CHEST PA AND LATERAL",)) is None


@pytest.mark.parametrize(("age", "reads"), [(1.0, True), (16.0, True), (0.5, False), (40.0, False), (None, True)])
def test_a_model_for_children_reads_children_and_those_without_an_age(age: float | None, reads: bool) -> None:
    rules = Eligibility(minimum_age_years=1, maximum_age_years=16)
    reason = reason_not_to_read(replace(CHEST, age_years=age), rules, [CHEST.modality])
    assert (reason is None) is reads
    # The age is the patient's, and the reason is logged.
    assert reason is None or f"{age:g} years" not in reason
