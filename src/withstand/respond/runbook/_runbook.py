"""Runbooks: what is done about an incident, step by step."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ...monitor import Alert, Campaign
from .._incidents import Incident


def _several(value: object) -> object:
    return [value] if isinstance(value, str) else value


_Names = Annotated[list[str], BeforeValidator(_several)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class When(_Part):
    """Which incidents a runbook is for: those with all that is given.

    alertname: names, one of which the incident's first alert has; labels: what its labels are;
    campaign: the kind of campaign.
    """

    alertname: _Names = Field(default_factory=list)
    severity: Literal["page", "ticket"] | None = None
    campaign: Literal["client", "distributed"] | None = None
    labels: dict[str, str] = Field(default_factory=dict)

    def fits(self, incident: Incident, campaign: Campaign | None, alert: Alert | None) -> bool:
        """Whether an incident is one of them."""
        labels = {} if alert is None else alert.labels
        return (
            (not self.alertname or labels.get("alertname") in self.alertname)
            and self.severity in (None, incident.severity)
            and (self.campaign is None or (campaign is not None and campaign.kind == self.campaign))
            and all(labels.get(name) == value for name, value in self.labels.items())
        )


class RunbookStep(_Part):
    """One step: an action with its arguments, which may refer to the incident.

    approval: somebody must agree first. contains: the attack has no effect any more when it is
    done. on_failure: whether the steps after it are taken nevertheless. timeout: seconds.
    """

    name: str = Field(min_length=1, max_length=200)
    action: str
    arguments: dict[str, Any] = Field(default_factory=dict, alias="with")
    approval: bool = False
    contains: bool = False
    on_failure: Literal["stop", "continue"] = "stop"
    timeout: float = Field(default=60.0, gt=0)


class Runbook(_Part):
    """What is done about the incidents that it is for."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    about: str = ""
    when: When = Field(default_factory=When)
    steps: list[RunbookStep] = Field(min_length=1, max_length=100)
