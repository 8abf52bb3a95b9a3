"""What is written down of a decision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._lines import Line
from ._message import Answer, UpstreamError
from ._routes import Route
from ._sensor import Call
from .access import Key
from .canary import CANARY
from .wire import RequestError


def record_of(
    identity: str, call: Call | None, *, route: Route, line: Line, key: Key, answer: Answer | None,
    failure: RequestError | UpstreamError | None, steps: tuple[str, ...], done: tuple[str, ...],
    times: tuple[float, float], more: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Plain values that tell who asked what, what was seen, decided and done, and how long it took.

    decision: pass, flag, or refuse with a reason. steps: actions that were to be taken; done: those
    that were, as there may be no share or quota left, and none is needed for what is refused.
    would: actions that a mode without actions did not take. times: seconds in all and of the model.
    more: what else there is to tell of this one.
    """
    canary = line.canary if call is not None and call.arm == CANARY else None
    flagged, signals = False, []
    for one in call.signals if call is not None else ():
        flagged = flagged or one.flagged
        signals.append(
            [one.sensor, float(one.score), float(one.threshold), bool(one.flagged), one.failed]
        )
    told: dict[str, Any] = {
        "id": identity,
        "tenant": key.tenant,
        "key": key.id,
        "model": route.model,
        "version": route.version or (canary or line).version,
        "weights": (canary or line).digest,
        "policy": line.policy,
        "mode": line.mode,
        "decision": "refuse" if failure else "flag" if flagged else "pass",
        "status": failure.status if failure else answer.status if answer else 0,
        "done": done,
        "ms": [round(1e6 * times[0]) / 1e3, round(1e6 * times[1]) / 1e3],
        **more,
    }
    if failure is not None:
        told["reason"] = failure.reason
    if call is not None:
        if call.arm:
            told["arm"] = call.arm
        if call.asked.id:
            told.setdefault("request_id", call.asked.id)
        told["fingerprint"] = call.fingerprint
        told["tensors"] = [[one.name, one.datatype, one.values.shape] for one in call.asked.inputs]
        told["trace"] = call.trace
        told["signals"] = signals
        if call.habit is not None:
            told["habit"] = call.habit
        would = line.standing.ladder.steps(call.level)
        if would != steps:
            told["would"] = would
    return told
