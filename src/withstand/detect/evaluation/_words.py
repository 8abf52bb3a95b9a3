"""The report's words and cells, the same on the console and on the page."""

from __future__ import annotations

from ...evaluate import Finding
from ...stats import Interval
from ._report import DetectionReport, Row, Worst

BOUND = (
    "What is flagged of attacks, and robust accuracy, are upper bounds: a stronger attacker may "
    "lower them. Intervals are exact (Clopper and Pearson) at 95 %."
)
HEADS = ("attack", "radius", "fooled", "flagged", "AUC", "USR", "forwards", "backwards", "CPU s")
COLOUR = {
    "holds": "green", "raises cost": "amber", "non-adaptive only": "red", "not shown": "red",
}  # fmt: skip


def figures(report: DetectionReport) -> list[tuple[str, str, str]]:
    """The figures in the order of their weight: name, value, meaning."""
    cost, verdict = report.cost, report.verdict
    radius = max((case.radius for case in report.worst), default=float("nan"))
    aware, unaware = report.at(radius, knows=True), report.at(radius, knows=False)
    found = []
    if aware is not None:
        found += [
            ("flagged, attacker knows of it", str(aware.tpr),
             "at most: of the successful attacks, worst case over all"),
            ("fooled and not flagged (USR)", str(aware.usr), "at least: of all inputs"),
            ("right, with rejection", str(aware.robust),
             "at most: right, not flagged, and not fooled unseen"),
            ("wrong and not flagged", str(aware.error),
             f"at least, under attack; without the detector {aware.bare_error} are wrong"),
        ]  # fmt: skip
    if unaware is not None:
        told = "at most: of the successful attacks that do not know of it"
        found.append(("flagged, attacker unaware", str(unaware.tpr), told))
    if verdict.gain.n:
        found.append(("fewer fooled unseen", str(verdict.gain), "than without it, of all inputs"))
    if verdict.effort is not None:
        e = verdict.effort
        told = f"{e.value:.3g} [{e.low:.3g}, {e.high:.3g}] x"
        found.append(("queries for a success", told, "from scores, over those without it"))
    day = report.alarms
    found += [
        ("false alarms", str(report.benign.flagged),
         f"of {report.benign.flagged.n:,} benign inputs; promised at most "
         f"{100 * report.benign.promised:g} %"),
        ("alarms a day", f"{day.value:,.0f} [{day.low:,.0f}, {day.high:,.0f}]",
         f"expected of {report.requests:,} benign requests"),
        ("cost of an input", f"{cost.batched - cost.model_batch:,.0f} us",
         f"CPU, beside {cost.model_batch:,.0f} us of the model in batches of {cost.batch}"),
        ("cost of a single input", f"{cost.single - cost.model_single:,.0f} us",
         f"CPU, beside {cost.model_single:,.0f} us of the model"),
    ]  # fmt: skip
    return found


def cells(row: Row) -> list[str]:
    """One attack as text."""
    return [
        row.title + (f", {100 * row.rejected:.0f} % of queries rejected" if row.rejected else ""),
        "any" if row.radius == float("inf") else f"{row.radius:.3g}",
        _share(row.fooled),
        str(row.tpr),
        "-" if row.auc != row.auc else f"{row.auc:.3f}",
        str(row.usr),
        f"{row.forwards:,.0f}",
        f"{row.backwards:,.0f}",
        f"{row.cpu_seconds:.1f}",
    ]


def worst_cells(case: Worst) -> list[str]:
    """The worst case at one radius as text."""
    figures = (case.fooled, case.tpr, case.usr, case.robust)
    return [f"{case.radius:.3g}", "yes" if case.knows else "no", *map(str, figures)]


def split(report: DetectionReport) -> dict[str, list[Row]]:
    """The attacks by what the attacker knows."""
    return {
        "Attacks that know of the detector": [r for r in report.rows if r.knows],
        "Attacks that do not": [r for r in report.rows if not r.knows and r.counts],
        "Outside the threat, for comparison": [r for r in report.rows if not r.counts],
    }


def by_weight(findings: tuple[Finding, ...]) -> list[Finding]:
    """Findings, the gravest first."""
    return sorted(findings, key=lambda f: ("red", "amber", "green").index(f.verdict))


def _share(interval: Interval) -> str:
    return f"{100 * interval.value:.0f} %" if interval.n else "no data"
