"""Whether a row of a table can be: bounds, whole numbers, and how columns relate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..._errors import ConfigError, DataError
from .._contract import Method, Modality, Needs, Observation, State
from ._features import enough

Columns = tuple[int, ...]
_MOST_COLUMNS = 500
_SLACK = 1e-3  # standard deviations, far above what rounding breaks
_SELDOM = 0.05


@dataclass(frozen=True, kw_only=True)
class Constraints(Method):
    """By how much a row breaks what holds of all benign rows; 0 for one that breaks nothing.

    lower, upper: one bound for each column. integers: columns of whole numbers. one_hot: groups of
    columns of which exactly one is 1. sums: the parts' columns, and the column that they add up to.
    at_most: pairs of columns, the first never above the second. None: learned from the benign rows;
    among the learned sums is every linear equation that they keep, so one-hot groups too, and an
    order of two columns counts only where values shuffled among the rows would break it. The score
    adds up all that is broken, in standard deviations of the column, for whole numbers in units.
    Model-free; an attacker who keeps the constraints is not seen.
    """

    lower: tuple[float, ...] | None = None
    upper: tuple[float, ...] | None = None
    integers: Columns | None = None
    one_hot: tuple[Columns, ...] | None = None
    sums: tuple[tuple[Columns, int], ...] | None = None
    at_most: tuple[tuple[int, int], ...] | None = None
    needs: ClassVar[Needs] = "input"
    modalities: ClassVar[tuple[Modality, ...]] = ("tabular",)

    def __post_init__(self) -> None:
        if self.lower and self.upper:
            for i, (low, high) in enumerate(zip(self.lower, self.upper, strict=False)):
                if low > high:
                    raise ConfigError(f"column {i} is bounded by {low:g} and {high:g}; swap them")

    def fit(self, seen: Observation) -> State:
        x = seen.x.flatten(1).double()
        enough(len(x), 10, "constraints")
        self._check(x.shape[1])
        scale = x.std(0)
        # A column that never varies is measured against its own size.
        scale = torch.where(scale > 0, scale, x.abs().amax(0).clamp_min(1))
        centre = x.mean(0)
        weights, sides = self._equations(x, centre, scale)
        pairs = _orders(x) if self.at_most is None else torch.tensor(self.at_most)
        lower, upper = _given(self.lower, x.amin(0)), _given(self.upper, x.amax(0))
        integers = _mask(self.integers, (x == x.round()).all(0))
        for group in self.one_hot or ():
            columns = list(group)
            lower[columns], upper[columns], integers[columns] = 0, 1, True
        values = {"lower": lower, "upper": upper, "centre": centre, "scale": scale}
        values |= {"equations": weights, "sides": sides}
        state = {name: value.float() for name, value in values.items()}
        return state | {"integers": integers, "pairs": pairs.reshape(-1, 2).long()}

    def score(self, state: State, seen: Observation) -> Tensor:
        return torch.stack(list(self.broken(state, seen.x).values()), 1).sum(1)

    def broken(self, state: State, x: Tensor) -> dict[str, Tensor]:
        """By how much (B,) the rows x (B, ...) break each kind of constraint."""
        x = x.flatten(1)
        scale = state["scale"]
        outside = (state["lower"] - x).clamp_min(0) + (x - state["upper"]).clamp_min(0)
        fraction = (x - x.detach().round()).abs() * state["integers"]
        first, second = state["pairs"].unbind(1)
        left = ((x - state["centre"]) / scale) @ state["equations"].T - state["sides"]
        above = (x[:, first] - x[:, second]) / torch.maximum(scale[first], scale[second])
        return {
            "bounds": (outside / scale).sum(1),
            "integers": fraction.sum(1),
            "equations": (left.abs() - _SLACK).clamp_min(0).sum(1),
            "orders": above.clamp_min(0).sum(1),
        }

    def _check(self, columns: int) -> None:
        if columns > _MOST_COLUMNS:
            raise DataError(
                f"{columns} columns are too many for constraints; give at most {_MOST_COLUMNS}"
            )
        for name in ("lower", "upper"):
            bounds = getattr(self, name)
            if bounds is not None and len(bounds) != columns:
                raise DataError(f"{len(bounds)} {name} bounds for {columns} columns; give one each")
        named = [*(self.integers or ()), *(c for group in self.one_hot or () for c in group)]
        named += [c for parts, whole in self.sums or () for c in (*parts, whole)]
        named += [c for pair in self.at_most or () for c in pair]
        for column in named:
            if not 0 <= column < columns:
                raise DataError(f"column {column} is named; there are 0 to {columns - 1}")

    def _equations(self, x: Tensor, centre: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (E, F), of length 1, of the standardised columns, and what they add up to."""
        none = x.new_zeros(x.shape[1])
        weights: list[Tensor] = []
        sides: list[Tensor] = []
        for group in self.one_hot or ():
            weights.append(_ones(none, group))
            sides.append(1 - weights[-1] @ centre)
        for parts, whole in self.sums or ():
            weights.append(_ones(none, parts) - _ones(none, (whole,)))
            sides.append(-weights[-1] @ centre)
        weights = [row * scale for row in weights]
        if self.sums is None:
            learned = _kept((x - centre) / scale)
            weights += list(learned)
            sides += [centre.new_zeros(())] * len(learned)
        rows = torch.stack([*weights, none])[:-1]
        lengths = rows.norm(dim=1)
        return rows / lengths[:, None], torch.stack([*sides, none[0]])[:-1] / lengths


def _given(declared: tuple[float, ...] | None, learned: Tensor) -> Tensor:
    return learned if declared is None else torch.tensor(declared, dtype=learned.dtype)


def _mask(declared: Columns | None, learned: Tensor) -> Tensor:
    if declared is None:
        return learned
    mask = torch.zeros_like(learned)
    mask[list(declared)] = True
    return mask


def _ones(none: Tensor, columns: Columns) -> Tensor:
    row = none.clone()
    row[list(columns)] = 1
    return row


def _kept(x: Tensor) -> Tensor:
    """The directions (E, F) in which centred columns that vary never vary together."""
    varying = x.std(0) > 0
    columns = x[:, varying]
    if len(x) <= 2 * columns.shape[1]:
        return x.new_zeros(0, x.shape[1])
    values, vectors = torch.linalg.eigh(columns.T @ columns / len(x))
    directions = vectors[:, values < _SLACK**2 / 100].T
    found = x.new_zeros(len(directions), x.shape[1])
    found[:, varying] = directions
    return found


def _orders(x: Tensor) -> Tensor:
    """Pairs of columns (P, 2), the first never above the second, and not by chance.

    By chance are those that values shuffled among the rows would seldom break.
    """
    moved = x.roll(1, 0)
    pairs = []
    for i in range(x.shape[1]):
        holds = (x[:, i : i + 1] <= x).all(0)
        holds[i] = False
        broken = (x[:, i : i + 1] > moved[:, holds]).double().mean(0)
        pairs += [(i, int(j)) for j in holds.nonzero()[:, 0][broken > _SELDOM]]
    return torch.tensor(pairs)
