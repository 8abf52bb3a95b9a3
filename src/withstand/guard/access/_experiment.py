"""What tells a permitted attack from an attack."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
import time
from dataclasses import asdict, dataclass

from ._mac import Mac

EXPERIMENT, PROBE = b"x-withstand-experiment", b"x-withstand-probe"
"""The headers: the signed pass, and which of the experiment's queries this is."""

_PROBE = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A permitted attack: its id, the id of the API key that may run it, and until when.

    arm: the arm of a canary that its queries go to, empty for the one that the key falls into.
    until: seconds since 1970.
    """

    id: str
    key: str
    until: float
    arm: str = ""


class Experiments:
    """Makes and reads passes under a secret that only guard and red team know."""

    def __init__(self, secret: bytes) -> None:
        self._mac = Mac(secret)

    def sign(self, experiment: Experiment) -> str:
        """The pass of an experiment, for the header `x-withstand-experiment`."""
        text = _text(json.dumps(asdict(experiment), separators=(",", ":")).encode())
        return f"{text}.{self._mac(text.encode())}"

    def read(self, headers: list[tuple[bytes, bytes]], key: str) -> tuple[Experiment, str] | None:
        """The experiment and the probe that a request of a key belongs to; None for any other.

        A pass that is forged, over, or another key's is none: its queries count as any client's.
        """
        shown = dict(headers)
        text, _, mac = shown.get(EXPERIMENT, b"").partition(b".")
        if not mac or not hmac.compare_digest(self._mac(text).encode(), mac):
            return None
        try:
            found = Experiment(**json.loads(base64.urlsafe_b64decode(text)))
        except (ValueError, TypeError, binascii.Error):
            return None
        if found.key != key or found.until <= time.time():
            return None
        probe = shown.get(PROBE, b"")
        return found, probe.decode() if _PROBE.fullmatch(probe) else ""


def _text(told: bytes) -> str:
    return base64.urlsafe_b64encode(told).decode()
