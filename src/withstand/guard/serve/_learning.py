"""What model servers tell of their models, for as long as the guard serves."""

from __future__ import annotations

import asyncio
import logging

from .._lines import Line
from .._message import UpstreamError
from ..plan import Learned, Plan
from ..upstream import binary_support, inputs_of

_log = logging.getLogger("withstand.guard")
_SOON, _AGAIN = 2.0, 30.0


class Learning:
    """Asks until there is an answer, and again now and then, since models are replaced."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str | None], Learned] = {}

    def known(self, plan: Plan) -> dict[str, Learned]:
        """What was told so far of the models of a plan, by the same servers."""
        places = {name: (name, plan.config.line(name).upstream) for name in plan.names()}
        return {name: self._known[one] for name, one in places.items() if one in self._known}

    async def follow(self, plan: Plan, lines: dict[str, Line]) -> None:
        """Set lines up as their servers tell; goes on until it is cancelled."""
        while True:
            waiting = False
            for name in list(plan.names()):
                line = plan.config.line(name)
                place, upstream = (name, line.upstream), plan.upstream(line, line.upstream)
                try:
                    inputs = await inputs_of(upstream, name) if name else ()
                    found = Learned(await binary_support(upstream), inputs)
                except UpstreamError:
                    waiting = waiting or place not in self._known
                    continue
                if found != self._known.get(place, Learned()):
                    lines[name] = plan.line(name, found)
                    _log.info("model %s: learned %s", name or "*", found)
                self._known[place] = found
            await asyncio.sleep(_SOON if waiting else _AGAIN)
