"""Sets a result on one A4 page as PDF: text as text, films as pictures, always the same bytes.

No name, number or date of the patient is printed: what the archive shows beside the page says whose it is, and the
page names the source image by its UID.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Paragraph, Spacer, Table

from dicom_nodes.objects import captions, narrative
from dicom_nodes.objects.orientation import NOT_STATED, edges
from dicom_nodes.objects.overlay import drawn
from dicom_nodes.objects.panels import explained_panel, plain_panel, scene_size
from dicom_nodes.objects.scene import default_scene
from dicom_nodes.objects.typesetting import printable

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from dicom_nodes.objects.scene import Scene
    from dicom_nodes.objects.subject import Subject
    from service.results import Finding

_MARGIN = 36.0
_WIDTH = A4[0] - 2 * _MARGIN
_HEIGHT = A4[1] - 2 * _MARGIN
_GAP = 8.0
_PANEL = 900
"""Pixels a side: some 250 a inch on paper."""
_SIDES = 12.0
"""Points above the films for the letters of their left and right edges."""
_SMALLEST_FILM = 220.0
"""Points; films may shrink to this before words do."""
_SIZES = (8.5, 8.0, 7.5, 7.0, 6.5, 6.0, 5.5, 5.0)
_REGULAR, _BOLD = "Vera", "VeraBd"
_WARNING = HexColor(0xA33A00)
_RULE = HexColor(0x999999)


def typeset(about: Subject) -> bytes:
    """Return the page as PDF."""
    for name in (_REGULAR, _BOLD):
        if name not in pdfmetrics.getRegisteredFontNames():
            # Embedded, so that the page looks the same everywhere; reportlab brings the face.
            pdfmetrics.registerFont(TTFont(name, f"{name}.ttf"))
    scene = default_scene(about)
    buffer = BytesIO()
    # `invariant` leaves out the clock and random identifiers.
    canvas = Canvas(buffer, pagesize=A4, invariant=1, pageCompression=1)
    canvas.setTitle(f"AI analysis: {captions.verdict(scene.finding)}")
    canvas.setAuthor("Pellucid")
    canvas.setCreator("Pellucid")
    canvas.setSubject(narrative.RESEARCH)
    for size in _SIZES:
        above, below = _above(scene, size), _below(about, size)
        room = _HEIGHT - _height(above) - _height(below) - 2 * _GAP
        if room >= _SMALLEST_FILM or size == _SIZES[-1]:
            break
    top = _draw(canvas, above, A4[1] - _MARGIN)
    top = _draw_films(canvas, scene, top - _GAP, max(room, _SMALLEST_FILM))
    _draw(canvas, below, top - _GAP)
    canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def _above(scene: Scene, size: float) -> list[Flowable]:
    return [
        _paragraph(captions.verdict(scene.finding), size * 1.9, bold=True),
        Spacer(1, size * 0.7),
        _paragraph(captions.NOT_FOR_DIAGNOSIS, size * 1.25, bold=True, warning=True),
        Spacer(1, size * 0.9),
        _table(scene.result.findings, size),
    ]


def _below(about: Subject, size: float) -> list[Flowable]:
    scene = default_scene(about)
    flowables: list[Flowable] = [_paragraph(_legend(scene), size)]
    for section in narrative.short_sections(about):
        flowables += [Spacer(1, size * 0.8), _paragraph(section.heading.meaning, size * 1.1, bold=True)]
        flowables += [_paragraph(line, size) for line in section.lines]
    flowables += [Spacer(1, size * 0.8), _paragraph(f"Source image: {scene.image.header.sop_instance_uid}", size * 0.9)]
    return flowables


def _legend(scene: Scene) -> str:
    shown = _sentence(drawn(scene)) or "No explanation was computed."
    place = f" ({scene.place[0].lower()}{scene.place[1:]})" if scene.place else ""
    sides = "" if edges(scene.header) else f"{NOT_STATED} "
    coloured = scene.finding.positive and bool(scene.magnitude.any())
    scale = " Colour from violet (25 %) to yellow, relative to the map's own maximum." if coloured else ""
    return f"Left: the image as sent{place}. {sides}Right: {shown}{scale}"


def _table(findings: tuple[Finding, ...], size: float) -> Table:
    """Return every finding at every operating point of the card."""
    heads = ("Finding", "Probability", "Operating point", "Threshold", "Sensitivity*", "Specificity*", "Result")
    rows = [[_paragraph(head, size, bold=True) for head in heads]]
    for finding in findings:
        for point in finding.operating_points or (finding.operating_point,):
            used = point.name == finding.operating_point.name
            above = finding.probability >= point.threshold
            cells = (
                finding.label,
                captions.percent(finding.probability),
                f"{point.name} (in use)" if used else point.name,
                captions.percent(point.threshold),
                captions.percent(point.sensitivity),
                captions.percent(point.specificity),
                "at or above" if above else "below",
            )
            rows.append([_paragraph(cell, size, bold=used) for cell in cells])
    rows.append([_paragraph("* on validation data", size * 0.9), *[""] * (len(heads) - 1)])
    widths = [_WIDTH * share for share in (0.17, 0.12, 0.19, 0.12, 0.13, 0.13, 0.14)]
    style = [
        ("LINEBELOW", (0, 0), (-1, 0), 0.7, _RULE),
        ("LINEBELOW", (0, -2), (-1, -2), 0.4, _RULE),
        ("SPAN", (0, -1), (-1, -1)),
        ("TOPPADDING", (0, 0), (-1, -1), 1.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 1.5),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
    ]
    return Table(rows, colWidths=widths, style=style)


def _draw_films(canvas: Canvas, scene: Scene, top: float, room: float) -> float:
    """Draw the film as sent and with its explanation; returns where they end."""
    size = scene_size(scene, _PANEL)
    side = (_WIDTH - _GAP) / 2
    scale = min(side / size[0], (room - _SIDES) / size[1])
    width, height = float(size[0] * scale), float(size[1] * scale)
    top -= _SIDES
    first = _MARGIN + side - width
    canvas.drawImage(_jpeg(plain_panel(scene, size)), first, top - height, width, height)
    _draw_sides(canvas, scene, first, width, top + 0.2 * _SIDES)
    second = _MARGIN + side + _GAP
    if scene.withheld:
        words = _paragraph(f"{drawn(scene)}: its checks failed, see below.", _SIZES[0], warning=True)
        _, tall = words.wrap(side, height)
        words.drawOn(canvas, second, top - tall)
    else:
        canvas.drawImage(_jpeg(explained_panel(scene, size)), second, top - height, width, height)
        _draw_sides(canvas, scene, second, width, top + 0.2 * _SIDES)
    return top - height


def _draw_sides(canvas: Canvas, scene: Scene, left: float, width: float, bottom: float) -> None:
    stated = edges(scene.header)
    if stated is not None:
        canvas.setFont(_BOLD, 0.8 * _SIDES)
        canvas.drawString(left, bottom, stated.left)
        canvas.drawRightString(left + width, bottom, stated.right)


def _jpeg(picture: Picture) -> ImageReader:
    """Return a picture that goes into the file as it is encoded here."""
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=85, subsampling="4:4:4", optimize=True)
    buffer.seek(0)
    return ImageReader(buffer)


def _paragraph(text: str, size: float, *, bold: bool = False, warning: bool = False) -> Paragraph:
    style = ParagraphStyle(
        "words",
        fontName=_BOLD if bold else _REGULAR,
        fontSize=size,
        leading=size * 1.25,
        textColor=_WARNING if warning else HexColor(0x000000),
        splitLongWords=1,
    )
    return Paragraph(escape(_in_face(text)), style)


def _in_face(text: str) -> str:
    """Replace characters that the embedded face lacks; an empty box would be all that is seen of them."""
    known = pdfmetrics.getFont(_REGULAR).face.charToGlyph
    return "".join(character if ord(character) in known else printable(character) for character in text)


def _height(flowables: list[Flowable]) -> float:
    return float(sum(flowable.wrap(_WIDTH, _HEIGHT)[1] for flowable in flowables))


def _draw(canvas: Canvas, flowables: list[Flowable], top: float) -> float:
    bottom = top
    for flowable in flowables:
        bottom -= float(flowable.wrap(_WIDTH, _HEIGHT)[1])
        flowable.drawOn(canvas, _MARGIN, bottom)
    return bottom


def _sentence(text: str) -> str:
    return f"{text.rstrip('.')}." if text else ""
