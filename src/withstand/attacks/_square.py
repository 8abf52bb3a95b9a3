"""Square: random search with shrinking squares, from scores alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..threat import Access
from ._ball import length, project
from ._contract import Attack, Query, Seen
from ._noise import uniform
from ._problem import Problem

# Shares of the queries after which the squares' area halves (Andriushchenko et al. 2020, sec. 5).
_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


class _State(NamedTuple):
    best: Tensor
    best_margin: Tensor
    step: Tensor
    room: Tensor  # top, left, height and width of what can move


class _Window(NamedTuple):
    """A rectangle in each row's picture: its cells (B, 1, H, W), their place in it, its size."""

    cells: Tensor
    row: Tensor
    column: Tensor
    height: Tensor
    width: Tensor


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """The Square attack (Andriushchenko et al. 2020), Linf (algorithm 2) and L2 (algorithm 3).

    In L1 it moves length between windows as in L2, and projects onto ball and box together (Croce
    and Hein 2021). Rows of features count as pictures of height 1. Windows reach the last row and
    column, and each row draws its own. 1 forward a step.
    """

    queries: int = 5000
    share: float = 0.8
    needs: ClassVar[Access] = "scores"
    norms: ClassVar = ("linf", "l2", "l1")

    def init(self, problem: Problem) -> _State:
        b, c, h, w = _picture(problem.x)
        if problem.norm == "linf":
            stripes = _signs(problem, 1, 0, c * w).reshape(b, c, 1, w).expand(b, c, h, w)
            change = stripes * problem.eps[:, None, None, None]
        else:
            change = self._tiles(problem)
        start = project(problem, problem.x + change.reshape(problem.x.shape))
        worst = torch.full_like(problem.eps, torch.inf)
        return _State(start, worst, torch.zeros_like(problem.lane), _room(problem))

    def query(self, problem: Problem, state: _State) -> Query:
        move = self._move_linf if problem.norm == "linf" else self._move_length
        moved = project(problem, problem.x + move(problem, state).reshape(problem.x.shape))
        first = problem.column(state.step == 0)
        points = torch.where(first, state.best, moved)
        return Query(points, state.step < self.queries)

    def step(self, problem: Problem, state: _State, seen: Seen) -> _State:
        assert seen.scores is not None
        margin = problem.goal.margin(seen.scores, problem.y)
        better = margin < state.best_margin
        return _State(
            best=torch.where(problem.column(better), seen.points, state.best),
            best_margin=torch.where(better, margin, state.best_margin),
            step=state.step + 1,
            room=state.room,
        )

    def _area(self, state: _State) -> Tensor:
        """The number of cells (B,) in a window."""
        marks = torch.tensor(_HALVINGS, device=state.step.device) * self.queries
        most = (self.share * state.room[:, 2:].prod(1).double()).float()
        return most * 0.5 ** (state.step[:, None] > marks).sum(1)

    def _move_linf(self, problem: Problem, state: _State) -> Tensor:
        shape = _picture(problem.x)
        area = self._area(state)
        side = area.sqrt().round().clamp_min(1) if shape[2] > 1 else torch.ones_like(area)
        window = _window(problem, state, 2, side, area)
        signs = _signs(problem, 3, state.step, shape[1])[:, :, None, None]
        change = signs * problem.eps[:, None, None, None]
        return torch.where(window.cells, change, (state.best - problem.x).reshape(shape))

    def _move_length(self, problem: Problem, state: _State) -> Tensor:
        shape = _picture(problem.x)
        area = self._area(state)
        side = area.sqrt().round().clamp_min(3)
        side = side + 1 - side % 2
        # A side is at least 3: only windows that reach over a patch's edge move less of it.
        first = _window(problem, state, 2, side, area.clamp_min(3), over=True)
        second = _window(problem, state, 4, side, area.clamp_min(3), over=True)
        delta = (state.best - problem.x).reshape(shape)

        def norm(values: Tensor) -> Tensor:
            if problem.norm == "l1":
                return values.abs().sum((2, 3), keepdim=True)
            return values.square().sum((2, 3), keepdim=True).sqrt()

        # Unused length, and what the two windows hold, goes into the first one (eqs. 4 and 5).
        held, total = norm(torch.where(first.cells | second.cells, delta, 0.0)), norm(delta)
        radius = problem.eps[:, None, None, None]
        if problem.norm == "l1":
            unused = (radius - total.sum(1, keepdim=True)).clamp_min(0) / shape[1]
            size = unused + held
        else:
            total = total.square().sum(1, keepdim=True)
            unused = (radius.square() - total).clamp_min(0) / shape[1]
            size = (unused + held.square()).sqrt()
        old = torch.where(first.cells, delta, 0.0)
        signs = _signs(problem, 6, state.step, shape[1])[:, :, None, None]
        flipped = uniform(problem, 7, state.step, 1)[:, :, None, None] > 0.5
        bump = signs * _pyramids(first, flipped) * _free(problem)
        fresh = bump / norm(bump).clamp_min(1e-12) + old / norm(old).clamp_min(1e-12)
        fresh = fresh / norm(fresh).clamp_min(1e-12) * size
        change = torch.where(first.cells, fresh, torch.where(second.cells, 0.0, delta))
        # The box cuts about half of a change, and in L1 the projection's threshold the rest.
        most = 4 * problem.eps if problem.norm == "l1" else problem.eps
        scale = most / length(change, problem.norm).clamp_min(1e-12)
        return change * scale[:, None, None, None]

    def _tiles(self, problem: Problem) -> Tensor:
        """A 5 x 5 grid of pyramids with random signs, of length eps."""
        b, c, h, w = _picture(problem.x)
        device = problem.x.device
        rows, columns = torch.arange(h, device=device), torch.arange(w, device=device)
        height, width = max(h // 5, 1), max(w // 5, 1)
        place = _Window(
            cells=torch.ones(1, 1, h, w, dtype=torch.bool, device=device),
            row=(rows % height)[None, None, :, None].expand(1, 1, h, w),
            column=(columns % width)[None, None, None, :].expand(1, 1, h, w),
            height=torch.full((1, 1, 1, 1), height, device=device),
            width=torch.full((1, 1, 1, 1), width, device=device),
        )
        down, across = -(-h // height), -(-w // width)
        signs = _signs(problem, 1, 0, c * down * across).reshape(b, c, down, across)
        signs = signs[:, :, rows // height][:, :, :, columns // width]
        change = signs * _pyramids(place, torch.zeros(1, dtype=torch.bool, device=device))
        change = change * _free(problem)
        scale = problem.eps / length(change, problem.norm).clamp_min(1e-12)
        return change * scale[:, None, None, None]


def _picture(x: Tensor) -> tuple[int, int, int, int]:
    """The shape of x as pictures (B, C, H, W)."""
    if x.ndim == 4:
        b, c, h, w = x.shape
        return b, c, h, w
    return (len(x), 1, 1, x.shape[1]) if x.ndim == 2 else (len(x), x.shape[1], 1, x[0, 0].numel())


def _signs(problem: Problem, tag: int, step: Tensor | int, n: int) -> Tensor:
    return (uniform(problem, tag, step, n) - 0.5).sign()


def _free(problem: Problem) -> Tensor:
    """The features (B, C, H, W) that can move."""
    return (problem.upper > problem.lower).reshape(_picture(problem.x))


def _room(problem: Problem) -> Tensor:
    """Top, left, height and width (B, 4) of the smallest rectangle around what can move."""
    free = _free(problem).any(1)
    spans = []
    for cells in (free.any(2), free.any(1)):
        first = cells.int().argmax(1)
        spans.append((first, cells.shape[1] - cells.flip(1).int().argmax(1) - first))
    (top, height), (left, width) = spans
    return torch.stack((top, left, height, width), 1)


def _window(
    problem: Problem, state: _State, tag: int, side: Tensor, area: Tensor, *, over: bool = False
) -> _Window:
    """A window of `side` rows and about area / side columns at a random place of the room.

    over: it may reach over the room's edges, but not over the picture's.
    """
    _, _, h, w = _picture(problem.x)
    device = side.device
    top, left, down, across = state.room.unbind(1)
    height = side.long().minimum(torch.full_like(down, h) if over else down)
    width = (area / height).round().clamp_min(1).long() if h == 1 else height
    width = width.minimum(torch.full_like(across, w) if over else across)
    bottom, right = top + down, left + across
    if over:
        top, bottom = (top - height + 1).clamp_min(0), (bottom + height - 1).clamp_max(h)
        left, right = (left - width + 1).clamp_min(0), (right + width - 1).clamp_max(w)
    place = uniform(problem, tag, state.step, 2)
    top = top + (place[:, 0] * (bottom - top - height + 1)).long()
    left = left + (place[:, 1] * (right - left - width + 1)).long()

    def cell(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    row = torch.arange(h, device=device)[:, None] - cell(top)
    column = torch.arange(w, device=device) - cell(left)
    height, width = cell(height), cell(width)
    cells = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return _Window(cells, row, column, height, width)


def _pyramids(window: _Window, flipped: Tensor) -> Tensor:
    """Two opposite pyramids side by side in the window, one above the other where not flipped.

    A cell at Chebyshev distance k from its pyramid's centre has height 1/(k+1)^2 + 1/(k+2)^2 + ...
    up to the pyramid's edge (sec. 3.3, the update eta).
    """
    flipped = flipped | (window.height < 2)
    along = torch.where(flipped, window.column, window.row)
    across = torch.where(flipped, window.row, window.column)
    size = torch.where(flipped, window.width, window.height)
    breadth = torch.where(flipped, window.height, window.width)
    upper = along < size // 2
    span = torch.where(upper, size // 2, size - size // 2)
    along = torch.where(upper, along, along - size // 2)
    distance = torch.maximum((along - span // 2).abs(), (across - breadth // 2).abs())
    most = torch.maximum(span, breadth) // 2 + 1
    longest = int(max(window.cells.shape[2:])) + 2
    tail = 1.0 / torch.arange(1, longest + 1, device=distance.device).square()
    sums = torch.cat((tail.new_zeros(1), tail.cumsum(0)))
    height = sums[most.clamp(0, longest)] - sums[distance.clamp(0, longest)]
    value = height.clamp_min(0) * torch.where(upper, 1.0, -1.0)
    return torch.where(window.cells, value, 0.0)
