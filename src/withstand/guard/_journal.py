"""Where decisions are kept."""

from __future__ import annotations

from typing import Any, Protocol

from .wire import Inference


class Journal(Protocol):
    """Keeps a record of each decision, and never makes anybody wait."""

    required: bool
    """Whether a request is refused rather than answered without a record."""

    @property
    def failing(self) -> bool:
        """Whether nothing can be kept at present."""

    def note(self, content: dict[str, Any], *, flagged: bool, asked: Inference | None) -> bool:
        """Keep a decision, and perhaps what was asked; False where it could not be."""

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all that was noted is on the disk; False if it took too long."""

    def close(self) -> None:
        """Write what waits, and let go of what is held open."""


class NoJournal:
    """Keeps nothing, for whoever says so."""

    required = False
    failing = False

    def note(self, content: dict[str, Any], *, flagged: bool, asked: Inference | None) -> bool:
        """Keep nothing."""
        return True

    def flush(self, timeout: float = 10.0) -> bool:
        """There is nothing to wait for."""
        return True

    def close(self) -> None:
        """Nothing is held open."""
