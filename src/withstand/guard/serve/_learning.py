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
        self._bare: set[str] = set()

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
                before = self._known.get(place, Learned())
                try:
                    inputs = await inputs_of(upstream, name) if name else ()
                    binary = await binary_support(upstream)
                except UpstreamError:
                    waiting = waiting or place not in self._known
                    continue
                # What is no metadata, as while a model is loaded anew, takes nothing back.
                found = Learned(
                    before.binary if binary is None else binary,
                    before.inputs if inputs is None else inputs,
                )
                if found != before:
                    lines[name] = plan.line(name, found)
                    _log.info("model %s: learned %s", name or "*", found)
                self._known[place] = found
                waiting = waiting or (found.inputs is None and line.inputs is None)
                self._warn(name, lines[name])
            await asyncio.sleep(_SOON if waiting else _AGAIN)

    def _warn(self, name: str, line: Line) -> None:
        """Tell once that nothing says what a model's requests must be."""
        if not line.unchecked:
            self._bare.discard(name)
        elif name not in self._bare:
            self._bare.add(name)
            _log.warning(
                "model %s: its inputs are not known, so no rule checks its requests; %s",
                name or "*",
                f"give guard.models.{name}.inputs" if name else "name each under guard.models",
            )
