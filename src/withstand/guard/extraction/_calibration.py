"""The least W that benign clients keep to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import DataError
from ...stats import upper_bound
from ._prada import Prada, Settings

Array = NDArray[Any]

_CLIENTS = 20
_ROOM = 0.01


def calibrated(
    settings: Settings, benign: Array, classes: Array, *, queries: int = 500, seed: int
) -> Settings:
    """Settings with a `least` just below what benign clients come to.

    benign (N, ...): ordinary inputs in any order, with their predicted classes (N,). They are dealt
    out to clients of `queries` each; half of these give the limit, the others the share of false
    alarms, of which `bound` is Clopper and Pearson's upper end. Raises DataError for fewer than 20
    clients, and where benign queries come close to no limit at all.
    """
    clients = len(benign) // queries
    if clients < _CLIENTS:
        raise DataError(
            f"{len(benign)} benign inputs are {clients} clients of {queries} queries; give at "
            f"least {_CLIENTS * queries}"
        )
    order = np.random.default_rng(seed).permutation(len(benign))[: clients * queries]
    lowest = [
        lowest_w(settings, benign[rows], classes[rows], seed=seed)
        for rows in np.split(order, clients)
    ]
    known = [w for w in lowest if w is not None]
    if len(known) < clients:
        raise DataError(f"{queries} queries are too few distances; give more, or lower fewest")
    limit = min(known[::2]) - _ROOM
    if limit <= 0.5:
        raise DataError(
            f"benign clients come down to W = {limit:.2f}; their queries are no natural stream, so "
            "leave this sensor out"
        )
    others = known[1::2]
    alarms = sum(w < limit for w in others)
    return replace(settings, least=limit, bound=float(upper_bound(alarms, len(others), 0.05)))


def lowest_w(settings: Settings, x: Array, classes: Array, *, seed: int) -> float | None:
    """The lowest W that one client's queries (N, ...) come to, None for too few distances."""
    prada = Prada(settings, seed=seed)
    found = [prada.see("", x[i : i + 1], classes[i : i + 1]) for i in range(len(x))]
    return min((w for w in found if w is not None), default=None)
