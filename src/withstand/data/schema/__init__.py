"""Files of tables: proposed from data, and checked for rules that cannot mean what they say."""

from ._lint import Finding, lint
from ._propose import Proposal, propose
from ._show import show_findings, show_table, table_values
from ._write import config_text, table_text

__all__ = [
    "Finding",
    "Proposal",
    "config_text",
    "lint",
    "propose",
    "show_findings",
    "show_table",
    "table_text",
    "table_values",
]
