"""Attackers of tables: what they can do to each feature, at what cost, and what must add up."""

from ._bounds import Span, Verdict, span, verdict_of
from ._capability import Capability
from ._evaluate import NUMPY, Arithmetic, affine, column_of, excess, holds, value
from ._feature import Change, Feature, OneHot, on_grid
from ._parse import read_truth, read_value
from ._relation import Derived, Relation
from ._table import Table, label_of
from ._tree import Both, Call, Column, Compare, Either, Truth, Value, names, parts

__all__ = [
    "NUMPY",
    "Arithmetic",
    "Both",
    "Call",
    "Capability",
    "Change",
    "Column",
    "Compare",
    "Derived",
    "Either",
    "Feature",
    "OneHot",
    "Relation",
    "Span",
    "Table",
    "Truth",
    "Value",
    "Verdict",
    "affine",
    "column_of",
    "excess",
    "holds",
    "label_of",
    "names",
    "on_grid",
    "parts",
    "read_truth",
    "read_value",
    "span",
    "value",
    "verdict_of",
]
