"""What a model answers to a squeezed input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..._errors import ConfigError, DataError
from ...models import BitDepth, Median
from .._contract import Method, Modality, Needs, Observation, State
from ._answers import l1, probabilities

_REACH = 5
_NO_DRAWS = np.random.default_rng(0)


@dataclass(frozen=True, kw_only=True)
class FeatureSqueezing(Method):
    """How far the answer moves when the input is squeezed (Xu et al. 2018, section 5).

    The L1 distance of the class probabilities, the largest over the squeezers: each value rounded
    to 2^bits levels, the median of `median` by `median` values, and non-local means of strength
    `smoothing`, in units of the input; None leaves one out. 1 bit suits digits, 4 or 5, a median of
    2 and a smoothing of 4/255 photographs. The levels span 0 to 1, or the benign inputs where those
    go further. Rounding has the gradient of the identity. 1 forward for each squeezer, and for
    smoothing 121 comparisons of an image with itself.
    """

    bits: int | None = 4
    median: int | None = 2
    smoothing: float | None = None
    needs: ClassVar[Needs] = "scores"
    modalities: ClassVar[tuple[Modality, ...]] = ("image", "signal")
    reference: ClassVar[str] = "Xu et al. 2018"

    def __post_init__(self) -> None:
        if self.passes == 0:
            raise ConfigError("bits, median and smoothing are all null; give at least one of them")
        if self.bits is not None and not 1 <= self.bits <= 16:
            raise ConfigError(f"bits is {self.bits}; give 1 to 16, or null for none")
        if self.median not in (None, 2, 3, 5, 7):
            raise ConfigError(f"median is {self.median}; give 2, 3, 5 or 7, or null for none")
        if self.smoothing is not None and not self.smoothing > 0:
            raise ConfigError(
                f"smoothing is {self.smoothing:g}; give more than 0, or null for none"
            )

    @property
    def passes(self) -> float:
        return sum(each is not None for each in (self.bits, self.median, self.smoothing))

    @property
    def highest(self) -> float:
        return 2.0

    def fit(self, seen: Observation) -> State:
        if seen.x.ndim not in (3, 4):
            raise DataError(
                f"inputs of shape {tuple(seen.x.shape[1:])} have no neighbours to squeeze; feature "
                "squeezing takes images (C, H, W) and signals (C, L)"
            )
        low, high = seen.x.amin().clamp(max=0), seen.x.amax().clamp(min=1)
        return {"low": low, "high": high}

    def score(self, state: State, seen: Observation) -> Tensor:
        clean = probabilities(seen.scores)
        squeezed = self._squeezed(state["low"], state["high"], seen.x)
        moved = [l1(clean, probabilities(seen.ask(x))) for x in squeezed]
        return torch.stack(moved, 1).amax(1)

    def _squeezed(self, low: Tensor, high: Tensor, x: Tensor) -> Iterator[Tensor]:
        if self.bits is not None:
            levels = BitDepth(bits=self.bits)((x - low) / (high - low), _NO_DRAWS)
            yield levels * (high - low) + low
        if self.median == 2:
            yield _median_of_two(x)
        elif self.median is not None:
            yield Median(size=self.median)(x, _NO_DRAWS)
        if self.smoothing is not None:
            yield _non_local_means(x, self.smoothing)


def _median_of_two(x: Tensor) -> Tensor:
    """Each value becomes the median of itself and those before it, the upper one of 2 by 2 values.

    As the authors' filter does, which continues edges. For (B, C, H, W) and (B, C, L).
    """
    if x.ndim == 3:
        return torch.maximum(x, F.pad(x, (1, 0), mode="replicate")[..., :-1])
    around = F.pad(x, (1, 0, 1, 0), mode="replicate")
    above, here = around[:, :, :-1], around[:, :, 1:]
    a, b, c, d = above[..., :-1], above[..., 1:], here[..., :-1], here[..., 1:]
    # The second largest of four, without a sort.
    least, most = torch.minimum, torch.maximum
    return most(least(most(a, b), most(c, d)), most(least(a, b), least(c, d)))


def _non_local_means(x: Tensor, strength: float) -> Tensor:
    """The mean of the values in a window of 11 (by 11), by how alike what is around them is.

    Weights are exp(-d / strength^2), with d the mean squared difference of 3 (by 3) values of all
    channels (Buades et al. 2005, equation 2, without their Gaussian in the patch). Edges continue.
    """
    if x.ndim == 3:
        return _non_local_means(x[:, :, None], strength)[:, :, 0]
    height, width = x.shape[2:]
    up = 0 if height == 1 else _REACH
    around = F.pad(x, (_REACH, _REACH, up, up), mode="replicate")
    total, weights = torch.zeros_like(x), torch.zeros_like(x[:, :1])
    for down in range(2 * up + 1):
        for across in range(2 * _REACH + 1):
            other = around[:, :, down : down + height, across : across + width]
            gaps = (other - x).square().mean(1, keepdim=True)
            apart = F.avg_pool2d(F.pad(gaps, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
            weight = (-apart / strength**2).exp()
            total, weights = total + weight * other, weights + weight
    return total / weights
