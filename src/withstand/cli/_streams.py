"""Where a verb's result goes, and how it ends when somebody stops it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, TextIO

import typer

from .._errors import OutputError

if TYPE_CHECKING:
    from rich.console import Console


_results: TextIO | None = None


@contextmanager
def interruptible(then: str) -> Iterator[None]:
    """Ctrl-C ends with exit code 130 and one line that says what to do then.

    Inside, what the user's own code prints goes to standard error: only `put` writes results.
    """
    global _results
    before, _results = _results, _stdout()
    try:
        with redirect_stdout(sys.stderr):
            yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {then}", err=True)
        raise typer.Exit(130) from None
    finally:
        _results = before


def _stdout() -> TextIO | None:
    """Where results go; None where standard output was closed before we began."""
    return _results or sys.stdout


def put(text: str) -> None:
    """Write to standard output; raises OutputError where it takes no more."""
    stream = _stdout()
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # Who reads has seen enough, as in `withstand evaluate | head`.
        _discard(stream)
    except OSError as error:
        _discard(stream)
        raise OutputError(
            f"standard output cannot be written: {error.strerror}; free space there, the report's "
            "files are written"
        ) from None


def drawn(draw: Callable[[Console], None]) -> str:
    """What is drawn on a console, with its colours where standard output is a terminal."""
    from rich.console import Console

    console = Console(file=_stdout())
    with console.capture() as text:
        draw(console)
    return text.get()


def _discard(stream: TextIO) -> None:
    # What is still buffered would fail once more when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def tolerant() -> None:
    """Names that a terminal's encoding lacks are shown with question marks."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
