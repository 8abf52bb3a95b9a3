"""The report as one page that needs nothing else."""

from __future__ import annotations

import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ._chart import chart
from ._pictures import answer, examples
from ._report import Report
from ._words import BOUND, VERDICT, attacker, headline, percent, worst_slices

_ROWS = 200


def page(reports: dict[str, Report], title: str = "Robustness report") -> str:
    """A self-contained HTML page of one report, or of several by name side by side.

    All text is escaped; the page loads nothing and runs no script.
    """
    environment = Environment(
        loader=PackageLoader("withstand.evaluate", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        title=title,
        parts=[_part(name, report) for name, report in reports.items()],
        chart=chart(reports),
        norm=next(iter(reports.values())).threat["norm"],
        bound=BOUND,
    )


def _part(name: str, report: Report) -> dict[str, Any]:
    samples = report.samples
    shown = range(min(len(samples.status), _ROWS))
    return {
        "name": name,
        "report": report,
        "headline": headline(report),
        "attacker": attacker(report),
        "fooled": percent(report.fooling_rate.value) if report.fooling_rate.n else "no data",
        "meaning": VERDICT[report.trust.verdict],
        "worst": worst_slices(report),
        "examples": examples(report),
        "rows": [
            {
                "index": i,
                "label": answer(report, samples.label[i]),
                "clean": answer(report, samples.clean_answer[i]),
                "answer": answer(report, samples.adversarial_answer[i]),
                "status": samples.status[i],
                "attack": samples.attack[i],
                "distance": samples.distance[i],
                "forwards": int(samples.forwards[i]),
            }
            for i in shown
        ],
        "hidden": len(samples.status) - len(shown),
        "provenance": json.dumps(report.provenance, indent=2),
        "threat": json.dumps(report.threat, indent=2),
    }
