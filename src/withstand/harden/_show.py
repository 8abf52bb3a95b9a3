"""A training on the console."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console, JustifyMethod
from rich.table import Table

from ..evaluate import Report, cost_words, training_cost, union
from ..stats import Interval, clopper_pearson
from ._cost import told
from ._finetune import Finetuned
from ._result import Hardened


def _hardened(hardened: Hardened, console: Console) -> None:
    """The epochs, the alarms, and what it cost."""
    table = Table(box=None, pad_edge=False, title="Training", title_justify="left")
    names = ("epoch", "recipe", "loss", "right of those", "held out: clean", "robust at most")
    for name in (*names, "cost"):
        justify: JustifyMethod = "left" if name == "recipe" else "right"
        # An interval broken over two lines is not read as one.
        table.add_column(name, justify=justify, no_wrap=name in ("recipe", "robust at most"))
    n = hardened.clean.n
    for epoch in hardened.history:
        table.add_row(
            str(epoch.number),
            epoch.recipe,
            f"{epoch.loss:.3f}",
            f"{100 * epoch.accuracy:.1f} %",
            f"{100 * epoch.clean:.1f} %",
            "" if epoch.robust is None else str(clopper_pearson(round(n * epoch.robust), n)),
            "" if epoch.factor is None else f"{epoch.factor:.1f} x",
        )
    console.print(table)
    for alarm in hardened.alarms:
        console.print(f"alarm, {alarm}", style="yellow", highlight=False, soft_wrap=True)
    for note in hardened.notes:
        console.print(f"note: {note}", style="yellow", highlight=False, soft_wrap=True)
    if hardened.certified is not None:
        console.print(f"held out, proven: at least {hardened.certified}", highlight=False)
    robust = "" if hardened.robust is None else f", robust at most {hardened.robust}"
    console.print(
        f"chosen: the {hardened.weights} weights of epoch {hardened.epoch}, held out: clean "
        f"{hardened.clean}{robust}; cost: {cost_words(training_cost(told(hardened.cost)))}, checks "
        "included",
        highlight=False,
        soft_wrap=True,
    )


def show_made(made: Hardened | Finetuned, console: Console) -> None:
    """A training, and where it was a fine-tuning its regression check."""
    if isinstance(made, Finetuned):
        _finetuned(made, console)
    else:
        _hardened(made, console)


def _finetuned(tuned: Finetuned, console: Console) -> None:
    """The training, and what changed on inputs that it has not seen."""
    _hardened(tuned.hardened, console)
    table = Table(box=None, pad_edge=False, title="Regression check", title_justify="left")
    for name in ("", "before", "after", "change", "at least", "outcome"):
        table.add_column(name)
    for change in (*tuned.changes, tuned.learnt):
        judged = change is not tuned.learnt
        table.add_row(
            change.metric.replace("_", " "),
            str(change.before),
            str(change.after),
            _points(change.change),
            f"{100 * change.least:+.1f}" if judged else "",
            change.outcome if judged else "trained on",
        )
    console.print(table)
    console.print(f"outcome: {tuned.outcome}", highlight=False)


def union_of(reports: Sequence[Report]) -> dict[str, Any]:
    """Robust accuracy in each region, and in all of them together, as plain values."""
    regions = {report.threat["region"]: report for report in reports}
    cost = reports[0].training
    return {
        "robust_accuracy": {name: one.robust_accuracy.to_dict() for name, one in regions.items()},
        "union": union(regions).to_dict(),
        "training": None if cost is None else vars(cost),
    }


def show_union(reports: Sequence[Report], console: Console) -> None:
    """Robust accuracy in each region, in all of them together, and what the training cost."""
    table = Table(box=None, pad_edge=False, title="All norms", title_justify="left")
    for name in ("region", "robust accuracy, at most", "trust"):
        table.add_column(name)
    for report in reports:
        region, trust = report.threat["region"], report.trust.verdict
        table.add_row(region, str(report.robust_accuracy), trust)
    regions = {report.threat["region"]: report for report in reports}
    table.add_row("all of them (union)", str(union(regions)), "")
    console.print(table)
    if reports[0].training is not None:
        console.print(f"training: {cost_words(reports[0].training)}", highlight=False)


def _points(change: Interval) -> str:
    if not change.n:
        return "no data"
    return f"{100 * change.value:+.1f} points [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
