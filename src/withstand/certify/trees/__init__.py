"""Ensembles of trees: read exactly, and decided row by row, by a witness or a proof."""

from ._decide import Decision, decide
from ._forest import Forest, Tree
from ._model import left_out
from ._nearest import Nearest, nearest
from ._read_model import digest_of, forest_of
from ._readers import read_forest

__all__ = [
    "Decision",
    "Forest",
    "Nearest",
    "Tree",
    "decide",
    "digest_of",
    "forest_of",
    "left_out",
    "nearest",
    "read_forest",
]
