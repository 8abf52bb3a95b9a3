"""What is left of an input when all that is smooth is taken away."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..._errors import ConfigError, DataError
from .._contract import Method, Modality, Needs, Observation, State
from ._mixture import mixture, rareness


@dataclass(frozen=True, kw_only=True)
class Residual(Method):
    """How rare an input's fine noise is among that of benign inputs: no model is asked.

    The residual is the second difference along each axis (Immerkaer 1996); its numbers are, for
    each channel, the logarithms of its mean size and mean square, its mean logarithm, which is that
    of the quiet places, and the correlations of channels with each other (after Fridrich and
    Kodovsky 2012); their density is a mixture of at most `components` normal distributions, since
    inputs of several sources or qualities are benign. Sees the noise that gradient attacks leave,
    on photographs from 4/255 on, as well after rounding to 8 bits. It sees other noise of that size
    too, as of another camera, before a background that is quite flat even noise below a step of 8
    bits, and attackers who know it avoid it. For images and signals of at
    least 3 values a side.
    """

    components: int = 8
    needs: ClassVar[Needs] = "input"
    modalities: ClassVar[tuple[Modality, ...]] = ("image", "signal")
    reference: ClassVar[str] = "Immerkaer 1996; Fridrich and Kodovsky 2012"

    def __post_init__(self) -> None:
        if self.components < 1:
            raise ConfigError(f"components is {self.components}; give at least 1")

    def fit(self, seen: Observation) -> State:
        shape = tuple(seen.x.shape[1:])
        if len(shape) not in (2, 3) or min(shape[1:]) < 3:
            raise DataError(
                f"inputs of shape {shape} leave no residual; it takes images (C, H, W) and signals "
                "(C, L) of at least 3 values a side"
            )
        # In units of the benign noise, and far above the steps of 8 bits.
        floor = 0.1 * _residual(seen.x).abs().mean() + 1e-12
        numbers = _numbers(seen.x, floor)
        if len(numbers) < 10 * numbers.shape[1]:
            raise DataError(
                f"{len(numbers)} benign inputs are too few for {numbers.shape[1]} statistics; give "
                f"at least {10 * numbers.shape[1]}, better thousands"
            )
        return {"floor": floor, **mixture(numbers, self.components)}

    def score(self, state: State, seen: Observation) -> Tensor:
        return rareness(state, _numbers(seen.x, state["floor"]))


def _residual(x: Tensor) -> Tensor:
    """Second differences (B, C, N) of x (B, C, ...) along each of its axes."""
    for axis in range(2, x.ndim):
        x = x.diff(n=2, dim=axis)
    return x.flatten(2)


def _numbers(x: Tensor, floor: Tensor) -> Tensor:
    """The statistics (B, S) of x (B, C, ...)."""
    left, least = _residual(x), 0.01 * floor
    size, power = left.abs(), left.square().mean(2)
    quiet = (size + floor).log().mean(2)
    away = left - left.mean(2, keepdim=True)
    unit = away / (away.norm(dim=2, keepdim=True) + least * math.sqrt(left.shape[2]))
    first, second = torch.triu_indices(left.shape[1], left.shape[1], 1, device=x.device)
    together = (unit[:, first] * unit[:, second]).sum(2)
    loud = (size.mean(2) + least).log()
    return torch.cat((loud, (power + least.square()).log(), quiet, together), 1)
