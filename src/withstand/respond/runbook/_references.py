"""References in a runbook's arguments, such as {campaign.keys}, and what they stand for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..._errors import OperationError, did_you_mean, listed
from ...monitor import Alert, Campaign
from .._incidents import Incident

_REFERENCE = re.compile(r"\{([a-z]+\.[A-Za-z_][A-Za-z0-9_]*)\}")
_INCIDENT = ("id", "title", "severity", "model", "campaign")
_CAMPAIGN = (
    "id", "model", "kind", "tenant", "clients", "keys", "inputs", "requests", "flagged", "distinct",
)  # fmt: skip
NAMES = (
    *(f"incident.{name}" for name in _INCIDENT),
    *(f"campaign.{name}" for name in _CAMPAIGN),
)
"""What may be referred to, besides the labels of the first alert, as alert.LABEL."""

_LISTS = ("campaign.keys", "campaign.inputs")
_NUMBERS = ("incident.id", "campaign.clients", "campaign.requests", "campaign.flagged",
            "campaign.distinct")  # fmt: skip


def resolved(value: Any, incident: Incident, campaign: Campaign | None, alert: Alert | None) -> Any:
    """A value with what its references stand for; raises OperationError for one without.

    Text that is one reference and nothing else becomes its value, be it a list. What a reference
    stands for is never looked at for references again.
    """
    known: dict[str, Any] = {f"incident.{name}": getattr(incident, name) for name in _INCIDENT}
    if campaign is not None:
        known |= {f"campaign.{name}": getattr(campaign, name) for name in _CAMPAIGN}
    if alert is not None:
        known |= {f"alert.{name}": text for name, text in alert.labels.items()}
    return _replaced(value, lambda name: _known(name, known, incident))


def check_references(value: Any) -> Any:
    """A value with examples for its references; raises ValueError for an unknown one."""
    return _replaced(value, _example)


def _replaced(value: Any, given: Callable[[str], Any]) -> Any:
    if isinstance(value, dict):
        return {name: _replaced(one, given) for name, one in value.items()}
    if isinstance(value, list):
        return [_replaced(one, given) for one in value]
    if not isinstance(value, str):
        return value
    whole = _REFERENCE.fullmatch(value)
    if whole is not None:
        found = given(whole[1])
        return list(found) if isinstance(found, tuple) else found
    rest = _REFERENCE.sub("", value)
    if "{" in rest or "}" in rest:
        raise ValueError(
            f"{value[:60]!r} has a brace that is no reference; write e.g. {{campaign.keys}}"
        )
    return _REFERENCE.sub(lambda match: _text(given(match[1])), value)


def _text(found: Any) -> str:
    return ", ".join(map(str, found)) if isinstance(found, list | tuple) else str(found)


def _known(name: str, known: Mapping[str, Any], incident: Incident) -> Any:
    if name not in known:
        why = "has no campaign" if name.startswith("campaign.") else "has no such label"
        raise OperationError(
            f"{{{name}}} stands for nothing: incident {incident.id} {why}; give the value itself"
        )
    return known[name]


def _example(name: str) -> Any:
    if name in _LISTS:
        return ("0" * 64,)
    if name in _NUMBERS:
        return 1
    if name in NAMES or name.startswith("alert."):
        return "x"
    raise ValueError(
        f"{{{name}}} is unknown{did_you_mean(name, NAMES) or ';'} the references are "
        f"{listed(NAMES, 20)} and alert.LABEL"
    )
