"""How many rows a served model was sent over several runs, in a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._errors import ModelError


class Tally:
    """A number in a file that is never lower than what was sent, even if the process is killed.

    It is written before rows leave, a hundredth of the limit ahead, so that at most so many count
    that did not leave. before: what the file said at first. Raises ModelError for a file that holds
    no number or cannot be written.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self._limit = path, limit
        try:
            self.before = self._covered = int(path.read_text())
        except FileNotFoundError:
            self.before = self._covered = 0
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{path} does not say how many rows were sent ({error}); delete it to count anew"
            ) from None

    @property
    def told(self) -> str:
        """Where rows of earlier runs are counted, for a message; empty without."""
        if not self.before:
            return ""
        return f" ({self.before} by interrupted runs; delete {self.path} to count anew)"

    def cover(self, rows: int) -> None:
        """See that the file says at least so many."""
        if rows > self._covered:
            self.write(max(rows, min(rows + self._limit // 100, self._limit)))

    def write(self, rows: int) -> None:
        """Write the number, for good."""
        part = self.path.with_name(self.path.name + ".part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("w") as file:
                file.write(f"{rows}\n")
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
        except OSError as error:
            raise ModelError(
                f"{self.path} cannot be written: {error.strerror}; free space there, since the cap "
                "on queries holds over interruptions"
            ) from None
        self._covered = rows


@contextmanager
def counted(model: Any, checkpoint: str | Path | None) -> Iterator[None]:
    """Count what a run sends towards the cap of a served model, over interruptions and kills.

    The count lies beside the run's checkpoint, and goes with it when the run is over.
    """
    model = _served(model)
    if checkpoint is None or model is None:
        yield
        return
    path = Path(f"{checkpoint}.sent")
    model.count_in(path)
    try:
        yield
    except BaseException:
        model.count_in(None)
        raise
    model.count_in(None)
    path.unlink(missing_ok=True)


def rows_sent(model: Any) -> int | None:
    """The rows that a served model was sent so far, None where none is asked over HTTP."""
    served = _served(model)
    return None if served is None else int(served.sent)


def _served(model: Any) -> Any:
    while not hasattr(model, "count_in") and hasattr(model, "model"):
        model = model.model
    return model if hasattr(model, "count_in") else None
