"""Regions: the set of inputs that the attacker can reach from x, declared and checked in numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._errors import ThreatError

Array = NDArray[Any]


class Region:
    """A set of inputs around each x; regions combine with `&` (all of them must hold)."""

    def __and__(self, other: Region) -> Region:
        parts = (*self, *other)
        # Beside another ball Linf is a box: the other one says which norm distances are told in.
        balls = iter(sorted((one for one in parts if isinstance(one, _Ball)), key=_is_linf))
        return _All(parts=tuple(next(balls) if isinstance(one, _Ball) else one for one in parts))

    def __iter__(self) -> Iterator[Region]:
        """The elementary regions this one is the intersection of."""
        yield self

    def contains(self, x: ArrayLike, x_adv: ArrayLike) -> NDArray[np.bool_]:
        """Whether each row of x_adv (B, ...) is reachable from x: float64, no tolerance."""
        raise NotImplementedError

    def describe(self) -> str:
        """The region in a few words, for reports."""
        raise NotImplementedError

    def take(self, rows: ArrayLike) -> Region:
        """The region of some samples only (per-sample radii and bounds follow their samples)."""
        return self

    def check(self, x: ArrayLike) -> None:
        """Raises ThreatError or DataError where it cannot be one around inputs x (B, ...)."""

    def content(self) -> bytes:
        """All that tells it from other regions, the same in every process."""
        told = [type(self).__name__.encode()]
        for name, value in vars(self).items():
            # None as an array is an address, another one in each process.
            array = np.asarray(b"" if value is None else value)
            told += [name.encode(), repr(array.shape).encode(), array.tobytes()]
        return b"\0".join(told)

    @property
    def implied(self) -> Region | None:
        """A ball that all of the region lies in, to tell distances where no norm is named."""
        return None


@dataclass(frozen=True)
class _All(Region):
    parts: tuple[Region, ...]

    def __iter__(self) -> Iterator[Region]:
        return iter(self.parts)

    def contains(self, x: ArrayLike, x_adv: ArrayLike) -> NDArray[np.bool_]:
        return np.asarray(np.all([part.contains(x, x_adv) for part in self.parts], axis=0))

    def describe(self) -> str:
        return " and ".join(part.describe() for part in self.parts)

    def check(self, x: ArrayLike) -> None:
        for part in self.parts:
            part.check(x)

    def take(self, rows: ArrayLike) -> Region:
        return _All(parts=tuple(part.take(rows) for part in self.parts))


def _delta(x: ArrayLike, x_adv: ArrayLike) -> Array:
    x, x_adv = np.asarray(x, np.float64), np.asarray(x_adv, np.float64)
    return np.asarray((x_adv - x).reshape(len(x), -1))


@dataclass(frozen=True, eq=False)
class _Ball(Region):
    """All inputs whose distance from x is at most eps: one number, or one for each sample (B,)."""

    eps: float | Array

    def __post_init__(self) -> None:
        try:
            eps = np.asarray(self.eps, np.float64)
        except (TypeError, ValueError):
            raise ThreatError(
                f"eps is {self.eps!r}; give a number such as 8 / 255, or one for each sample (B,)"
            ) from None
        if eps.ndim > 1:
            raise ThreatError(
                f"eps has shape {eps.shape}; give one number, or one for each sample (B,)"
            )
        if np.isnan(eps).any() or (eps < 0).any():
            raise ThreatError(f"eps is {self.eps}; a radius is at least 0")
        object.__setattr__(self, "eps", float(eps) if eps.ndim == 0 else eps)

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    @staticmethod
    def distance(x: ArrayLike, x_adv: ArrayLike) -> NDArray[np.float64]:
        """Distance of each row of x_adv (B, ...) from x (B, ...), float64."""
        raise NotImplementedError

    def contains(self, x: ArrayLike, x_adv: ArrayLike) -> NDArray[np.bool_]:
        return np.asarray(self.distance(x, x_adv) <= self.eps)

    def describe(self) -> str:
        if isinstance(self.eps, float):
            return f"{self.name.capitalize()} <= {self.eps:.6g}"
        low, high = float(np.min(self.eps)), float(np.max(self.eps))
        return f"{self.name.capitalize()} <= per-sample radius {low:.6g} to {high:.6g}"

    def take(self, rows: ArrayLike) -> Region:
        return self if isinstance(self.eps, float) else type(self)(self.eps[np.asarray(rows)])

    def check(self, x: ArrayLike) -> None:
        if not isinstance(self.eps, float) and len(self.eps) != len(np.asarray(x)):
            raise ThreatError(
                f"eps has {len(self.eps)} radii for {len(np.asarray(x))} inputs; give one number, "
                "or one for each input"
            )

    def unbounded(self) -> Region:
        """The same norm with an infinite radius."""
        return type(self)(np.inf)


class Linf(_Ball):
    """No feature changes by more than eps."""

    @staticmethod
    def distance(x: ArrayLike, x_adv: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(np.abs(_delta(x, x_adv)).max(1))


class L2(_Ball):
    """The Euclidean length of the change is at most eps."""

    @staticmethod
    def distance(x: ArrayLike, x_adv: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(np.sqrt(np.square(_delta(x, x_adv)).sum(1)))


class L1(_Ball):
    """The changes' absolute values add up to at most eps."""

    @staticmethod
    def distance(x: ArrayLike, x_adv: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(np.abs(_delta(x, x_adv)).sum(1))


class L0(_Ball):
    """At most eps features change at all."""

    @staticmethod
    def distance(x: ArrayLike, x_adv: ArrayLike) -> NDArray[np.float64]:
        return np.asarray((_delta(x, x_adv) != 0).sum(1), np.float64)


def _each(values: Any, rows: Array | None, shape: tuple[int, ...], what: str) -> Array:
    """The values for x of shape (B, ...), those of `rows` where each sample has its own."""
    values = np.asarray(values)
    if rows is not None and values.ndim == len(shape) and len(values) > 1:
        values = values[rows]
    try:
        return np.broadcast_to(values, shape)
    except ValueError:
        raise ThreatError(
            f"the {what} has shape {values.shape}, the inputs {shape}; give it the shape of one "
            "input, or one for each of them"
        ) from None


def _followed(rows: Array | None, taken: ArrayLike) -> Array:
    """Which of the samples first declared the taken ones are."""
    taken = np.asarray(taken)
    if rows is not None:
        return np.asarray(rows[taken])
    return np.flatnonzero(taken) if taken.dtype == bool else taken


@dataclass(frozen=True, eq=False)
class Box(Region):
    """Every feature lies in [lower, upper]; bounds broadcast to one sample's shape.

    Bounds (N, ...) with the samples' axis are one box for each sample.
    """

    lower: float | Array
    upper: float | Array
    _rows: Array | None = field(default=None, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        lower, upper = np.asarray(self.lower, np.float64), np.asarray(self.upper, np.float64)
        if np.isnan(lower).any() or np.isnan(upper).any() or (lower > upper).any():
            raise ThreatError("a box needs lower <= upper in every feature, and no NaN")
        object.__setattr__(self, "lower", float(lower) if lower.ndim == 0 else lower)
        object.__setattr__(self, "upper", float(upper) if upper.ndim == 0 else upper)

    def contains(self, x: ArrayLike, x_adv: ArrayLike) -> NDArray[np.bool_]:
        x_adv = np.asarray(x_adv, np.float64)
        lower, upper = self.bounds(x_adv.shape)
        inside = (x_adv >= lower) & (x_adv <= upper)
        return np.asarray(inside.reshape(len(x_adv), -1).all(1))

    def bounds(self, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Lower and upper bounds of inputs of this shape (B, ...)."""
        lower, upper = (_each(b, self._rows, shape, "box") for b in (self.lower, self.upper))
        return lower, upper

    def take(self, rows: ArrayLike) -> Region:
        return replace(self, _rows=_followed(self._rows, rows))

    def describe(self) -> str:
        low, high = float(np.min(self.lower)), float(np.max(self.upper))
        return f"values in [{low:.6g}, {high:.6g}]"


@dataclass(frozen=True, eq=False)
class Mask(Region):
    """Only features where the mask is true may change; it broadcasts to one sample's shape.

    A mask (N, ...) with the samples' axis is one mask for each sample.
    """

    free: Array
    _rows: Array | None = field(default=None, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "free", np.asarray(self.free, bool))

    def contains(self, x: ArrayLike, x_adv: ArrayLike) -> NDArray[np.bool_]:
        x, x_adv = np.asarray(x, np.float64), np.asarray(x_adv, np.float64)
        moved = (x_adv != x) & ~self.freed(x.shape)
        return np.asarray(~moved.reshape(len(x), -1).any(1))

    def freed(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Which features of inputs of this shape (B, ...) may change."""
        return _each(self.free, self._rows, shape, "mask")

    def take(self, rows: ArrayLike) -> Region:
        return replace(self, _rows=_followed(self._rows, rows))

    def describe(self) -> str:
        return f"{100 * float(np.mean(self.free)):.3g} % of the features may change"


@dataclass(frozen=True, eq=False)
class Frozen(Region):
    """The features with these flat indices never change."""

    columns: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(int(c) for c in self.columns))

    def check(self, x: ArrayLike) -> None:
        features = np.asarray(x)[:1].size
        wrong = [column for column in self.columns if not 0 <= column < features]
        if wrong:
            raise ThreatError(
                f"feature {wrong[0]} is frozen, the inputs have {features}; give 0 to "
                f"{features - 1}"
            )

    def contains(self, x: ArrayLike, x_adv: ArrayLike) -> NDArray[np.bool_]:
        return np.asarray((_delta(x, x_adv)[:, list(self.columns)] == 0).all(1))

    def describe(self) -> str:
        return f"{len(self.columns)} features are frozen"


def _is_linf(ball: _Ball) -> bool:
    return isinstance(ball, Linf)
