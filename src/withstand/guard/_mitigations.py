"""Actions that were ordered, whatever the sensors say: by a person, or by a runbook."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from .._errors import ConfigError
from ._kept import keep
from ._ladder import ACTIONS


@dataclass(frozen=True, kw_only=True)
class Mitigation:
    """An action on a client or on all of them, until it is lifted or its time is over.

    id: of whoever orders it; the same one again changes nothing. key: the client's, empty for all;
    model: empty for all. until: seconds since 1970.
    """

    id: str
    action: str
    until: float
    key: str = ""
    model: str = ""
    who: str = ""
    why: str = ""


class Mitigations:
    """Those that hold, in a file where one is given, so that they outlive a restart.

    held: by their ids, with some that are over. Raises ConfigError for a file that is none, and for
    one that cannot be written.
    """

    def __init__(self, path: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self.held: dict[str, Mitigation] = {}
        if path is not None and path.exists():
            try:
                self.held = {one["id"]: Mitigation(**one) for one in json.loads(path.read_text())}
            except (OSError, ValueError, TypeError, KeyError):
                raise ConfigError(
                    f"mitigations {path} cannot be read; restore the file, or remove it"
                ) from None

    def put(self, new: Mitigation) -> bool:
        """Order one; False where one of this id holds already."""
        if new.action not in ACTIONS:
            raise ConfigError(f"action is {new.action}; give one of {', '.join(ACTIONS)}")
        if new.id in self._live():
            return False
        self._write({**self._live(), new.id: new})
        return True

    def lift(self, identity: str) -> bool:
        """End one; False where there is none."""
        held = self._live()
        if held.pop(identity, None) is None:
            return False
        self._write(held)
        return True

    def of(self, key: str, model: str) -> tuple[str, ...]:
        """The actions ordered against a client of a model, from mild to severe."""
        if not self.held:
            return ()
        now = self._clock()
        ordered = {
            one.action
            for one in self.held.values()
            if one.until > now and one.key in ("", key) and one.model in ("", model)
        }
        return tuple(action for action in ACTIONS if action in ordered)

    def all(self) -> list[Mitigation]:
        """Those that hold."""
        return list(self._live().values())

    def _live(self) -> dict[str, Mitigation]:
        now = self._clock()
        return {name: one for name, one in self.held.items() if one.until > now}

    def _write(self, held: dict[str, Mitigation]) -> None:
        if self._path is not None:
            keep(self._path, json.dumps([asdict(one) for one in held.values()], indent=1))
        self.held = held
