"""From the configuration's certify section to a method."""

from __future__ import annotations

from ..config import CertifyConfig
from ._certify import Bounds
from ._rows import Trees
from ._smoothing import Smoothing


def from_config(asked: CertifyConfig, seed: int | None = None) -> Smoothing | Bounds | Trees:
    """The method that a configuration asks for; seed: of the noise, in place of its own."""
    if asked.method == "trees":
        return Trees(seconds=asked.seconds)
    if asked.method == "bounds" or asked.sigma is None:
        return Bounds(bound=asked.bound)
    return Smoothing(
        sigma=asked.sigma,
        alpha=asked.alpha,
        draws=asked.draws,
        select=asked.select,
        sequential=asked.sequential,
        radii=tuple(asked.radii or ()),
        tolerance=asked.tolerance,
        seed=asked.seed if seed is None else seed,
    )
