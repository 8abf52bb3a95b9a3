"""Actions that the guard takes on clients."""

from __future__ import annotations

import time
from typing import Annotated

from pydantic import BeforeValidator, Field

from ..._errors import EvidenceError, OperationError, listed
from ...evidence.log import Break, Query, indexed, read
from .._desk import Desk
from ._contract import Action, Arguments, Case, Outcome


def _several(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Order(Arguments):
    """On which clients, of which model (all where it is empty), and for how many seconds.

    everybody: on all clients of the model, instead of some.
    """

    keys: Annotated[list[str], BeforeValidator(_several)] = Field(default_factory=list)
    everybody: bool = False
    model: str = ""
    seconds: float = Field(default=3600.0, gt=0, le=9_999_999)


class Mitigate(Action[Order]):
    """An action of the guard's ladder on some clients, or on all.

    The guard knows each order by the step's identity and takes it once. It lasts from the moment on
    that the step began, however late the guard is told, and nothing that has ended is ordered anew.
    """

    told = Order
    contains = True

    def __init__(self, name: str) -> None:
        self.name = name

    def plan(self, case: Case, told: Order) -> list[str]:
        where = f" of model {told.model}" if told.model else ""
        return [
            f"{self.name} {whom}{where} for {told.seconds:g} seconds, as {identity}"
            for identity, whom in (
                (identity, f"client {key}" if key else "all clients")
                for identity, key in self._orders(case, told)
            )
        ]

    def act(self, case: Case, told: Order) -> Outcome:
        orders = self._orders(case, told)
        began = case.step.began or time.time()
        left = began + told.seconds - time.time()
        before = _ordered(case.desk, began) if case.resumed else frozenset()
        new = 0
        for identity, key in orders:
            if identity in before:
                continue
            if left < 1:
                return Outcome(state="skipped", text=f"its {told.seconds:g} seconds are over")
            new += case.desk.guard.mitigate(
                identity, self.name, left, key=key, model=told.model, who=case.who, why=case.why
            )
        held = {one["id"] for one in case.desk.guard.mitigations()}
        lost = [identity for identity, _ in orders if identity not in held | before]
        if lost:
            raise OperationError(f"the guard does not hold {listed(lost, 3)}; see its log")
        ids = [identity for identity, _ in orders]
        return Outcome(
            state="done",
            text=f"{self.name}: the guard holds {len(ids)} orders, {new} of them new",
            detail={"orders": ids, "until": began + told.seconds},
        )

    def _orders(self, case: Case, told: Order) -> list[tuple[str, str]]:
        if told.everybody:
            return [(case.identity, "")]
        keys = list(dict.fromkeys(told.keys))
        if not keys or not all(keys):
            raise OperationError(
                f"{self.name} is on no client: incident {case.incident.id} names no keys; give "
                "keys, or everybody: true"
            )
        return [(f"{case.identity}-{key[:64]}", key) for key in keys]


class Lift(Action[Arguments]):
    """End what this incident's steps have ordered."""

    name = "lift"

    def plan(self, case: Case, told: Arguments) -> list[str]:
        return [f"lift every order of incident {case.incident.id} that the guard holds"]

    def act(self, case: Case, told: Arguments) -> Outcome:
        guard = case.desk.guard
        mine = f"incident-{case.incident.id}-"
        found = [one["id"] for one in guard.mitigations() if str(one["id"]).startswith(mine)]
        count = sum(guard.lift(identity, who=case.who, why=case.why) for identity in found)
        return Outcome(state="done", text=f"lifted {count} orders", detail={"orders": found})


def _ordered(desk: Desk, since: float) -> frozenset[str]:
    """The orders that the guard's evidence tells of since then, whether they still hold or not."""
    try:
        folder = desk.evidence
        found = indexed(folder, Query(kind="mitigation", since=since))
        if found is None:
            found = (
                place.record
                for place in read(folder)
                if not isinstance(place, Break)
                and place.record.kind == "mitigation"
                and place.record.wall >= since
            )
        return frozenset(str(record.content.get("id", "")) for record in found)
    except (EvidenceError, OperationError):
        # Without evidence the guard's own list is what there is.
        return frozenset()
