"""What a journal does besides keeping decisions: erasures that were asked for, and retention."""

from __future__ import annotations

import logging
import threading
import time

from ..._errors import EvidenceError
from ...evidence.log import Log, Retention, Vault, carry_out, retain

_log = logging.getLogger("withstand.guard")
_LOOK, _HOUR, _AGAIN = 1.0, 3600.0, 60.0


class Keeper:
    """A thread that looks each second for orders, and each hour for what is over.

    It has a thread of its own, since removing a lot takes long, and inputs must not wait for that.
    """

    def __init__(self, log: Log, vault: Vault | None, retention: Retention | None) -> None:
        self._records, self._vault, self._retention = log, vault, retention
        self._due = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def close(self, timeout: float = 10.0) -> None:
        """End, after what is under way."""
        self._ended.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._ended.wait(_LOOK):
            try:
                carry_out(self._records, self._vault)
                self._keep()
            except (EvidenceError, OSError) as error:
                _log.warning("evidence could not be looked after: %s", error)
            except Exception:
                _log.exception("evidence could not be looked after")

    def _keep(self) -> None:
        if self._retention is None or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _AGAIN
        retain(self._records, self._vault, self._retention)
        self._due = time.monotonic() + _HOUR
