"""Telling somebody: an outbox that outlives the process, Alertmanagers, webhooks."""

from ._messages import alertmanager_body, signature, webhook_body
from ._outbox import RESEND, Message, Outbox
from ._post import post, refused
from ._receivers import Receivers, sound
from ._spans import Spans

__all__ = [
    "RESEND",
    "Message",
    "Outbox",
    "Receivers",
    "Spans",
    "alertmanager_body",
    "post",
    "refused",
    "signature",
    "sound",
    "webhook_body",
]
