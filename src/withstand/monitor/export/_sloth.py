"""The promises as Sloth has them, for whoever lets Sloth write the rules."""

from __future__ import annotations

from typing import Any

import yaml

from .._alerting import BURN
from ..slo import SLIS, Slo


def sloth_text(slos: list[Slo]) -> str:
    """A file of Sloth's `prometheus/v1`; what it has not, budgets of events and days, is named."""
    text = yaml.safe_dump(sloth_slos(slos), sort_keys=False, width=100)
    for slo in slos:
        if slo.objective is None:
            text += f"# {slo.name} has a budget of events, which only withstand.rules.yml knows.\n"
        elif slo.days != 30:
            text += (
                f"# {slo.name} is about {slo.days:g} days; Sloth takes 30 unless its "
                "--default-slo-period says so.\n"
            )
    return text


def sloth_slos(slos: list[Slo]) -> dict[str, Any]:
    """The same as plain values; alerts have the monitor's own names and labels."""
    return {
        "version": "prometheus/v1",
        "service": "withstand",
        "slos": [_slo(slo, slo.objective) for slo in slos if slo.objective is not None],
    }


def _slo(slo: Slo, objective: float) -> dict[str, Any]:
    named = {"slo": slo.name, "sli": slo.sli, **({"model": slo.model} if slo.model else {})}
    return {
        "name": slo.name,
        "objective": float(f"{100 * objective:.10g}"),
        "description": f"{slo.sli} {SLIS[slo.sli].name}, over {slo.days:g} days",
        "sli": {
            "events": {
                "error_query": _rate("bad", slo),
                "total_query": _rate("events", slo),
            }
        },
        "alerting": {
            "name": BURN,
            "labels": named,
            "annotations": {
                "summary": f"{slo.name}: {SLIS[slo.sli].name} spends its budget too fast"
            },
            "page_alert": {"labels": {"severity": "page"}},
            "ticket_alert": {"labels": {"severity": "ticket"}},
        },
    }


def _rate(kind: str, slo: Slo) -> str:
    return f'sum(rate(withstand_sli_{kind}_total{{slo="{slo.name}"}}[{{{{.window}}}}]))'
