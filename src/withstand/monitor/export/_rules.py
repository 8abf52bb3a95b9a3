"""The same rules for Prometheus, from the same promises."""

from __future__ import annotations

from typing import Any

import yaml

from .._alerting import BURN
from ..slo import RULES, SLIS, Rule, Slo

_BY = "sum by (slo, sli, model)"


def prometheus_rules(slos: list[Slo]) -> dict[str, Any]:
    """Recording and alerting rules: burn rates of every window, and alerts as the monitor's own."""
    groups = [_group(slo) for slo in slos]
    groups.append({"name": "withstand-monitor", "rules": _own()})
    return {"groups": groups}


def rules_text(slos: list[Slo]) -> str:
    """The rules as a file."""
    return yaml.safe_dump(prometheus_rules(slos), sort_keys=False, width=100)


def _group(slo: Slo) -> dict[str, Any]:
    named = {"slo": slo.name, "sli": slo.sli, **({"model": slo.model} if slo.model else {})}
    windows = sorted({one for rule in RULES for one in (rule.long, rule.short)})
    rates = [(f"burn_rate:{span(one)}", burn(slo, one)) for one in windows]
    many = [(f"bad:{span(rule.long)}", _increase("bad", slo, rule.long)) for rule in RULES]
    rules: list[dict[str, Any]] = [
        {"record": f"withstand:{name}", "expr": expr, "labels": named}
        for name, expr in (*rates, *many)
    ]
    for severity in ("page", "ticket"):
        expr = " or ".join(condition(slo, rule) for rule in RULES if rule.severity == severity)
        rules.append(
            {
                "alert": BURN,
                "expr": expr,
                "labels": {"severity": severity, **named},
                "annotations": {
                    "summary": f"{slo.name}: {SLIS[slo.sli].name} spends its budget too fast",
                    "description": 'It burns at {{ $value | printf "%.3g" }} times what '
                    f"{slo.days:g} days allow.",
                },
            }
        )
    return {"name": f"withstand-{slo.name}", "rules": rules}


def burn(slo: Slo, seconds: int) -> str:
    """The burn rate of a window in PromQL."""
    bad = _increase("bad", slo, seconds)
    if slo.budget is not None:
        return f"{bad} / {slo.budget * seconds / slo.seconds!r}"
    assert slo.objective is not None
    return f"{bad} / {_increase('events', slo, seconds)} / {1 - slo.objective!r}"


def condition(slo: Slo, rule: Rule) -> str:
    """Whether a rule fires, from the recorded burn rates."""
    named, above = f'{{slo="{slo.name}"}}', repr(rule.above(slo))
    return (
        f"(withstand:burn_rate:{span(rule.long)}{named} > {above} "
        f"and withstand:burn_rate:{span(rule.short)}{named} > {above} "
        # Extrapolated counts are no whole numbers.
        f"and withstand:bad:{span(rule.long)}{named} > {slo.least - 0.5!r})"
    )


def span(seconds: int) -> str:
    """A time as Prometheus writes it."""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _increase(kind: str, slo: Slo, seconds: int) -> str:
    return f'{_BY} (increase(withstand_sli_{kind}_total{{slo="{slo.name}"}}[{span(seconds)}]))'


def _own() -> list[dict[str, Any]]:
    return [
        {
            "alert": "WithstandMonitorSilent",
            "expr": "absent(withstand_monitor_last_look_timestamp_seconds) or "
            "time() - withstand_monitor_last_look_timestamp_seconds "
            "> 90 + 3 * withstand_monitor_every_seconds",
            "for": "2m",
            "labels": {"severity": "page"},
            "annotations": {"summary": "withstand monitor does not look at the evidence"},
        },
        {
            "alert": "WithstandOutboxStuck",
            "expr": "max by (receiver) (withstand_monitor_outbox_messages) > 0",
            "for": "15m",
            "labels": {"severity": "ticket"},
            "annotations": {"summary": "{{ $labels.receiver }} was not told of alerts"},
        },
    ]


def alertmanager_config() -> str:
    """A configuration for an Alertmanager to copy from: a page wakes, a ticket waits."""
    told = {
        "route": {
            "receiver": "tickets",
            "group_by": ["alertname", "slo", "campaign", "model"],
            "group_wait": "10s",
            "group_interval": "5m",
            "repeat_interval": "4h",
            "routes": [{"matchers": ['severity="page"'], "receiver": "pages"}],
        },
        "inhibit_rules": [
            {
                "source_matchers": ['severity="page"', f'alertname="{BURN}"'],
                "target_matchers": ['severity="ticket"', f'alertname="{BURN}"'],
                "equal": ["slo", "model"],
            }
        ],
        "receivers": [
            {"name": name, "webhook_configs": [{"url": f"http://127.0.0.1:9/{name}"}]}
            for name in ("pages", "tickets")
        ],
    }
    return "# Put your own receivers in the place of these two.\n" + yaml.safe_dump(
        told, sort_keys=False, width=100
    )
