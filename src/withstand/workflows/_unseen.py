"""Attacks that a defence was not made for: another norm, and other families."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from ..attacks import Attack, Spatial
from ..data import Dataset
from ..threat import L2, Box, Linf, Region, Threat, patch

_SIDE = 5
_LEAST = 8


@dataclass(frozen=True, kw_only=True)
class Unseen:
    """A threat that is not the one compared on; attack: the only one to run, else an evaluation.

    told: in a few words, for the head of a column's explanation.
    """

    told: str
    threat: Threat
    attack: Attack | None = None


def unseen_by(threat: Threat, data: Dataset, domain: Box) -> dict[str, Unseen]:
    """By column: another norm, and for pictures turns with shifts, and a patch in the middle.

    The other norm is L2, or Linf where the threat is L2, with a quarter of the radius whose ball
    would hold the threat's in each corner: about the ratio of the radii that are usual in both.
    """
    shape = data.x.shape[1:]
    features = int(np.prod(shape))
    span = float(np.max(np.asarray(domain.upper) - np.asarray(domain.lower)))
    found: dict[str, Unseen] = {}
    region = _other(threat, features, span)
    if region is not None:
        seen = replace(threat, region=region)
        found[region.describe()] = Unseen(told=f"another norm, {region.describe()}", threat=seen)
    if len(shape) == 3 and min(shape[1:]) >= _LEAST and np.isfinite(span):
        whole = replace(threat, region=Linf(span))
        grid = Spatial(angles=13, shifts=5)
        found["spatial"] = Unseen(
            told=f"turns of up to {grid.rotation:g} degrees and shifts of up to "
            f"{100 * grid.translation:g} % of each side",
            threat=whole,
            attack=grid,
        )
        height, width = (side // _SIDE for side in shape[1:])
        top, left = (shape[1] - height) // 2, (shape[2] - width) // 2
        sticker = patch(shape, height, width, top, left, span=span)
        found["patch"] = Unseen(
            told=f"a patch of {height} x {width} in the middle, of any values",
            threat=replace(threat, region=sticker),
        )
    return found


def _other(threat: Threat, features: int, span: float) -> Region | None:
    """The other norm's ball, where the threat has one radius for all samples."""
    eps = threat.describe()["eps"]
    if isinstance(eps, list) or not threat.bounded:
        return None
    if threat.norm == "linf":
        return L2(_brief(eps * sqrt(features) / 4))
    if threat.norm == "l2":
        return Linf(_brief(min(4 * eps / sqrt(features), span)))
    if threat.norm == "l0":
        return L2(_brief(sqrt(eps) * span / 4))
    return L2(_brief(eps / 5))


def _brief(radius: float) -> float:
    return float(f"{radius:.2g}")
