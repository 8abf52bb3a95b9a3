"""What the steps of runbooks can do."""

from ._contract import Action, Arguments, Case, Outcome
from ._registry import actions

__all__ = ["Action", "Arguments", "Case", "Outcome", "actions"]
