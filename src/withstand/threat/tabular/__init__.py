"""Attackers of tables: what they can do to each feature, at what cost, and what must add up."""

from ._bounds import Span, Verdict, span, verdict_of
from ._capability import Capability
from ._evaluate import NUMPY, Arithmetic, affine, excess, holds, value
from ._feature import Change, Feature, OneHot, on_grid
from ._parse import read_truth, read_value
from ._relation import Derived, Relation
from ._tree import Truth, Value, names, parts

__all__ = [
    "NUMPY",
    "Arithmetic",
    "Capability",
    "Change",
    "Derived",
    "Feature",
    "OneHot",
    "Relation",
    "Span",
    "Truth",
    "Value",
    "Verdict",
    "affine",
    "excess",
    "holds",
    "names",
    "on_grid",
    "parts",
    "read_truth",
    "read_value",
    "span",
    "value",
    "verdict_of",
]
