"""Complete proofs for small networks: open neurons are split until none matters.

Branch and bound on the signs of ReLUs (Bunel et al. 2020), each part bounded with its splits as
constraints, whose multipliers are ascended beside the slopes (beta-CROWN, Wang et al. 2021).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ._activations import Lines
from ._alpha import ascended
from ._crown import Bounded, refined
from ._operations import Interval

_WIDTH = 64
# A bound so near to a value that the function takes is the minimum.
_NEAR = 1e-6
# So many times more steps where nothing is left to split.
_LAST = 30

Signs = dict[int, Tensor]


class _Parts(NamedTuple):
    """Parts of a region: lower bounds (P,), signs (P, ...) of neurons by node, 0 where not split,
    and how much is lost at each neuron that is open, (P, N) over all nodes."""

    least: Tensor
    signs: Signs
    lost: Tensor


def branched(
    bounded: Bounded, a: Tensor, *, enough: float | None, steps: int, parts: int
) -> Tensor:
    """A lower bound () of one linear function a (1, K) of one sample's scores over a box.

    It is the minimum up to 1e-6 unless it stops before: where the bound is above `enough` or an
    input is found that is not, and after so many `parts`.
    """
    sources = sorted({bounded.graph[at].inputs[0] for at in bounded.lines if _splits(bounded, at)})
    signs = {at: torch.zeros_like(bounded.boxes[at].lower) for at in sources}
    open_, reached = _bounded(bounded, a, signs, enough, steps)
    spent = 1
    while True:
        least = open_.least.min()
        if float(least) >= reached - _NEAR or spent >= parts:
            return least
        if enough is not None and (float(least) > enough or reached <= enough):
            return least
        worst = open_.least.argsort()[:_WIDTH]
        # A part without an open neuron is linear, and cannot be split; its bound stays.
        worst = worst[open_.lost[worst].amax(1) > 0]
        if not len(worst):
            return least
        rest = torch.ones_like(open_.least, dtype=torch.bool)
        rest[worst] = False
        halves = _halved(open_, worst)
        found, value = _bounded(bounded, a, halves, enough, steps)
        found = found._replace(least=torch.maximum(found.least, open_.least[worst].repeat(2)))
        reached, spent = min(reached, value), spent + len(found.least)
        open_ = _Parts(
            torch.cat((open_.least[rest], found.least)),
            {at: torch.cat((sign[rest], found.signs[at])) for at, sign in open_.signs.items()},
            torch.cat((open_.lost[rest], found.lost)),
        )


def _splits(bounded: Bounded, at: int) -> bool:
    line = bounded.lines[at]
    return isinstance(line, Lines) and line.free is not None


def _halved(parts: _Parts, rows: Tensor) -> Signs:
    """Both halves of some parts: the neuron that loses most once above and once below 0."""
    place = parts.lost[rows].argmax(1)
    halves, first = {}, 0
    for at, sign in parts.signs.items():
        both = sign[rows].flatten(1).repeat(2, 1)
        mine = (place >= first) & (place < first + both.shape[1])
        row = mine.nonzero()[:, 0]
        both[row, place[row] - first] = 1
        both[row + len(rows), place[row] - first] = -1
        halves[at] = both.reshape(-1, *sign.shape[1:])
        first += both.shape[1]
    return halves


def _bounded(
    bounded: Bounded, a: Tensor, signs: Signs, enough: float | None, steps: int
) -> tuple[_Parts, float]:
    """Bounds of parts given by signs, and the least value of the function at inputs tried."""
    count = len(next(iter(signs.values()))) if signs else 1
    part = bounded.take(torch.zeros(count, dtype=torch.long, device=a.device))
    empty = torch.zeros(count, dtype=torch.bool, device=a.device)
    for at, sign in signs.items():
        lower, upper = part.boxes[at]
        lower = torch.where(sign > 0, lower.clamp(min=0), lower)
        upper = torch.where(sign < 0, upper.clamp(max=0), upper)
        part.boxes[at] = Interval(lower, upper)
    part = refined(part)
    for at in signs:
        lower, upper = part.boxes[at]
        # By more than rounding, so that a value known exactly is no contradiction.
        empty |= (lower > upper + 1e-9).flatten(1).any(1)
        part.boxes[at] = Interval(lower, torch.maximum(lower, upper))
    owner = torch.arange(count, device=a.device)
    functions = a.expand(count, -1)
    seen: dict[int, Tensor] = {}
    part.least(part.graph.output, functions, owner, seen=seen)
    lost = [_lost(part, seen, at, sign) for at, sign in signs.items()]
    losing = torch.cat(lost, 1) if lost else a.new_zeros(count, 1)
    least = a.new_full((count,), torch.inf)
    # Where nothing can be split any more, only multipliers are left to find.
    for rows, most in ((losing.amax(1) > 0, steps), (losing.amax(1) == 0, _LAST * steps)):
        rows = (rows & ~empty).nonzero()[:, 0]
        if len(rows):
            known = {at: sign[rows] for at, sign in signs.items()}
            limit = None if enough is None else a.new_full((len(rows),), enough)
            least[rows] = ascended(
                part.take(rows),
                functions[rows],
                owner[: len(rows)],
                steps=most,
                enough=limit,
                signs=known,
            )
    x = torch.where(seen[0] > 0, part.reach.box.lower, part.reach.box.upper)
    values = (part.graph(x) * functions).sum(1)
    return _Parts(least, signs, losing), float(values.min())


def _lost(part: Bounded, seen: dict[int, Tensor], source: int, sign: Tensor) -> Tensor:
    """How far the lines around each open neuron let the bound fall, (P, n)."""
    total = torch.zeros_like(sign)
    lower, upper = part.boxes[source]
    for at, a in seen.items():
        line = part.lines.get(at)
        if isinstance(line, Lines) and line.free is not None and source in part.graph[at].inputs:
            below = a.clamp(min=0) * torch.minimum(upper, -lower)
            fall = below / 2 - a.clamp(max=0) * line.above[1]
            total = total + torch.where(line.free & (sign == 0), fall + 1e-12, 0.0)
    return total.flatten(1)
