"""Progress on standard error, and only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..evaluate import Progress


@contextmanager
def shown(quiet: bool = False) -> Iterator[Callable[[Progress], None] | None]:
    """A function that shows progress as a bar; None where nobody watches or wants it."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[fooled]}"),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("starting", total=None, fooled="")

        def show(now: Progress) -> None:
            bars.update(
                task,
                description=now.stage,
                completed=now.done,
                total=now.total,
                fooled=f"{now.fooled:,} fooled" if now.fooled else "",
            )

        yield show


@contextmanager
def counted(stage: str, quiet: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """As `shown`, for work that tells only how many inputs are done, and of how many."""
    with shown(quiet) as tell:
        if tell is None:
            yield None
            return
        from ..evaluate import Progress

        yield lambda done, total: tell(Progress(stage=stage, done=done, total=total, fooled=0))
