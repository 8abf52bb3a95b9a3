"""An attack on a table as its owners read it: what changed, at what cost, and what got through."""

from ._bars import Bars, bars
from ._business import (
    BudgetPoint,
    Business,
    Counterfactual,
    Money,
    Move,
    Rows,
    Step,
    Typical,
    Weakness,
)
from ._reading import Attacked, business_of
from ._share import weighted_share
from ._sheet import read_sheet, sheet
from ._words import amount, attacker_can, change, effort, giving_way, over, paragraph, share

__all__ = [
    "Attacked",
    "Bars",
    "BudgetPoint",
    "Business",
    "Counterfactual",
    "Money",
    "Move",
    "Rows",
    "Step",
    "Typical",
    "Weakness",
    "amount",
    "attacker_can",
    "bars",
    "business_of",
    "change",
    "effort",
    "giving_way",
    "over",
    "paragraph",
    "read_sheet",
    "share",
    "sheet",
    "weighted_share",
]
