"""Decisions as spans of the traces that they are part of, for an OpenTelemetry collector."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections import deque
from typing import Any

from ..._errors import OperationError
from ..._version import __version__
from ...evidence.log import Record
from ._post import post

_log = logging.getLogger("withstand.monitor")
_TRACE = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SERVER, _UNSET, _OK, _ERROR = 2, 0, 1, 2
_MOST, _AT_ONCE = 10_000, 512


class Spans:
    """Sends a span for each decision of a sampled trace (OTLP/HTTP 1, in JSON, to /v1/traces).

    They are made from the evidence, so that no request waits for a collector. A span's id comes
    from its record's hash: one that is sent twice is the same one. What is not taken while most
    others wait is dropped, and counted.
    """

    def __init__(self, collector: str) -> None:
        self._url = f"{collector}/v1/traces"
        self._waiting: deque[dict[str, Any]] = deque()
        self.lost = 0
        self._error = ""

    def see(self, record: Record) -> None:
        """Note a decision, if whoever began its trace wants to see it."""
        found = _TRACE.fullmatch(str(record.content.get("traceparent", "")))
        if found is None or not int(found[3], 16) & 1:
            return
        if len(self._waiting) >= _MOST:
            self._waiting.popleft()
            self.lost += 1
        self._waiting.append(_span(record, found[1], found[2]))

    def deliver(self) -> int:
        """Send what waits; how many were taken."""
        taken = 0
        while self._waiting:
            some = [self._waiting.popleft() for _ in range(min(len(self._waiting), _AT_ONCE))]
            try:
                post(self._url, _body(some), {"Content-Type": "application/json"})
            except OperationError as error:
                self._waiting.extendleft(reversed(some))
                if self._error != str(error):
                    _log.warning("traces: %s", error)
                self._error = str(error)
                break
            self._error = ""
            taken += len(some)
        return taken

    def run(self, stop: threading.Event, *, every: float = 1.0) -> threading.Thread:
        """Send from a thread of its own until it is stopped."""

        def go_on() -> None:
            while not stop.wait(every):
                self.deliver()

        thread = threading.Thread(target=go_on, name="traces", daemon=True)
        thread.start()
        return thread


def _span(record: Record, trace: str, parent: str) -> dict[str, Any]:
    told = record.content
    end = int(record.wall * 1e9)
    # Redaction may have left something else of any of them.
    times, signals, status = told.get("ms"), told.get("signals"), told.get("status")
    done = told.get("done")
    seconds = float(times[0]) / 1e3 if isinstance(times, list) and times else 0.0
    flagged = [str(one[0]) for one in signals if one[3]] if isinstance(signals, list) else []
    texts = {
        "withstand.request.id": told.get("id", ""),
        "withstand.model": told.get("model", ""),
        "withstand.decision": told.get("decision", ""),
        "withstand.arm": told.get("arm", ""),
        "withstand.actions": " ".join(map(str, done)) if isinstance(done, list) else "",
        "withstand.flagged_by": " ".join(flagged),
        "withstand.experiment": told.get("experiment", ""),
    }
    attributes = [
        {"key": key, "value": {"stringValue": str(value)}} for key, value in texts.items() if value
    ]
    code = _UNSET
    if isinstance(status, int):
        code = _ERROR if status >= 500 or not status else _OK
        attributes.append({"key": "http.response.status_code", "value": {"intValue": str(status)}})
    return {
        "traceId": trace,
        "spanId": record.hash[:16],
        "parentSpanId": parent,
        "name": "withstand guard",
        "kind": _SERVER,
        "startTimeUnixNano": str(end - int(seconds * 1e9)),
        "endTimeUnixNano": str(end),
        "attributes": attributes,
        "status": {"code": code},
    }


def _body(spans: list[dict[str, Any]]) -> bytes:
    service = {"key": "service.name", "value": {"stringValue": "withstand-guard"}}
    return json.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": [service]},
                    "scopeSpans": [
                        {"scope": {"name": "withstand", "version": __version__}, "spans": spans}
                    ],
                }
            ]
        }
    ).encode()
