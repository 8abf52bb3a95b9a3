"""Bounds of a network's scores over everything that an attacker can reach."""

from ._bounds import METHODS, Method, bounds, margins
from ._graph import Graph
from ._prove import Proofs, prove
from ._trace import trace
from ._training import rivals, worst_leads

__all__ = [
    "METHODS",
    "Graph",
    "Method",
    "Proofs",
    "bounds",
    "margins",
    "prove",
    "rivals",
    "trace",
    "worst_leads",
]
