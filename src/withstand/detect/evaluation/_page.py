"""The report as one page that needs nothing else."""

from __future__ import annotations

import json

from ...evaluate import render
from ._plots import alarms, histogram, roc
from ._report import DetectionReport
from ._words import BOUND, COLOUR, HEADS, by_weight, cells, figures, split, worst_cells


def page(report: DetectionReport) -> str:
    """A self-contained HTML page; all text is escaped, and it loads and runs nothing."""
    return render(
        "detect/evaluation/detection.html.j2",
        report=report,
        colour=COLOUR[report.verdict.level],
        figures=figures(report),
        worst=[worst_cells(case) for case in report.worst],
        heads=HEADS,
        parts=[
            (title, [cells(row) for row in rows]) for title, rows in split(report).items() if rows
        ],
        findings=by_weight(report.trust.findings),
        roc=roc(report),
        histogram=histogram(report),
        alarms=alarms(report),
        bound=BOUND,
        provenance=json.dumps(
            {"detector": report.detector, "threat": report.threat, **report.provenance}, indent=2
        ),
    )
