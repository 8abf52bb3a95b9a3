"""What the rules and sensors of a line say of a request, and how far up the ladder that leads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from ..evidence.log import fingerprinted
from ._lines import Line
from ._metrics import Metrics
from ._sensor import Call, Sensor, Signal
from .access import Mac
from .answers import Answered
from .wire import RequestError

_log = logging.getLogger("withstand.guard")


class Inspection:
    """Looks at requests and at their answers; mac: makes the fingerprints of inputs."""

    def __init__(self, metrics: Metrics, mac: Mac) -> None:
        self._metrics, self._mac = metrics, mac

    async def look(self, call: Call, line: Line) -> None:
        """Apply the rules, ask the sensors, and find the level of the ladder."""
        for rule in line.rules:
            if rule.beside:
                asked = await asyncio.to_thread(rule.apply, call.asked)
            else:
                asked = rule.apply(call.asked)
            if asked is not call.asked:
                call.asked = asked
                call.trace.append((rule.name, self._mac(*fingerprinted(asked.inputs))))
        call.fingerprint = self._mac(*fingerprinted(call.asked.inputs))
        waiting: list[tuple[Sensor, Awaitable[Signal | None]]] = []
        for sensor in line.sensors:
            try:
                said = sensor.look(call)
            except Exception as error:
                said = _failed(sensor, error)
            if isinstance(said, Signal):
                call.signals.append(said)
            elif said is not None:
                waiting.append((sensor, said))
        if waiting:
            said_later = await asyncio.gather(
                *(later for _, later in waiting), return_exceptions=True
            )
            for (sensor, _), one in zip(waiting, said_later, strict=True):
                if isinstance(one, BaseException) and not isinstance(one, Exception):
                    raise one
                found = _failed(sensor, one) if isinstance(one, Exception) else one
                if found is not None:
                    call.signals.append(found)
        self._judge(call, line, call.signals)

    def learn(self, call: Call, line: Line, answered: Answered) -> None:
        """Show the sensors the answer; what they say then may still make it coarser."""
        new = []
        for sensor in line.sensors:
            try:
                said = sensor.learn(call, answered)
            except Exception as error:
                said = _failed(sensor, error)
            if said is not None:
                new.append(said)
        if new:
            call.signals += new
            self._judge(call, line, new)

    def _judge(self, call: Call, line: Line, new: list[Signal]) -> None:
        """Count what is new, and raise the call's level to what it asks for."""
        level = call.standing
        sensors: dict[str, Sensor] = {}
        flagged = []
        for signal in new:
            if signal.failed or signal.flagged:
                # Made only here: mostly there is nothing to say.
                sensors = sensors or {sensor.name: sensor for sensor in line.sensors}
            if signal.failed:
                self._metrics.count("sensor_failures", signal.sensor, signal.failed)
                if sensors[signal.sensor].on_failure == "closed" and line.mode == "enforce":
                    raise RequestError(503, "sensor", "try again later", [(b"retry-after", b"1")])
            if signal.flagged:
                flagged.append(signal)
        if flagged:
            already = any(signal.flagged for signal in call.signals if signal not in new)
            for signal in flagged:
                self._metrics.count("flags", signal.sensor)
            if not already and any(sensors[one.sensor].climbs for one in flagged):
                level = line.standing.flagged(call.key.id)
            ladder = line.standing.ladder
            level = max(level, *(ladder.level(sensors[one.sensor].action) for one in flagged))
        call.level = max(call.level, level)


def _failed(sensor: Sensor, error: Exception) -> Signal:
    why = "timeout" if isinstance(error, TimeoutError) else "error"
    if why == "error":
        _log.warning("sensor %s failed: %r", sensor.name, error)
    return Signal(sensor.name, 0.0, 0.0, False, why)
