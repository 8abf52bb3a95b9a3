"""What is told of a detector and of the inputs that it judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ..evaluate import Finding, printable
from ._detector import Detector
from ._from_config import snake
from .calibration._threshold import Threshold

_STYLE = {"green": "green", "amber": "yellow", "red": "bold red"}


def show_detector(
    detector: Detector, console: Console, *, requests_per_day: int | None = None
) -> None:
    """Print what a detector promises, what it can do, and what its last recalibration changed."""
    method, kept = detector.method, detector.threshold
    layers = f", layers {', '.join(detector.layers)}" if detector.layers else ""
    _line(console, f"detector: {snake(type(method).__name__)}{layers}")
    passes = f"{method.passes:g} more for each input" if method.passes else "none"
    _line(console, f"forwards besides the model's own: {passes}")
    if kept is not None:
        _promise(kept, console)
        if requests_per_day:
            _line(console, alarms(kept, requests_per_day))
    if detector.history:
        _line(console, f"recalibrated {detector.history[-1].time}: {detector.history[-1]}")
    if detector.power is not None:
        show_findings(detector.power.findings, console)
        if detector.power.forced:
            _line(console, "forced: it is kept although it cannot work as it is", "bold red")


def alarms(kept: Threshold, requests_per_day: int) -> str:
    """How many false alarms a day that is."""
    usual, most = (requests_per_day * share for share in (kept.flagged / kept.n, kept.bound))
    return (
        f"false alarms at {requests_per_day:,} benign requests a day: about {usual:,.0f}, at most "
        f"{most:,.0f}"
    )


def show_findings(findings: tuple[Finding, ...], console: Console) -> None:
    """Print the findings of a power report, and what to do where one is not green."""
    table = Table(box=None, pad_edge=False, title="Can it work here?", title_justify="left")
    for name in ("check", "value", "limit", "verdict"):
        table.add_column(name, justify="right" if name in ("value", "limit") else "left")
    for each in findings:
        value = "" if each.value is None else f"{each.value:.3g}"
        limit = "" if each.threshold is None else f"{each.threshold:.3g}"
        verdict = f"[{_STYLE[each.verdict]}]{each.verdict}[/]"
        table.add_row(each.check, value, limit, verdict)
    console.print(table)
    for each in findings:
        if each.verdict != "green":
            _line(console, f"{each.meaning}; {each.fix}", _STYLE[each.verdict])


def scored(detector: Detector, inputs: NDArray[np.float32]) -> list[dict[str, Any]]:
    """For each input its row, score, suspicion, answer and whether it is flagged, as plain values.

    Raises DataError where the detector has no threshold.
    """
    x = torch.from_numpy(inputs)
    suspicion = detector.suspicion(x)
    tells = detector.model.access != "none"
    scores, answers = detector.scores_and_labels(x, tells)
    return [
        {
            "row": row,
            "score": float(scores[row]),
            "suspicion": float(suspicion[row]),
            "answer": None if answers is None else int(answers[row]),
            "flagged": bool(suspicion[row] > 0),
        }
        for row in range(len(x))
    ]


def _promise(kept: Threshold, console: Console) -> None:
    _line(console, f"threshold {kept}")
    if not kept.classes:
        return
    table = Table(box=None, pad_edge=False)
    for name in ("predicted class", "threshold", "flags at most", "held out"):
        table.add_column(name, justify="right")
    for label, own in sorted(kept.classes.items()):
        share = f"{100 * own.bound:.2g} %"
        table.add_row(str(label), f"{own.value:.6g}", share, f"{own.flagged} of {own.n}")
    console.print(table)


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(printable(text), style=style, highlight=False, soft_wrap=True, markup=False)
