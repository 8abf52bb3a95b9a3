"""The bodies that receivers understand."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ..store import Alert
from ._outbox import RESEND, Message

_NEVER = "0001-01-01T00:00:00Z"


def alertmanager_body(messages: Sequence[Message], now: float) -> bytes:
    """For `POST /api/v2/alerts` of an Alertmanager: what holds, for five minutes."""
    return json.dumps(
        [
            {
                "labels": one.alert.labels,
                "annotations": one.alert.annotations,
                # Where the clock was set back it would refuse an end before the beginning.
                "startsAt": _time(min(one.alert.starts, end)),
                "endsAt": _time(end),
            }
            for one in messages
            for end in [now + 5 * RESEND if one.alert.ends is None else one.alert.ends]
        ]
    ).encode()


def webhook_body(receiver: str, message: Message) -> bytes:
    """What an Alertmanager sends to webhooks (version 4), of one alert."""
    alert = message.alert
    group = {"alertname": alert.name}
    told: dict[str, Any] = {
        "version": "4",
        "groupKey": f'{{}}:{{alertname="{alert.name}", fingerprint="{alert.fingerprint}"}}',
        "truncatedAlerts": 0,
        "status": message.state,
        "receiver": receiver,
        "groupLabels": group,
        "commonLabels": alert.labels,
        "commonAnnotations": alert.annotations,
        "externalURL": "",
        "alerts": [_alert(alert, message.state)],
    }
    return json.dumps(told).encode()


def signature(secret: bytes, wall: int, body: bytes) -> str:
    """HMAC-SHA256 of time and body, so that neither can be changed or used again later."""
    return hmac.new(secret, b"%d." % wall + body, hashlib.sha256).hexdigest()


def _alert(alert: Alert, state: str) -> dict[str, Any]:
    return {
        "status": state,
        "labels": alert.labels,
        "annotations": alert.annotations,
        "startsAt": _time(alert.starts),
        "endsAt": _NEVER if alert.ends is None else _time(alert.ends),
        "generatorURL": "",
        "fingerprint": alert.fingerprint,
    }


def _time(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
