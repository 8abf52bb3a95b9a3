"""Actions on the canary of a model."""

from __future__ import annotations

from typing import Literal

from ..._errors import OperationError
from ._contract import Action, Arguments, Case, Outcome

_GOAL = {"rollback": "rolled_back", "freeze": "frozen"}


class Of(Arguments):
    """The model; all models that have a canary under way where it is empty."""

    model: str = ""


class Canary(Action[Of]):
    """Roll the canary back, or hold it at its weight."""

    told = Of
    contains = True

    def __init__(self, name: str, verb: Literal["rollback", "freeze"]) -> None:
        self.name, self._verb = name, verb

    def plan(self, case: Case, told: Of) -> list[str]:
        return [f"{self._verb} the canary of {told.model or 'every model'}, as {case.identity}"]

    def act(self, case: Case, told: Of) -> Outcome:
        guard, goal = case.desk.guard, _GOAL[self._verb]
        known = guard.canary()["models"]
        # A guard that names no models has one canary for all of them.
        model = told.model if told.model in known or "*" not in known else "*"
        if model and model not in known:
            return Outcome(state="skipped", text=f"model {model} has no canary")
        wanted = [model] if model else list(known)
        from_where = ("running",) if self._verb == "freeze" else ("running", "frozen")
        under_way = [name for name in wanted if known[name]["state"] in from_where]
        for name in under_way:
            guard.canary_act(
                self._verb, name, identity=f"{case.identity}-{name}"[:100], who=case.who,
                why=case.why,
            )  # fmt: skip
        now = guard.canary()["models"]
        wrong = [name for name in under_way if now[name]["state"] != goal]
        if wrong:
            raise OperationError(
                f"the canary of {wrong[0]} is {now[wrong[0]]['state']} after {self._verb}; see the "
                "guard's log"
            )
        there = [name for name in wanted if now[name]["state"] == goal]
        if not there:
            return Outcome(state="skipped", text="no canary is under way")
        told_now = {name: now[name] for name in wanted}
        return Outcome(
            state="done", text=f"{goal.replace('_', ' ')}: {', '.join(there)}", detail=told_now
        )
