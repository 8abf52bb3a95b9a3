"""Which alerts hold, and what they say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from ._status import SloStatus
from .store import Alert, Alerts, Campaign, Severity

BURN = "WithstandBudgetBurn"
CAMPAIGN = "WithstandCampaign"
SILENT = "WithstandGuardSilent"
BROKEN = "WithstandEvidenceBroken"
NO_DATA = "WithstandNoData"
NAMES = (BURN, CAMPAIGN, SILENT, BROKEN, NO_DATA)

LABELS = ("alertname", "severity", "slo", "sli", "model", "campaign", "of")
"""What alerts are told apart by."""


def burning(told: SloStatus, now: float) -> Iterator[Alert]:
    """One alert of each severity of which a rule fires."""
    severities: tuple[Severity, ...] = ("page", "ticket")
    for severity in severities:
        fires = [one for one in told.burns if one.fires and one.rule.severity == severity]
        if not fires:
            continue
        rates = ", ".join(
            f"{one.long:.3g} over {one.rule.name} (above {one.above:.3g})" for one in fires
        )
        left = "no data" if told.budget_left is None else f"{100 * told.budget_left:.0f} %"
        yield Alert(
            labels=labels(told, severity),
            starts=now,
            annotations={
                "summary": f"{told.slo.name}: {told.sli.name} spends its budget too fast",
                "description": f"It burns at {rates}; {told.bad:,} of {told.n:,} events are bad, "
                f"and {left} of the budget of {told.slo.days:g} days is left.",
            },
        )


def labels(told: SloStatus, severity: Severity) -> dict[str, str]:
    """Of a burn alert, here and in Prometheus alike."""
    return {
        "alertname": BURN,
        "severity": severity,
        "slo": told.slo.name,
        "sli": told.sli.id,
        **({"model": told.slo.model} if told.slo.model else {}),
    }


def attacking(campaign: Campaign, now: float) -> Alert:
    """The page of a campaign, the same one however it grows; kept silent for an experiment's."""
    who = "one client" if campaign.kind == "client" else f"{campaign.clients:,} clients"
    sensors = ", ".join(sorted(campaign.sensors))
    model = {"model": campaign.model} if campaign.model else {}
    first = datetime.fromtimestamp(campaign.first, UTC).isoformat(timespec="seconds")
    return Alert(
        labels={"alertname": CAMPAIGN, "severity": "page", "campaign": campaign.id, **model},
        starts=now,
        annotations={
            "summary": f"{campaign.flagged:,} flagged requests of {who}",
            "description": f"{campaign.distinct:,} different inputs were flagged by {sensors} "
            f"among {campaign.requests:,} requests since {first}.",
            **({"client": campaign.keys[0][:16]} if campaign.kind == "client" else {}),
        },
        campaign=campaign.id,
        suppressed=campaign.experiment,
    )


def trouble(name: str, severity: Severity, now: float, summary: str, **more: str) -> Alert:
    """An alert about the watching itself."""
    return Alert(
        labels={"alertname": name, "severity": severity, **more},
        starts=now,
        annotations={"summary": summary},
    )


def settle(alerts: Alerts, holding: Iterable[Alert], now: float) -> tuple[list[Alert], list[Alert]]:
    """Fire what holds and resolve what does not any more; what is new, and what has ended."""
    wanted = {one.fingerprint: one for one in holding}
    new = [one for one in wanted.values() if alerts.fire(one)]
    ended = [
        one
        for one in alerts.all(open=True, last=1_000_000)
        if one.name in NAMES and one.fingerprint not in wanted
    ]
    for one in ended:
        alerts.resolve(one.fingerprint, now)
    return new, ended
