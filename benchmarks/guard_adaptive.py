"""Attacks that adapt to being refused: they widen their steps until they are let through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from guarded import Array, Guarded, calibrated, victim
from measure import Rows

from withstand.guard import Ladder
from withstand.stats import clopper_pearson

QUERIES, ATTACKED = 1000, 20
NEVER = 10**9


class Ended(NamedTuple):
    """Whether an input was fooled, how many queries that took, and how many were refused."""

    fooled: bool
    asked: int
    refused: int


class OverError(Exception):
    """The budget is spent, or the input is fooled."""


@dataclass(kw_only=True)
class Victim:
    """What an attack may ask about one input, and how often; counts, and knows when it is over.

    far: the change (C, H, W) to its size, which must be at most eps to count.
    """

    ask: Callable[[Array], Array | None]
    x: Array
    y: int
    eps: float
    far: Callable[[Array], float]
    asked: int = 0
    refused: int = 0
    fooled: bool = False

    def scores(self, x: Array) -> Array | None:
        """Scores (K,) of an input (C, H, W), None where it is refused."""
        if self.asked >= QUERIES:
            raise OverError
        self.asked += 1
        found = self.ask(x[None])
        if found is None:
            self.refused += 1
            return None
        if found[0].argmax() != self.y and self.far(x - self.x) <= self.eps * (1 + 1e-5):
            self.fooled = True
            raise OverError
        return found[0]

    def margin(self, x: Array) -> float | None:
        """The probability of the class less that of the next, None where it is refused."""
        found = self.scores(x)
        return None if found is None else float(found[self.y] - np.delete(found, self.y).max())


def square(victim: Victim, rng: np.random.Generator, *, adapts: bool) -> None:
    """Random search with squares in Linf; the side grows by a fifth with each refusal, and shrinks
    slowly while there is none. A refusal at the largest side starts from new stripes."""
    c, h, w = victim.x.shape
    best, best_margin, side = victim.x, np.inf, 0.4 * h
    while True:
        if best_margin == np.inf:
            change = victim.eps * rng.choice([-1, 1], (c, 1, w)) * np.ones((c, h, w))
        else:
            size = int(np.clip(round(side), 1, h))
            top, left = rng.integers(0, h - size + 1), rng.integers(0, w - size + 1)
            change = best - victim.x
            change[:, top : top + size, left : left + size] = victim.eps * rng.choice(
                [-1, 1], (c, 1, 1)
            )
        moved = np.clip(victim.x + change, 0, 1).astype(np.float32)
        margin = victim.margin(moved)
        if margin is None:
            if adapts and side < h:
                side = min(h, 1.2 * side)
            elif adapts:
                best_margin, side = np.inf, 0.4 * h
            continue
        side = max(1.0, 0.99 * side)
        if margin < best_margin:
            best, best_margin = moved, margin


def nes(victim: Victim, rng: np.random.Generator, *, adapts: bool) -> None:
    """Estimated gradients in Linf; the width of the differences and the step grow by half with each
    refusal, up to the radius, and fall slowly while there is none."""
    point, width, step = victim.x, 0.1 * victim.eps, 0.2 * victim.eps
    while True:
        slope = np.zeros_like(point)
        for _ in range(10):
            noise = rng.choice([-1.0, 1.0], point.shape).astype(np.float32)
            pair = []
            for sign in (1, -1):
                moved = point + sign * width * noise
                moved = np.clip(moved, victim.x - victim.eps, victim.x + victim.eps)
                pair.append(victim.margin(np.clip(moved, 0, 1).astype(np.float32)))
                if pair[-1] is None and adapts:
                    width = min(victim.eps, 1.5 * width)
            if pair[0] is not None and pair[1] is not None:
                slope += (pair[0] - pair[1]) * noise
                width = max(0.01 * victim.eps, 0.98 * width)
        moved = np.clip(point - step * np.sign(slope), victim.x - victim.eps, victim.x + victim.eps)
        moved = np.clip(moved, 0, 1).astype(np.float32)
        if victim.margin(moved) is None and adapts:
            step = min(2 * victim.eps, 1.5 * step)
        else:
            point = moved


def hopskipjump(victim: Victim, rng: np.random.Generator, starts: Array, *, adapts: bool) -> None:
    """From labels alone, in L2: along the border by estimated normals. With each refusal the probes
    go further out by half; a search on a line ends where it is refused, on its adversarial side."""
    point = next(one for one in starts if (found := victim.scores(one)) is not None
                 and found.argmax() != victim.y)  # fmt: skip
    reach = 1.0
    for number in range(1, NEVER):
        point = _to_border(victim, point, adapts=adapts)
        distance = float(np.linalg.norm(point - victim.x))
        width = reach * distance / np.sqrt(victim.x.size)
        noises, sides = [], []
        for _ in range(int(30 * number**0.5)):
            noise = rng.standard_normal(point.shape).astype(np.float32)
            noise /= np.linalg.norm(noise)
            found = victim.scores(np.clip(point + width * noise, 0, 1).astype(np.float32))
            if found is not None:
                noises.append(noise)
                sides.append(1.0 if found.argmax() != victim.y else -1.0)
            elif adapts:
                width *= 1.5
                reach *= 1.5
        normal = np.zeros_like(point)
        if noises:
            # Less their mean, unless all are on one side (Chen et al. 2020, eq. 16).
            weights = np.asarray(sides) - (np.mean(sides) if len(set(sides)) > 1 else 0)
            normal = np.tensordot(weights, np.stack(noises), 1)
        normal /= max(float(np.linalg.norm(normal)), 1e-12)
        step = distance / number**0.5
        for _ in range(10):
            moved = np.clip(point + step * normal, 0, 1).astype(np.float32)
            found = victim.scores(moved)
            if found is not None and found.argmax() != victim.y:
                point = moved
                break
            step = step * 1.5 if found is None and adapts and step < distance else step / 2


def _to_border(victim: Victim, point: Array, *, adapts: bool) -> Array:
    low, high = 0.0, 1.0
    for _ in range(8):
        middle = (low + high) / 2
        found = victim.scores(((1 - middle) * victim.x + middle * point).astype(np.float32))
        if found is None and adapts:
            break
        if found is not None and found.argmax() != victim.y:
            high = middle
        else:
            low = middle
    return ((1 - high) * victim.x + high * point).astype(np.float32)


BLOCK = Ladder(actions=("block",), climb=NEVER)
OUT = Ladder(actions=("block",))
COARSE = Ladder(actions=("tag", "coarsen"))
GUARDS: dict[str, dict[str, Any] | None] = {
    "off": None,
    "refuses what is flagged": {"actions": ("block", "block"), "ladder": BLOCK},
    "refuses, and all after 50 flags": {"actions": ("block", "block"), "ladder": OUT},
    "only makes coarser: one digit": {"actions": ("coarsen", "coarsen"), "ladder": COARSE},
    "only makes coarser: the class": {
        "actions": ("coarsen", "coarsen"), "ladder": COARSE, "digits": 0
    },
}  # fmt: skip
ADAPTS = {
    "refuses what is flagged": (False, True),
    "refuses, and all after 50 flags": (True,),
}
CASES = (
    ("Square", "standard", 0.1),
    ("Square", "standard", 0.2),
    ("NES", "standard", 0.2),
    ("HopSkipJump", "standard", 3.0),
)


def adapting() -> Rows:
    """Attacks on MNIST that adapt to refusals, as OARS does (Feng et al. 2023): 1,000 queries.

    The first 20 test images from number 500 on that the network gets right, each with a key of its
    own. adapts: whoever is refused widens squares, differences, steps and probes, and starts again
    where that does not help. Square and NES see probabilities and count in Linf, HopSkipJump sees
    labels and counts with an L2 distance of at most 3. queries: of those that fooled. refused: of
    all queries. Refusing what is flagged, and nothing else, is what a client with any number of
    tenants meets; the default ladder shuts a key out after 50 flags. Where answers are only made
    coarser, nothing tells an attack that it is seen.
    """
    rows: Rows = []
    for name, network, eps in CASES:
        for guard, told in GUARDS.items():
            if name == "HopSkipJump" and guard.startswith("only"):
                continue  # which sees only classes anyway
            for adapts in ADAPTS.get(guard, (False,)):
                found = _all(name, network, eps, told, adapts=adapts)
                fooled = [one for one in found if one.fooled]
                median = f"{np.median([one.asked for one in fooled]):.0f}" if fooled else "-"
                share = sum(one.refused for one in found) / sum(one.asked for one in found)
                rows.append(
                    {
                        "attack": name,
                        "network": network,
                        "eps": eps,
                        "guard": guard,
                        "adapts": "yes" if adapts else "no",
                        "fooled": str(clopper_pearson(len(fooled), len(found))),
                        "queries, median": median,
                        "refused": f"{100 * share:.0f} %",
                    }
                )
                print(rows[-1], flush=True)
    return rows


def _all(
    name: str, network: str, eps: float, told: dict[str, Any] | None, *, adapts: bool
) -> list[Ended]:
    net, x, y = victim("mnist", network)
    guarded = Guarded(
        net, None if told is None else calibrated("mnist"), mode="enforce", **(told or {})
    )
    ended = []
    for i in range(ATTACKED):
        rng = np.random.default_rng(i)

        def ask(asked: Array, who: str = f"t{i}") -> Array | None:
            return guarded.ask(asked, who)

        linf = name != "HopSkipJump"
        asking = Victim(
            ask=ask, x=x[i].numpy(), y=int(y[i]), eps=eps,
            far=lambda d, linf=linf: float(np.abs(d).max() if linf else np.linalg.norm(d)),
        )  # fmt: skip
        try:
            if name == "Square":
                square(asking, rng, adapts=adapts)
            elif name == "NES":
                nes(asking, rng, adapts=adapts)
            else:
                hopskipjump(asking, rng, x[rng.permutation(len(x))].numpy(), adapts=adapts)
        except OverError:
            pass
        ended.append(Ended(asking.fooled, asking.asked, asking.refused))
    guarded.close()
    return ended
