"""The report as one page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ._chart import Chart, Curve, Point, chart, draw
from ._pictures import answer, examples
from ._report import Report, Slice
from ._words import (
    BOUND,
    VERDICT,
    about,
    by_robustness,
    by_weight,
    cost_words,
    defended,
    headline,
    printable,
)
from ._words import worst_slices as worst
from .business import Business, amount, bars, change, effort, over, paragraph, share

_ROWS = 200
_SLICES = 100
_TAKEN = ("distance", "features changed")


def page(
    reports: dict[str, Report],
    title: str = "Robustness report",
    sections: Sequence[Markup] = (),
) -> str:
    """A self-contained HTML page of one report, or of several by name side by side.

    sections: more of them, before those of each report. All text is escaped; the page loads nothing
    and runs no script.
    """
    return render(
        "evaluate/report.html.j2",
        title=title,
        parts=[_part(name, report, place) for place, (name, report) in enumerate(reports.items())],
        headline=headline(reports),
        chart=chart(reports),
        sections=sections,
        norm=next(iter(reports.values())).threat["norm"],
        bound=BOUND,
        about=about,
    )


def render(template: str, **values: Any) -> str:
    """A page from one of the package's templates, by its path; all values are escaped."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    # One for all pages: compiling a template takes longer than filling it in.
    return Environment(
        loader=PackageLoader("withstand", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )


def _finalize(value: Any) -> Any:
    # Only plain text: what is marked up already holds nothing but what passed here before.
    return printable(value).replace(" %", "\u00a0%") if type(value) is str else value


def _part(name: str, report: Report, place: int) -> dict[str, Any]:
    return {
        "name": name,
        "report": report,
        "headline": headline({"": report}),
        "training": None if report.training is None else cost_words(report.training),
        "meaning": VERDICT[report.trust.verdict],
        "findings": by_weight(report.trust.findings),
        "worst": worst(report),
        "defended": defended(report),
        "slices": [
            _slices(kind, slices)
            for kind, slices in (("class", report.classes), ("group", report.groups))
            if slices
        ],
        "examples": examples(report) if report.business is None else [],
        "business": None if report.business is None else _business(report.business, place),
        "taken": _TAKEN[report.business is not None],
        "rows": _rows(report),
        "hidden": max(len(report.samples.status) - _ROWS, 0),
        "provenance": json.dumps(report.provenance, indent=2),
        "threat": json.dumps(report.threat, indent=2),
    }


def _business(business: Business, place: int) -> dict[str, Any]:
    return {
        "id": place,
        "paragraph": paragraph(business),
        "effort": effort(business),
        "chart": _budgets(business),
        "axis": f"what is spent on a row, at most ({business.currency or 'in units of costs'})",
        "bars": bars(business.features),
        "money": lambda value: amount(value, business.currency),
        "over": over,
        "share": share,
        "change": change,
    }


def _budgets(business: Business) -> Chart | None:
    """What gets through by the cost of a row: rows, and their money where it is known."""
    points = business.by_cost
    if not points:
        return None
    rates = [("rows", [(p.limit, p.fooling_rate) for p in points])]
    money = [(p.limit, p.money_rate) for p in points if p.money_rate and p.money_rate.n]
    if money:
        rates.append(("their money", money))
    curves = [
        Curve(
            name=name,
            points=[Point(limit, rate.value, rate.low, rate.high) for limit, rate in told],
            style=f"s{number}",
        )
        for number, (name, told) in enumerate(rates)
    ]
    return draw(curves)


def _taken(report: Report) -> list[str]:
    """What fooling each sample takes: a distance, or how many features of a row."""
    if report.business is None:
        return [f"{d:.4g}" if d < 1e300 else "-" for d in report.samples.distance.tolist()]
    rows, told = report.business.rows, ["-"] * len(report.samples.status)
    for row, count in zip(rows.row.tolist(), rows.changed.tolist(), strict=True):
        told[row] = str(count)
    return told


def _slices(kind: str, slices: tuple[Slice, ...]) -> dict[str, Any]:
    return {
        "kind": kind,
        "shown": by_robustness(slices)[:_SLICES],
        "hidden": max(len(slices) - _SLICES, 0),
    }


def _rows(report: Report) -> list[dict[str, Any]]:
    samples, taken = report.samples, _taken(report)
    return [
        {
            "index": i,
            "label": answer(report, samples.label[i]),
            "clean": answer(report, samples.clean_answer[i]),
            "answer": answer(report, samples.adversarial_answer[i]),
            "status": samples.status[i],
            "attack": samples.attack[i],
            "taken": taken[i],
            "forwards": int(samples.forwards[i]),
        }
        for i in range(min(len(samples.status), _ROWS))
    ]
