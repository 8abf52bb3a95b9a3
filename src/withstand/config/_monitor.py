"""The section that says what is measured while the model is in service."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from ._guard import Address, is_loopback
from ._section import Section, wrong
from ._url import Url
from ._values import Count, Positive, Share

_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")


class SloConfig(Section):
    """What is promised of one SLI: a share of good events, or a number of bad ones."""

    sli: Literal["M1", "M2", "M3", "M5", "M7"] = Field(
        description="M1 fooled probes, M2 missed probes, M3 benign inputs that are flagged, M5 "
        "flagged inputs, M7 flagged queries",
        examples=["M5"],
    )
    objective: Share | None = Field(default=None, description="share of events that are good")
    budget: Count | None = Field(
        default=None, description="how many bad events there may be; for events that are few"
    )
    days: Positive = Field(default=30.0, description="days that the promise is about")
    model: str = Field(default="", description="the model that it is about; all if absent")
    least: Count = Field(
        default=5, description="bad events in the long window without which nothing is said"
    )

    @model_validator(mode="after")
    def _one(self) -> SloConfig:
        if (self.objective is None) == (self.budget is None):
            raise wrong("objective", "or budget: give one of them, e.g. objective: 0.99")
        if self.objective is not None and not 0 < self.objective < 1:
            raise wrong(
                "objective", f"is {self.objective:g}; give a share above 0 and below 1, e.g. 0.99"
            )
        if not 1 <= self.days <= 90:
            raise wrong("days", f"is {self.days:g}; give 1 to 90")
        return self


class CampaignsConfig(Section):
    """When flagged requests of a client, or of several, are a campaign, and when it is over."""

    flags: Count = Field(default=20, description="different flagged inputs of one client")
    window: Positive = Field(default=600.0, description="seconds in which they come")
    share: Share = Field(
        default=0.05, description="share of the client's requests that is flagged, at least"
    )
    clients: Count = Field(
        default=5, description="clients flagged by one sensor that are one campaign together"
    )
    quiet: Positive = Field(
        default=3600.0, description="seconds without a flag after which it is over"
    )


class ReceiverConfig(Section):
    """Who is told of alerts: an Alertmanager, or whatever takes a webhook."""

    alertmanager: Url | None = Field(
        default=None, description="an Alertmanager", examples=["http://127.0.0.1:9093"]
    )
    webhook: str | None = Field(
        default=None,
        description="the URL of a webhook; $NAME in it is the environment's",
        examples=["https://hooks.example.org/withstand"],
    )
    secret: str | None = Field(
        default=None,
        description="webhook: what its messages are signed with: env:NAME, or file:PATH",
        examples=["env:HOOK_SECRET"],
    )
    least: Literal["page", "ticket"] = Field(
        default="ticket", description="the mildest alert that it is told of"
    )
    ca: str | None = Field(
        default=None, description="https: file of the authorities that are trusted instead"
    )

    @model_validator(mode="after")
    def _one(self) -> ReceiverConfig:
        if (self.alertmanager is None) == (self.webhook is None):
            raise wrong("webhook", "or alertmanager: give one of them")
        if self.webhook is not None and not self.webhook.startswith(("http://", "https://")):
            raise wrong("webhook", "is no URL; give one with http:// or https://")
        if self.secret is not None and self.webhook is None:
            raise wrong("secret", "is for webhooks; take it out")
        if self.secret is not None and not self.secret.startswith(("env:", "file:")):
            raise wrong("secret", "is not shown here; give env:NAME or file:PATH, not itself")
        return self


class DegradationConfig(Section):
    """What a defence has cost: the JSON reports from before and after it."""

    before: str = Field(description="report without it", examples=["before.json"])
    after: str = Field(description="report with it", examples=["after.json"])


class MonitorConfig(Section):
    """What is measured of a model in service, and who is told."""

    folder: str = Field(
        default="withstand-monitor",
        description="folder of what operations know: alerts, incidents, probes, audit",
    )
    audit_anchor: str | None = Field(
        default=None,
        description="file or s3:// address, elsewhere, of signed checkpoints of the audit log",
    )
    traces: Url | None = Field(
        default=None,
        description="an OpenTelemetry collector that takes OTLP over HTTP, for spans of decisions",
        examples=["http://127.0.0.1:4318"],
    )
    listen: Address = Field(
        default="127.0.0.1:8102",
        description="where Prometheus asks for figures; this machine only",
    )
    every: Positive = Field(default=10.0, description="seconds between two looks at the evidence")
    slos: dict[str, SloConfig] = Field(
        default_factory=dict, description="what is promised, each by a name of its own"
    )
    campaigns: CampaignsConfig = Field(
        default_factory=CampaignsConfig, description="which flagged requests belong together"
    )
    receivers: dict[str, ReceiverConfig] = Field(
        default_factory=dict, description="who is told of alerts, each by a name of its own"
    )
    silent: Positive = Field(
        default=60.0, description="seconds without an answer of the guard that are a page"
    )
    no_data: Positive = Field(
        default=24.0, description="hours without an event of an SLO that are a ticket"
    )
    coverage: str = Field(
        default="robustness-coverage.json",
        description="file that `pytest --robustness-coverage` writes",
    )
    degradation: DegradationConfig | None = Field(
        default=None, description="reports from before and after a defence"
    )

    @model_validator(mode="after")
    def _fits(self) -> MonitorConfig:
        if not is_loopback(self.listen):
            raise wrong(
                "listen", f"is {self.listen}, which others reach; give 127.0.0.1 and a port"
            )
        for kind in ("slos", "receivers"):
            for name in getattr(self, kind):
                if not _NAME.fullmatch(name):
                    raise wrong(
                        kind, f"has the name {name[:80]!r}; give letters, digits, - and _, up to 60"
                    )
        return self
