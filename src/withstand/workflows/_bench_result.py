"""How near attacks came to the smallest change known, and what it cost them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..attacks import Attack, Curve
from ..evaluate import Cost
from ..stats import Interval, bootstrap, wilson
from ._bench_trail import Trail

BEST = "best of all"
NEAR = 1.05
_POINTS = 40


def optimality(distance: ArrayLike, best: ArrayLike, longest: float | None = None) -> float:
    """How near distances (n,) come to the best known (n,): 1 equal, 0 nothing found.

    1 - (area(attack) - area(best)) / (clean * longest - area(best)), with areas under the curve of
    accuracy by distance up to `longest`, the largest of the best if not given (Cina et al. 2025).
    0 stands for a sample that is wrong by itself, infinity for none found. NaN where
    the best leave no room to be worse, as with one sample.
    """
    distance, best = np.asarray(distance, np.float64), np.asarray(best, np.float64)
    if longest is None:
        longest = farthest(best)
    area, least = np.minimum(distance, longest).mean(), np.minimum(best, longest).mean()
    room = (best > 0).mean() * longest - least
    return float(1 - (area - least) / room) if room > 1e-12 * longest else float("nan")


def farthest(best: NDArray[Any]) -> float:
    """The largest finite distance; 0 without one."""
    return float(np.max(best[np.isfinite(best)], initial=0.0))


@dataclass(frozen=True, kw_only=True)
class Spent:
    """How far an attack is after so many forwards and backwards on each sample.

    near_best: share of the samples with a known mistake for which it has found one within 1.05
    times the smallest distance known; median_distance: of all samples, infinite without a success
    on half of them.
    """

    calls: int
    near_best: float
    median_distance: float


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackResult:
    """One attack's row.

    optimality: with a bootstrap interval over the samples, the best distances held; success: share
    of right samples with any mistake found; near_best: as at the end of `spent`; distance (N,) as
    in `Result`: 0 for a sample that is wrong by itself, infinite for one never fooled.
    """

    name: str
    settings: dict[str, Any]
    optimality: Interval
    success: Interval
    near_best: float
    median_distance: float
    cost: Cost
    distance: NDArray[np.float64]
    spent: tuple[Spent, ...]

    def curve(self) -> Curve:
        """Robust accuracy by distance."""
        return Curve(distance=self.distance)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; what was not found is null."""
        return {
            "name": self.name,
            "settings": {key: _plain(value) for key, value in self.settings.items()},
            "optimality": self.optimality.to_dict(),
            "success": self.success.to_dict(),
            "near_best": _plain(self.near_best),
            "median_distance": _plain(self.median_distance),
            "cost": vars(self.cost),
            "distance": [_plain(value) for value in self.distance.tolist()],
            "spent": [
                {name: _plain(value) for name, value in vars(point).items()} for point in self.spent
            ],
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackBench:
    """Attacks in one norm on the same samples and budget, the best first.

    The first of them, `best of all`, is the smallest distance that any of them found. calls: the
    most forwards and backwards on one sample. left_out: attacks that do not fit, or that could
    not be run, with the reason. threat and provenance hold plain values.
    """

    norm: str
    attacks: tuple[AttackResult, ...]
    clean_accuracy: Interval
    threat: dict[str, Any]
    calls: int
    seed: int
    left_out: dict[str, str]
    provenance: dict[str, Any]

    def __getitem__(self, name: str) -> AttackResult:
        """The row of an attack."""
        return next(row for row in self.attacks if row.name == name)

    @property
    def best(self) -> AttackResult:
        """The smallest distance that any attack found, for each sample."""
        return self.attacks[0]

    @property
    def strongest(self) -> AttackResult:
        """The attack with the highest optimality."""
        return self.attacks[1]

    @property
    def cheapest(self) -> AttackResult:
        """The attack with the fewest calls of those not distinguishable from the strongest.

        That is, whose distances a bootstrap of the pairs does not show to be longer on average.
        """
        longest = farthest(self.best.distance)
        shortest = np.minimum(self.strongest.distance, longest)
        equal = [
            row
            for row in self.attacks[1:]
            if bootstrap(np.minimum(row.distance, longest) - shortest).low <= 0
        ]
        return min(equal, key=lambda row: row.cost.forwards + row.cost.backwards)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "norm": self.norm,
            "calls": self.calls,
            "seed": self.seed,
            "clean_accuracy": self.clean_accuracy.to_dict(),
            "near": NEAR,
            "left_out": self.left_out,
            "attacks": [row.to_dict() for row in self.attacks],
            "threat": {key: _plain(value) for key, value in self.threat.items()},
            "provenance": self.provenance,
        }


def to_json(benches: Mapping[str, AttackBench]) -> str:
    """Benches by norm as JSON text."""
    content = {norm: bench.to_dict() for norm, bench in benches.items()}
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def judged(
    attacks: Mapping[str, Attack],
    trails: Mapping[str, Trail],
    costs: Mapping[str, Cost],
    right: NDArray[np.bool_],
    calls: int,
) -> tuple[AttackResult, ...]:
    """The rows, that of the best distances first and then by optimality.

    right (N,): the samples that were attacked, in the order of the trails.
    """
    every = tuple(trails.values())
    best = np.min([trail.distance for trail in every], axis=0)
    total = Cost(
        **{name: sum(vars(cost)[name] for cost in costs.values()) for name in vars(Cost())}
    )
    rows = [
        _row(name, dict(vars(attacks[name])), (trails[name],), costs[name], best, right, calls)
        for name in attacks
    ]
    rows.sort(key=lambda row: -np.nan_to_num(row.optimality.value, nan=-np.inf))
    together = _row(BEST, {}, every, total, best, right, calls)
    return (together, *rows)


def _row(
    name: str,
    settings: dict[str, Any],
    trails: tuple[Trail, ...],
    cost: Cost,
    best: NDArray[Any],
    right: NDArray[np.bool_],
    calls: int,
) -> AttackResult:
    distance = np.min([trail.distance for trail in trails], axis=0)
    whole, ideal = np.zeros(len(right)), np.zeros(len(right))
    whole[right], ideal[right] = distance, best
    known = np.isfinite(best)
    longest = farthest(best)

    def near(found: NDArray[Any]) -> float:
        return float((found[known] <= NEAR * best[known]).mean()) if known.any() else float("nan")

    def median(found: NDArray[Any]) -> float:
        every = np.zeros(len(right))
        every[right] = found
        return Curve(distance=every).median_distance

    def spent(after: int) -> Spent:
        found = np.min([trail.at(after) for trail in trails], axis=0)
        return Spent(calls=after, near_best=near(found), median_distance=median(found))

    grid = np.unique(np.geomspace(1, calls, _POINTS).round().astype(int)).tolist()
    return AttackResult(
        name=name,
        settings=settings,
        optimality=bootstrap(
            np.stack((whole, ideal), 1),
            lambda pairs: optimality(pairs[:, 0], pairs[:, 1], longest),
        ),
        success=wilson(int(np.isfinite(distance).sum()), len(distance)),
        near_best=near(distance),
        median_distance=median(distance),
        cost=cost,
        distance=whole,
        spent=tuple(spent(after) for after in grid) if len(trails) == 1 else (),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)
