"""Where a verb's result goes, and how it ends when somebody stops it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from .._errors import OutputError

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def interruptible(then: str) -> Iterator[None]:
    """Ctrl-C ends with exit code 130 and one line that says what to do then."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {then}", err=True)
        raise typer.Exit(130) from None


def put(text: str) -> None:
    """Write to standard output; raises OutputError where it takes no more."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads has seen enough, as in `withstand evaluate | head`.
        _discard()
    except OSError as error:
        _discard()
        raise OutputError(
            f"standard output cannot be written: {error.strerror}; free space there, the report's "
            "files are written"
        ) from None


def drawn(draw: Callable[[Console], None]) -> str:
    """What is drawn on a console, with its colours where standard output is a terminal."""
    from rich.console import Console

    console = Console()
    with console.capture() as text:
        draw(console)
    return text.get()


def _discard() -> None:
    # What is still buffered would fail once more when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tolerant() -> None:
    """Names that a terminal's encoding lacks are shown with question marks."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
