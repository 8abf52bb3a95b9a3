"""What other systems take: figures for Prometheus, its rules, a dashboard."""

from ._dashboard import dashboard, expressions
from ._files import written
from ._rules import alertmanager_config, prometheus_rules, rules_text
from ._sloth import sloth_slos

__all__ = [
    "alertmanager_config",
    "dashboard",
    "expressions",
    "prometheus_rules",
    "rules_text",
    "sloth_slos",
    "written",
]
