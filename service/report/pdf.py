"""A report as PDF: what its JSON says and nothing else."""

from collections.abc import Sequence
from typing import Any, Final
from xml.sax.saxutils import escape

from reportlab.lib import colors  # type: ignore[import-untyped]  # no types upstream
from reportlab.lib.pagesizes import A4  # type: ignore[import-untyped]
from reportlab.lib.styles import ParagraphStyle  # type: ignore[import-untyped]
from reportlab.lib.units import mm  # type: ignore[import-untyped]
from reportlab.platypus import (  # type: ignore[import-untyped]
    BaseDocTemplate,
    Frame,
    KeepTogether,
    LongTable,
    PageTemplate,
    Paragraph,
    Spacer,
    TableStyle,
)

from service.report.model import Figure, Report, Section, Table

_MARGIN: Final = 18 * mm
_WIDTH: Final = A4[0] - 2 * _MARGIN
_BODY: Final = ParagraphStyle("body", fontName="Helvetica", fontSize=9, leading=12, spaceAfter=4)
_SMALL: Final = ParagraphStyle("small", parent=_BODY, fontSize=7.5, leading=9.5, spaceAfter=0)
_HEAD: Final = ParagraphStyle("head", parent=_SMALL, fontName="Helvetica-Bold", textColor=colors.white)
_TITLE: Final = ParagraphStyle("title", parent=_BODY, fontName="Helvetica-Bold", fontSize=18, leading=24)
_HEADING: Final = ParagraphStyle(
    "heading", parent=_BODY, fontName="Helvetica-Bold", fontSize=13, leading=17, spaceBefore=12
)
_CAPTION: Final = ParagraphStyle(
    "caption", parent=_BODY, fontName="Helvetica-Bold", spaceBefore=8, spaceAfter=3
)
_QUERY: Final = ParagraphStyle(
    "query",
    parent=_SMALL,
    fontName="Courier",
    fontSize=6.5,
    leading=8,
    textColor=colors.HexColor("#444444"),
)
_GRID: Final = TableStyle(
    [
        ("BACKGROUND", (0, 0), (-1, 0), colors.HexColor("#26415e")),
        ("ROWBACKGROUNDS", (0, 1), (-1, -1), [colors.white, colors.HexColor("#f2f5f8")]),
        ("LINEBELOW", (0, 0), (-1, -1), 0.25, colors.HexColor("#b8c2cc")),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("TOPPADDING", (0, 0), (-1, -1), 2.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
        ("LEFTPADDING", (0, 0), (-1, -1), 4),
        ("RIGHTPADDING", (0, 0), (-1, -1), 4),
    ]
)


def write(report: Report, path: str) -> None:
    """Write the report to the file; the same report gives the same bytes."""
    document = BaseDocTemplate(
        path,
        pagesize=A4,
        title=f"{report.title}, {_period(report)}",
        author="Subtext",
        invariant=1,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
    )
    height = A4[1] - 2 * _MARGIN
    frame = Frame(_MARGIN, _MARGIN, _WIDTH, height, id="body", leftPadding=0, rightPadding=0)
    foot = f"{report.title}, {_period(report)}; as known at {report.as_of:%Y-%m-%d %H:%M} UTC"

    def number(canvas: Any, _document: Any) -> None:
        canvas.setFont("Helvetica", 7)
        canvas.drawString(_MARGIN, _MARGIN / 2, _encodable(foot))
        canvas.drawRightString(A4[0] - _MARGIN, _MARGIN / 2, f"page {canvas.getPageNumber()}")

    document.addPageTemplates([PageTemplate(frames=[frame], onPage=number)])
    document.build([*_front(report), *(part for one in report.sections for part in _section(one))])


def _front(report: Report) -> list[Any]:
    of = "all audited models" if report.model is None else f"model {report.model}"
    return [
        _paragraph(report.title, _TITLE),
        _paragraph(f"{_period(report)}, of {of}", _CAPTION),
        _paragraph(
            f"Worked out by Subtext {report.version} from its store as known at "
            f"{report.as_of:%Y-%m-%d %H:%M} UTC. Every figure names its denominator, its interval where it "
            "is an estimate, and the query that gives it."
        ),
        _paragraph(report.headings),
    ]


def _section(section: Section) -> list[Any]:
    parts: list[Any] = [
        KeepTogether([_paragraph(section.heading, _HEADING), _paragraph(section.text)]),
    ]
    if section.figures:
        parts += _figures(section.figures)
    for table in section.tables:
        parts += _table(table)
    parts += [_paragraph(f"• {note}") for note in section.notes]
    return parts


def _figures(figures: Sequence[Figure]) -> list[Any]:
    queries = list(dict.fromkeys(figure.query for figure in figures))
    rows = [[_paragraph(name, _HEAD) for name in ("figure", "value with its denominator", "query")]]
    rows += [
        [
            _paragraph(figure.label, _SMALL),
            _paragraph(figure.text, _SMALL),
            _paragraph(f"Q{queries.index(figure.query) + 1}", _SMALL),
        ]
        for figure in figures
    ]
    table = LongTable(rows, colWidths=[0.44 * _WIDTH, 0.48 * _WIDTH, 0.08 * _WIDTH], repeatRows=1)
    table.setStyle(_GRID)
    listed = [_paragraph(f"Q{number}: {query}", _QUERY) for number, query in enumerate(queries, start=1)]
    return [table, Spacer(1, 2), *listed]


def _table(table: Table) -> list[Any]:
    rows = [[_paragraph(name, _HEAD) for name in table.columns]]
    rows += [[_paragraph(cell, _SMALL) for cell in row] for row in table.rows]
    drawn = LongTable(rows, colWidths=_widths(table), repeatRows=1)
    drawn.setStyle(_GRID)
    note = [_paragraph(table.note, _SMALL)] if table.note else []
    return [
        _paragraph(table.title, _CAPTION),
        drawn,
        Spacer(1, 2),
        *note,
        _paragraph(table.query, _QUERY),
    ]


def _widths(table: Table) -> list[float]:
    """Return the columns' widths in points: after their longest words and texts, none below a tenth."""
    cells = [[name, *(row[number] for row in table.rows)] for number, name in enumerate(table.columns)]
    wishes = [min(60, max(6, *(len(cell) for cell in column))) for column in cells]
    return [_WIDTH * wish / sum(wishes) for wish in wishes]


def _paragraph(text: str, style: ParagraphStyle = _BODY) -> Paragraph:
    return Paragraph(escape(_encodable(text)), style)


def _encodable(text: str) -> str:
    # The standard fonts have these characters alone; the JSON has every one as it is.
    return text.encode("cp1252", "replace").decode("cp1252")


def _period(report: Report) -> str:
    return f"{report.start:%Y-%m-%d %H:%M} to {report.end:%Y-%m-%d %H:%M} UTC"
