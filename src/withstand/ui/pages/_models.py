"""The models behind the guard, and new versions on their way in."""

from __future__ import annotations

import secrets
from typing import Any, get_args

from ..._errors import OperationError
from ...respond import CanaryVerb
from ...stats import Interval, wilson
from .._site import Site
from .._web import Ask, Done, Page, Route
from ._rows import attempt

_SAID = {
    "start": "the canary is let in", "rollback": "the stable version has all traffic again",
    "freeze": "the canary stays where it is", "resume": "the canary goes on",
    "promote": "the canary is the stable version now",
}  # fmt: skip


def models(site: Site, ask: Ask) -> Page:
    """Each model: its mode and rules, and how its canary does against the control arm."""
    status, silent = attempt(lambda: site.guard.status(), {})
    canary, untold = attempt(lambda: site.guard.canary().get("models", {}), {})
    section = site.config.guard
    lines = {} if section is None else {
        name: section.line(name) for name in list(section.models) or [""]
    }  # fmt: skip
    values = {
        "here": "models",
        "lines": lines,
        "canary": {name: _shown(told) for name, told in canary.items() if isinstance(told, dict)},
        "guard": status,
        "silent": silent,
        "untold": untold,
    }
    return Page("models.html.j2", "Models & canary", values)


def _act(verb: CanaryVerb) -> Any:
    def act(site: Site, ask: Ask) -> Done:
        model, why = ask.form.get("model", ""), ask.form.get("why", "").strip()
        if not why:
            raise OperationError("a reason is missing; write one, since it is kept for later")
        identity = f"ui-{secrets.token_hex(6)}"
        site.guard.canary_act(verb, model, identity=identity, who=ask.account.name, why=why[:1000])
        return Done(f"{model or 'the model'}: {_SAID[verb]}", "/models")

    return act


def _shown(told: dict[str, Any]) -> dict[str, Any]:
    """A model's canary with the shares of each arm, and what was compared."""
    arms = {
        str(name): {
            "requests": counts.get("requests"),
            "shares": {
                "errors": _share(counts.get("errors"), counts.get("requests")),
                "flagged": _share(counts.get("flagged"), counts.get("requests")),
                **{
                    probe: _share(counts[probe].get("happened"), counts[probe].get("tried"))
                    for probe in ("fooled", "wrong", "unsure")
                    if isinstance(counts.get(probe), dict)
                },
            },
            "p95": counts.get("p95_seconds"),
            "confidence": counts.get("mean_confidence"),
        }
        for name, counts in (told.get("arms") or {}).items()
        if isinstance(counts, dict)
    }
    compared = {
        str(name): {**one, **{arm: _interval(one.get(arm)) for arm in ("canary", "control")}}
        for name, one in (told.get("compared") or {}).items()
        if isinstance(one, dict)
    }
    empty = dict.fromkeys(("state", "verdict", "why", "who", "version", "stable"), "")
    numbers: dict[str, Any] = {"weight": 0, "step": None, "steps": [], "since": None}
    labels = _labels(told.get("arms") or {})
    return {**empty, **numbers, **told, "arms": arms, "compared": compared, "labels": labels}


def _labels(arms: dict[str, Any]) -> dict[str, dict[str, Interval | None]]:
    """How often each of the compared arms answers each class, the most frequent first."""
    counts = {
        arm: {
            str(label): n
            for label, n in ((arms.get(arm) or {}).get("labels") or {}).items()
            if isinstance(n, int)
        }
        for arm in ("canary", "control")
    }
    totals = {arm: sum(found.values()) for arm, found in counts.items()}
    order = sorted(
        {label for found in counts.values() for label in found},
        key=lambda label: (-sum(found.get(label, 0) for found in counts.values()), label),
    )
    return {
        label: {arm: _share(counts[arm].get(label, 0), totals[arm]) for arm in counts}
        for label in order
    }


def _share(bad: Any, of: Any) -> Interval | None:
    if not isinstance(of, int) or not isinstance(bad, int) or not 0 <= bad <= of:
        return None
    return wilson(bad, of)


def _interval(told: Any) -> Interval | None:
    try:
        found = Interval(**told)
    except TypeError:
        return None
    return found if found.n else None


def _role(verb: str) -> Any:
    # What makes a service safer a responder may do; what lets something new in takes an admin.
    return "responder" if verb in ("rollback", "freeze") else "admin"


ROUTES = (
    Route(path="/models", answer=models),
    *(
        Route(path=f"/canary/{verb}", answer=_act(verb), role=_role(verb),
              action=f"canary {verb}", about="model:{model}")
        for verb in get_args(CanaryVerb)
    ),
)  # fmt: skip
