"""Tell somebody."""

from __future__ import annotations

import json

from ..._errors import OperationError, listed
from ...monitor.tell import post
from .._guard_client import UnansweredError
from ._contract import Action, Arguments, Case, Outcome


class Message(Arguments):
    """to: a name under respond.notify. text: what is said."""

    to: str
    text: str


class Notify(Action[Message]):
    """Post a message as JSON to an address that the configuration names.

    The header idempotency-key is the step's identity: whoever was told just before the responder
    was killed is told again with the same one.
    """

    name = "notify"
    told = Message

    def plan(self, case: Case, told: Message) -> list[str]:
        self._address(case, told)
        return [f"tell {told.to}: {told.text}"]

    def act(self, case: Case, told: Message) -> Outcome:
        body = json.dumps(
            {
                "text": told.text,
                "incident": case.incident.id,
                "title": case.incident.title,
                "severity": case.incident.severity,
                "step": case.step.name,
            }
        )
        headers = {"content-type": "application/json", "idempotency-key": case.identity}
        address = self._address(case, told)
        try:
            post(address, body.encode(), headers)
        except OperationError as error:
            raise UnansweredError(f"respond.notify.{told.to}: {error}") from None
        return Outcome(state="done", text=f"told {told.to}")

    def _address(self, case: Case, told: Message) -> str:
        known = case.desk.config.respond.notify
        if told.to not in known:
            raise OperationError(
                f"{told.to!r} is no name under respond.notify; it has {listed(known)}"
            )
        return known[told.to]
