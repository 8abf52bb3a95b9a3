"""Evaluation: the cascade, its report, and whether the number can be trusted."""

from ._console import show
from ._evaluate import evaluate
from ._files import check_writable, write
from ._html import page, render
from ._report import Cost, Report
from ._schema import report_schema
from ._setup import Setup, from_config, threat_from
from ._stages import Progress
from ._words import headline

__all__ = [
    "Cost",
    "Progress",
    "Report",
    "Setup",
    "check_writable",
    "evaluate",
    "from_config",
    "headline",
    "page",
    "render",
    "report_schema",
    "show",
    "threat_from",
    "write",
]
