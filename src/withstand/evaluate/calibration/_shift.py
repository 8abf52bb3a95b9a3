"""How far the range of each feature's values moves from one sample to another."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...stats import Ends, quantile_ends, weighted_sum
from ._rows import Rows

Array = NDArray[Any]


class Range(NamedTuple):
    """The two ends (2, d) of the range that holds each number's middle, in each sample."""

    first: Ends
    second: Ends

    def moves(self) -> Ends:
        """Where each end moves, for independent samples (Zou and Donner 2008, eq. 8)."""
        first, second = self
        value = second.value - first.value
        return Ends(
            value,
            value - np.hypot(second.value - second.low, first.high - first.value),
            value + np.hypot(second.high - second.value, first.value - first.low),
        )


def ranges(both: Rows, coverage: float, confidence: float) -> Range:
    """The quantiles (1 +- coverage) / 2 of the numbers, each at the confidence."""
    whole = both.whole[both.numeric]

    def quantiles(sample: Array, level: float) -> Ends:
        smooth, stepped = (
            quantile_ends(sample[:, both.numeric], level, confidence=confidence, whole=grid)
            for grid in (False, True)
        )
        return Ends(*(np.where(whole, b, a) for a, b in zip(smooth, stepped, strict=True)))

    levels = (1 - coverage) / 2, (1 + coverage) / 2
    found = [[quantiles(sample, level) for level in levels] for sample in both[:2]]
    return Range(*(Ends(*map(np.stack, zip(*pair, strict=True))) for pair in found))


def moved(both: Rows, coverage: float, confidence: float) -> NDArray[np.bool_]:
    """Which numbers (d,) move by more than chance, all features together (Bonferroni)."""
    strict = 1 - (1 - confidence) / (2 * len(both.names))
    surely = ranges(both, coverage, strict).moves()
    return np.asarray(((surely.low > 0) | (surely.high < 0)).any(0))


def sizes(middle: Range, surely: NDArray[np.bool_]) -> Ends:
    """How far the further end of each number's range moves (d,); from 0 if it may not have moved.

    The interval is that end's own: of two ends that move alike, it covers no less.
    """
    moves = middle.moves()
    further = np.abs(moves.value).argmax(0)[None]
    value, low, high = (np.take_along_axis(part, further, 0)[0] for part in moves)
    least = np.maximum(np.maximum(low, -high), 0.0)
    return Ends(np.abs(value), np.where(surely, least, 0.0), np.maximum(-low, high))


def total(
    both: Rows,
    coverage: float,
    confidence: float,
    chosen: NDArray[np.intp],
    *,
    length: bool,
    seed: int,
) -> Ends:
    """The sum of the chosen numbers' sizes, or their Euclidean length.

    Which end of a range moves further is chosen in one half of the rows and measured in the other,
    and the other way round: in a sum over features the flattery of choosing would add up.
    """
    part = Rows(
        both.first[:, both.numeric[chosen]],
        both.second[:, both.numeric[chosen]],
        tuple(both.names[i] for i in both.numeric[chosen]),
        tuple(both.kinds[i] for i in both.numeric[chosen]),
    )
    moves = [ranges(half, coverage, confidence).moves().value for half in _halves(part, seed)]
    picked = [np.abs(move).argmax(0) for move in moves]
    each = np.arange(len(chosen))
    signs = [np.sign(move[pick, each]) for move, pick in zip(moves, picked, strict=True)]
    measured = np.stack([signs[1 - half] * moves[half][picked[1 - half], each] for half in (0, 1)])
    size = np.maximum(measured.mean(0), 0.0)
    # To first order a length is the sum of its parts along its slope; the product of the halves
    # leaves out the square of their noise.
    norm = float(np.sqrt(max(float((measured[0] * measured[1]).sum()), 0.0)))
    slope = size / max(float(np.linalg.norm(size)), 1e-300) if length else np.ones(len(chosen))
    middle = ranges(part, coverage, confidence)
    found = [
        _spread(part, middle, pick, slope * sign) for pick, sign in zip(picked, signs, strict=True)
    ]
    down, up = np.sqrt(np.mean(np.square(found), 0))
    value = norm if length else float(measured.sum(1).mean())
    return Ends(*(np.asarray(max(end, 0.0)) for end in (value, value - down, value + up)))


def _halves(both: Rows, seed: int) -> list[Rows]:
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(sample)) for sample in both[:2]]
    return [
        both._replace(first=both.first[orders[0][half::2]], second=both.second[orders[1][half::2]])
        for half in (0, 1)
    ]


def _spread(part: Rows, middle: Range, pick: NDArray[np.intp], weights: Array) -> list[float]:
    """How far below and above its value the weighted sum of the picked ends' moves may lie."""
    k = len(weights)
    each, between, found = np.arange(k), np.zeros((2 * k, 2 * k)), []
    for at, (sample, ends) in enumerate(zip(part[:2], middle, strict=True)):
        here = Ends(*(side[pick, each] for side in ends))
        place = slice(at * k, (at + 1) * k)
        between[place, place] = _correlation(sample <= here.value)
        found.append(here)
    joined = Ends(*(np.concatenate(pair) for pair in zip(*found, strict=True)))
    value, low, high = weighted_sum(np.concatenate([-weights, weights]), joined, between)
    return [float(value - low), float(high - value)]


def _correlation(below: NDArray[np.bool_]) -> Array:
    """The correlations (k, k) of indicators (n, k), which are those of their quantiles."""
    centred = below - below.mean(0)
    spread = np.sqrt(np.square(centred).sum(0))
    spread[spread == 0] = 1.0
    between = (centred / spread).T @ (centred / spread)
    np.fill_diagonal(between, 1.0)
    return np.asarray(between)
