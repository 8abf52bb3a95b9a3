"""A dashboard for Grafana, from the same promises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..slo import RULES, SLIS, Slo
from ._rules import span

_SOURCE = {"type": "prometheus", "uid": "${source}"}


def dashboard(slos: list[Slo]) -> dict[str, Any]:
    """The dashboard as Grafana imports it: indicators, promises, alerts, the monitor itself."""
    panels = [
        _panel(
            "Alerts that hold", "stat",
            [("sum by (alertname, severity) (withstand_alerts_firing)",
              "{{severity}}: {{alertname}}")],
        ),
        _panel(
            "Budget left", "stat",
            [("withstand_slo_budget_left_ratio", "{{slo}}")], unit="percentunit",
        ),
    ]  # fmt: skip
    for sli in SLIS.values():
        name = "{{model}} {{of}}"
        panels.append(
            _panel(
                f"{sli.id} {sli.name}", "timeseries",
                [(f'withstand_sli{{sli="{sli.id}"}}', name),
                 (f'withstand_sli_low{{sli="{sli.id}"}}', f"{name} low"),
                 (f'withstand_sli_high{{sli="{sli.id}"}}', f"{name} high")],
                unit={"share": "percentunit", "s": "s"}.get(sli.unit, "none"), told=sli.meaning,
            )
        )  # fmt: skip
    for slo in slos:
        rates = [
            (f'withstand:burn_rate:{span(rule.long)}{{slo="{slo.name}"}}', rule.name)
            for rule in RULES
        ]
        panels.append(_panel(f"{slo.name}: burn rates", "timeseries", rates))
    panels.append(
        _panel(
            "The monitor", "timeseries",
            [("time() - withstand_monitor_last_look_timestamp_seconds", "seconds since a look"),
             ("withstand_monitor_outbox_messages", "{{receiver}}: messages that wait")],
        )
    )  # fmt: skip
    for number, panel in enumerate(panels):
        panel["id"] = number + 1
        panel["gridPos"] = {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)}
    return {
        "title": "withstand",
        "uid": "withstand",
        "schemaVersion": 38,
        "timezone": "browser",
        "time": {"from": "now-24h", "to": "now"},
        "refresh": "1m",
        "templating": {
            "list": [{"name": "source", "label": "Prometheus", "type": "datasource",
                      "query": "prometheus"}]
        },
        "panels": panels,
    }  # fmt: skip


def expressions(told: dict[str, Any]) -> Iterator[str]:
    """All PromQL of a dashboard."""
    for panel in told["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def _panel(
    title: str, kind: str, asked: list[tuple[str, str]], *, unit: str = "none", told: str = ""
) -> dict[str, Any]:
    return {
        "title": title,
        "type": kind,
        "description": told,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": _SOURCE, "expr": expr, "legendFormat": name}
            for n, (expr, name) in enumerate(asked)
        ],
    }
