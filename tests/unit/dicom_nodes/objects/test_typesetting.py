from __future__ import annotations

import pytest
from PIL import Image, ImageDraw

from dicom_nodes.objects.typesetting import MIN_SIZE, Line, fit, is_printable, printable, text_width

LONG = "Pneumonia indicated (at or above operating point) with a probability of ninety-three per cent"


@pytest.mark.parametrize("width", [120, 300, 777, 2000])
@pytest.mark.parametrize("text", [LONG, "W" * 200, "a", "x " * 300])
def test_no_line_is_wider_than_its_strip(width: int, text: str) -> None:
    strip = fit([Line(text=text, size=40, colour=(255, 255, 255))], width)
    assert all(text_width(line.text, line.size) <= width for line in strip.lines)
    assert "".join(line.text for line in strip.lines).replace(" ", "") == text.replace(" ", "")


def test_drawn_words_stay_inside_their_strip() -> None:
    strip = fit([Line(text=LONG, size=40, colour=(255, 255, 255))], 400)
    canvas = Image.new("RGB", (400 + 50, strip.height + 50))
    boxes = strip.draw(ImageDraw.Draw(canvas), 0, 0)
    drawn = canvas.getbbox()
    assert drawn is not None
    assert drawn[2] <= 400
    assert drawn[3] <= strip.height
    assert len(boxes) == len(strip.lines) > 1


def test_a_word_that_is_too_wide_shrinks_before_it_is_cut() -> None:
    strip = fit([Line(text="Pneumonoultramicroscopicsilicovolcanoconiosis", size=40, colour=(1, 1, 1))], 600)
    assert len(strip.lines) == 1
    assert MIN_SIZE <= strip.lines[0].size < 40


def test_characters_that_the_face_lacks_are_replaced() -> None:
    assert printable("Müller \u2013 ≥ 2²") == "Muller - >= 22"
    assert printable("Größe, Ærø, Wrocław, ŒUVRE") == "Grosse, Aero, Wroclaw, ?UVRE"
    assert printable("山") == "?"
    assert [is_printable(text) for text in ("Größe?", "山", "")] == [True, False, True]


def test_an_empty_line_takes_no_room() -> None:
    assert fit([Line(text="  ", size=20, colour=(1, 1, 1))], 300).lines == ()
