"""Signed heads of the audit log, kept where whoever can write the log cannot reach them."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from ..evidence.log import Head, Signer, anchor_at
from .store import Audit

_log = logging.getLogger("withstand.monitor")
SIGNING = "audit-signing.pem"
"""The signing key, in the monitor's folder; made where there is none."""


class Vouching:
    """Hands the head of an audit log to its anchor as often as there is a new one.

    place: a file, taken from folder, or an s3:// address. Raises EvidenceError.
    """

    def __init__(self, audit: Audit, place: str, *, key: Path, folder: Path) -> None:
        self._audit, self._place, self._last = audit, place, Head(0, "")
        self._kept, self._away = 0, False
        self._signer = Signer(key, anchors=(anchor_at(place, folder),), every=0, seconds=math.inf)

    @property
    def failures(self) -> int:
        """How often the anchor could not be told."""
        return self._signer.failures

    def look(self) -> str:
        """Sign what is new; what is wrong with the log, if anything is, and then nothing is signed.

        What was written anew must not get a signature that the chain it replaced has.
        """
        if self._last.seq and not self._audit.has(self._last):
            return f"action {self._last.seq} is not the one that was signed, or is gone"
        head = self._audit.head()
        if head.seq > self._kept:
            before, told = self.failures, self._away
            self._signer(head)
            self._last = head
            self._away = self.failures > before
            if not self._away:
                self._kept = head.seq
            elif not told:
                _log.warning(
                    "monitor.audit_anchor %s cannot be written, so that action %d is not anchored; "
                    "make its folder, or mount it", self._place, head.seq,
                )  # fmt: skip
        return ""

    def close(self) -> None:
        """Let go of the anchor; what it has not sent yet, it sends."""
        self._signer.close(self._last)
