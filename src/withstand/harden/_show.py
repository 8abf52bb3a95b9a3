"""A training on the console."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from ..stats import Interval
from ._finetune import Finetuned
from ._result import Hardened


def _hardened(hardened: Hardened, console: Console) -> None:
    """The epochs, the alarms, and what it cost."""
    table = Table(box=None, pad_edge=False, title="Training", title_justify="left")
    for name in ("epoch", "recipe", "loss", "right of those", "held out: clean", "robust at most"):
        table.add_column(name, justify="left" if name == "recipe" else "right")
    for epoch in hardened.history:
        table.add_row(
            str(epoch.number),
            epoch.recipe,
            f"{epoch.loss:.3f}",
            f"{100 * epoch.accuracy:.1f} %",
            f"{100 * epoch.clean:.1f} %",
            "" if epoch.robust is None else f"{100 * epoch.robust:.1f} %",
        )
    console.print(table)
    for alarm in hardened.alarms:
        console.print(f"alarm, {alarm}", style="yellow", highlight=False, soft_wrap=True)
    if hardened.certified is not None:
        console.print(f"held out, proven: at least {hardened.certified}", highlight=False)
    cost = hardened.cost
    console.print(
        f"chosen: the {hardened.weights} weights of epoch {hardened.epoch}; cost: "
        f"{cost.factor:.2f} times standard training ({cost.seconds:.1f} s for "
        f"{cost.standard_seconds:.1f} s), {cost.passes:.2f} gradient passes a sample, checks "
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


def _points(change: Interval) -> str:
    if not change.n:
        return "no data"
    return f"{100 * change.value:+.1f} points [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
