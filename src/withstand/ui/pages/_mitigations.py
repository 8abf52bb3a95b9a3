"""Actions on clients, and the switch that ends all inspection."""

from __future__ import annotations

import secrets

from ..._errors import OperationError
from ...guard import ACTIONS
from .._site import Site
from .._web import Ask, Done, Route
from ._oncall import SPANS


def mitigate(site: Site, ask: Ask) -> Done:
    """Order an action on a client or on all."""
    action, key = _given(ask, "action"), ask.form.get("key", "").strip()
    seconds = ask.form.get("seconds", "")
    if action not in ACTIONS or seconds not in {str(one) for one, _ in SPANS}:
        raise OperationError(f"action is {action[:32]}; give one of {', '.join(ACTIONS)}")
    if not key and ask.form.get("all") != "yes":
        raise OperationError("no client is named; give its id, or tick all clients")
    identity = f"ui-{secrets.token_hex(6)}"
    site.guard.mitigate(
        identity, action, float(seconds), key=key, model=ask.form.get("model", ""),
        who=ask.account.name, why=_why(ask),
    )  # fmt: skip
    return Done(f"{action} is ordered for {key[:12] or 'all clients'}", _back(ask))


def lift(site: Site, ask: Ask) -> Done:
    """End an ordered action."""
    identity = _given(ask, "id")
    if not site.guard.lift(identity, who=ask.account.name, why=_why(ask)):
        raise OperationError(f"mitigation {identity[:100]} does not hold any more")
    return Done("the mitigation is lifted", _back(ask))


def kill(site: Site, ask: Ask) -> Done:
    """Switch all inspection off."""
    kept = site.guard.kill(True, who=ask.account.name, why=_why(ask))
    return Done("inspection is off" + ("" if kept else "; no evidence is kept of it"), _back(ask))


def unkill(site: Site, ask: Ask) -> Done:
    """Switch inspection on again."""
    site.guard.kill(False, who=ask.account.name, why=_why(ask))
    return Done("inspection is on", _back(ask))


def _given(ask: Ask, name: str) -> str:
    if not ask.form.get(name):
        raise OperationError(f"{name} is missing; choose one on the page")
    return ask.form[name]


def _why(ask: Ask) -> str:
    why = ask.form.get("why", "").strip()
    if not why:
        raise OperationError("a reason is missing; write one, since it is kept for later")
    return why[:1000]


def _back(ask: Ask) -> str:
    back = ask.form.get("back", "")
    return back if back.startswith("/clients/") else "/oncall"


ROUTES = (
    Route(path="/mitigate", answer=mitigate, role="responder", action="mitigate",
          about="{action} {key} {model}"),
    Route(path="/lift", answer=lift, role="responder", action="lift", about="{id}"),
    Route(path="/kill", answer=kill, role="admin", action="kill"),
    Route(path="/unkill", answer=unkill, role="admin", action="unkill"),
)  # fmt: skip
