"""What guards are made of, so that a new configuration keeps what it has not changed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

_log = logging.getLogger("withstand.guard")
_Part = TypeVar("_Part")


class Parts:
    """What remembers or holds something, each by what it is and its settings.

    before: the parts of the guard that is replaced; those that are asked for again with the same
    settings go on, with all that they remember: standing, quotas, sketches, connections, evidence.
    """

    def __init__(self, before: Parts | None = None) -> None:
        self._before: dict[tuple[str, str], Any] = {} if before is None else before._kept
        self._kept: dict[tuple[str, str], Any] = {}

    def get(self, what: str, settings: object, make: Callable[[], _Part]) -> _Part:
        """The part with these settings; made where there is none yet."""
        key = (what, repr(settings))
        if key not in self._kept:
            self._kept[key] = self._before[key] if key in self._before else make()
        return self._kept[key]  # type: ignore[no-any-return]

    def settle(self) -> Parts:
        """Forget the parts before, and return those of them that are not in use any more."""
        gone = Parts()
        gone._kept = {key: one for key, one in self._before.items() if key not in self._kept}
        self._before = {}
        return gone

    def discard(self) -> None:
        """Let go of what was made anew, since it comes to nothing."""
        self._kept = {key: one for key, one in self._kept.items() if key not in self._before}
        self.close()

    def close(self) -> None:
        """Let go of everything, the last made first; failures are logged."""
        while self._kept:
            (what, _), part = self._kept.popitem()
            try:
                if hasattr(part, "close"):
                    part.close()
            except Exception as error:
                _log.error("%s: %s", what, error)


def stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """What tells whether a file, or those of a folder, were written anew."""
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    return tuple(
        (one.name, one.stat().st_mtime_ns, one.stat().st_size) for one in found if one.exists()
    )
