"""Activations between two lines: what makes a network's bounds linear in its input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ._operations import Interval, Operation, Unit


class Relaxation(ABC):
    """Linear bounds of an activation over one box for each sample."""

    free: Tensor | None = None
    """Where any lower slope between `least` and 1 is sound, (B, ...); None for nowhere."""
    least: float = 0.0

    @abstractmethod
    def take(self, rows: Tensor) -> Relaxation:
        """The lines of some samples."""

    @abstractmethod
    def pull(
        self, a: Tensor, owner: Tensor | slice, slopes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Linear functions a (R, ...) of the values from below, as functions of the input.

        owner: the sample that each of them belongs to, (R,), or all of them in order; slopes: lower
        slopes (R, ...) to take where they are free. Gives new functions (R, ...) and what is added
        to each, (R,).
        """


class Activation(Operation):
    """A function that is not linear, of one tensor."""

    @abstractmethod
    def contested(self, box: Interval) -> Tensor:
        """Where closer bounds of the input would give closer lines, (B, ...)."""

    @abstractmethod
    def relax(self, box: Interval, found: Interval | None = None) -> Relaxation:
        """The lines over a box; found: CROWN's own bounds, where the box is closer by others."""


@dataclass(frozen=True, eq=False)
class Lines(Relaxation):
    """A line below and one above each value: slopes and shifts, (B, ...)."""

    below: tuple[Tensor, Tensor | None]
    above: tuple[Tensor, Tensor]
    free: Tensor | None = None
    least: float = 0.0

    def take(self, rows: Tensor) -> Lines:
        return self.over(lambda values: values[rows])

    def over(self, part: Callable[[Tensor], Tensor]) -> Lines:
        """The lines of what `part` picks of tensors (B, ...)."""
        slope, shift = self.below
        return Lines(
            (part(slope), None if shift is None else part(shift)),
            (part(self.above[0]), part(self.above[1])),
            free=None if self.free is None else part(self.free),
            least=self.least,
        )

    def pull(
        self, a: Tensor, owner: Tensor | slice, slopes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        # A positive coefficient takes the line below, a negative one the line above.
        negative = a.clamp(max=0)
        positive = a - negative
        lower = self.below[0][owner]
        if slopes is not None and self.free is not None:
            lower = torch.where(self.free[owner], slopes, lower)
        added = torch.linalg.vecdot(negative.flatten(1), self.above[1][owner].flatten(1))
        if self.below[1] is not None:
            added = added + (positive * self.below[1][owner]).flatten(1).sum(1)
        return positive * lower + negative * self.above[0][owner], added


@dataclass(frozen=True)
class Rectifier(Activation):
    """ReLU, or leaky ReLU of a slope between 0 and 1 for negative numbers."""

    slope: float = 0.0

    def __call__(self, *x: Tensor) -> Tensor:
        return torch.maximum(x[0], self.slope * x[0]) if self.slope else x[0].relu()

    def interval(self, *boxes: Interval) -> Interval:
        return Interval(self(boxes[0].lower), self(boxes[0].upper))

    def contested(self, box: Interval) -> Tensor:
        return (box.lower < 0) & (box.upper > 0)

    def relax(self, box: Interval, found: Interval | None = None) -> Relaxation:
        """The chord above, and below the slope 1 under a chord steeper than 1/2, else the other.

        That is CROWN's choice (Zhang et al. 2018), made by the bounds it `found`:
        closer ones by interval arithmetic make the lines closer, but the choice not better.
        """
        lower, upper = box
        unstable = self.contested(box)
        stable = torch.where(lower >= 0, 1.0, self.slope).to(lower)
        width = torch.where(unstable, upper - lower, 1.0)
        chord = torch.where(unstable, (upper - self.slope * lower) / width, stable)
        shift = torch.where(unstable, (self.slope - chord) * lower, 0.0)
        least, most = box if found is None else found
        steep = most > (2 * self.slope - 1) * least
        below = torch.where(unstable, torch.where(steep, 1.0, self.slope).to(lower), stable)
        return Lines((below, None), (chord, shift), free=unstable, least=self.slope)

    def error(self, unit: Unit, boxes: tuple[Interval, ...], errors: tuple[Tensor, ...]) -> Tensor:
        if self.slope:
            return errors[0] + 2 * unit.values * (boxes[0].largest + errors[0])
        # Where the input stays below 0 in spite of its error, the value is 0 without one.
        return torch.minimum(errors[0], (boxes[0].upper + errors[0]).clamp(min=0))


@dataclass(frozen=True)
class Curve(Activation):
    """A function shaped like an S that is odd around (0, middle): the sigmoid or tanh."""

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    middle: float

    def __call__(self, *x: Tensor) -> Tensor:
        return self.function(x[0])

    def interval(self, *boxes: Interval) -> Interval:
        return Interval(self(boxes[0].lower), self(boxes[0].upper))

    def contested(self, box: Interval) -> Tensor:
        return box.upper > box.lower

    def relax(self, box: Interval, found: Interval | None = None) -> Relaxation:
        slope, shift = self._above(*box)
        # The curve turned around its middle is the curve again.
        turned, fall = self._above(-box.upper, -box.lower)
        return Lines((turned, 2 * self.middle - fall), (slope, shift))

    def _above(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The line above: a tangent on the right where one passes over `lower`, else the chord."""
        value = self(lower)

        def passes(at: Tensor) -> Tensor:
            return self(at) - self.derivative(at) * (at - lower) >= value

        # Right of 0 the curve bends down: its tangents lie above it, and those further right
        # lie higher at `lower`. The midpoint is the best one where the whole box is there.
        least, most = lower.clamp(min=0), upper.clamp(min=0)
        touch = (least + most) / 2
        for _ in range(40):
            over = passes(touch)
            least, most = torch.where(over, least, touch), torch.where(over, touch, most)
            touch = torch.where(lower >= 0, touch, (least + most) / 2)
        touch = torch.where(lower >= 0, touch, most)
        tangent = self.derivative(touch)
        width = torch.where(upper > lower, upper - lower, 1.0)
        chord = torch.where(upper > lower, (self(upper) - value) / width, 0.0)
        under = (lower >= 0) | ((upper > 0) & passes(touch))
        slope = torch.where(under, tangent, chord)
        shift = torch.where(under, self(touch) - tangent * touch, value - chord * lower)
        return slope, shift

    def error(self, unit: Unit, boxes: tuple[Interval, ...], errors: tuple[Tensor, ...]) -> Tensor:
        # No slope is above 1, no value either; libraries promise a few units in the last place.
        return errors[0] + 8 * unit.values


def _sigmoid_slope(x: Tensor) -> Tensor:
    value = torch.sigmoid(x)
    return value * (1 - value)


SIGMOID = Curve(torch.sigmoid, _sigmoid_slope, 0.5)
TANH = Curve(torch.tanh, lambda x: 1 - torch.tanh(x).square(), 0.0)
