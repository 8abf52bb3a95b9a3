"""Ensembles of trees: read exactly, and decided row by row, by a witness or a proof."""

from ._decide import Decision, decide
from ._forest import Forest, Tree
from ._readers import read_forest

__all__ = ["Decision", "Forest", "Tree", "decide", "read_forest"]
