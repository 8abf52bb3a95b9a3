"""Searches for adversarial examples through the guard, and benign queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
import torch
from guarded import Array, Guarded, calibrated, images, victim
from measure import Rows

from withstand import attacks
from withstand.guard.queries import calibrate
from withstand.models import FunctionModel
from withstand.stats import clopper_pearson, upper_bound
from withstand.threat import L2, Linf, Region, Threat

QUERIES, ATTACKED = 500, 100
BOTH = frozenset(("queries", "search"))
ALL = (*sorted(BOTH), "spectrum")
COUNTED = ("asked", "any", *ALL)


class Found(NamedTuple):
    """At which query of an attack on one input each sensor flagged first, and when it fooled; 0
    for never within the budget. asked: queries in all."""

    queries: int
    search: int
    spectrum: int
    fooled: int
    asked: int

    @property
    def first(self) -> int:
        """The query of the first flag."""
        flags = (self.queries, self.search, self.spectrum)
        return min((one for one in flags if one), default=0)


class SeenError(Exception):
    """The sensors of sequences have flagged: what the attack does afterwards is not asked."""


@dataclass(frozen=True, kw_only=True)
class Plain(attacks.Square):
    """Square that begins with the input itself: whoever knows of the stripes' pattern."""

    def init(self, problem: Any) -> Any:
        """The state of Square, without stripes."""
        return super().init(problem)._replace(best=problem.x)


def attack_of(name: str) -> attacks.Attack:
    """Our attack by name, with the budget."""
    kinds = {
        "Square": attacks.Square,
        "Square without stripes": Plain,
        "NES": attacks.NES,
        "HopSkipJump": attacks.HopSkipJump,
        "Boundary": attacks.BoundaryAttack,
    }
    return kinds[name](queries=QUERIES)


def watched(
    guarded: Guarded, name: str, region: Region, x: torch.Tensor, y: torch.Tensor,
    who: Iterator[tuple[str, str]], between: Callable[[], None] = lambda: None,
) -> Found:  # fmt: skip
    """An attack on one input (1, ...) through the guard, until the sequence has been flagged by
    both of its sensors."""
    attack = attack_of(name)
    first = dict.fromkeys(ALL, 0)
    count = fooled = 0

    def answer(batch: Array) -> Array:
        nonlocal count, fooled
        if all(first[sensor] for sensor in BOTH):
            raise SeenError
        found = []
        for row in batch:
            between()
            scores = guarded.ask(row[None], *next(who))
            assert scores is not None
            count += 1
            for sensor in guarded.flags:
                first[sensor] = first[sensor] or count
            inside = isinstance(region, L2) or bool(np.abs(row - x[0].numpy()).max() <= region.eps)
            if not fooled and inside and scores.argmax() != int(y[0]):
                fooled = count
            found.append(scores[0])
        told = np.stack(found)
        return told.argmax(1) if attack.needs == "labels" else told

    model = FunctionModel(answer, returns=attack.needs)
    threat = Threat(region=region, access=attack.needs, queries=QUERIES)
    try:
        attacks.run(attack, model, x, y, threat, batch_size=1)
    except SeenError:
        pass
    except Exception as error:
        if not isinstance(error.__cause__, SeenError):
            raise
    return Found(first["queries"], first["search"], first["spectrum"], fooled, count)


def _share(flagged: list[int], n: int) -> str:
    seen = [one for one in flagged if one]
    where = f", query {np.median(seen):.0f} (at most {max(seen)})" if seen else ""
    return f"{clopper_pearson(len(seen), n)}{where}"


def _row(what: dict[str, Any], found: list[Found], norm: str) -> dict[str, Any]:
    # In L2 without a limit an attack has an adversarial example from the start, however far.
    early = [one for one in found if one.fooled and not 0 < one.first <= one.fooled]
    long = [one for one in found if one.queries or one.asked >= 20]
    return {
        **what,
        "inputs": len(found),
        "any": _share([one.first for one in found], len(found)),
        "spectrum": _share([one.spectrum for one in found], len(found)),
        "queries": _share([one.queries for one in found], len(found)),
        "search": _share([one.search for one in found], len(found)),
        "of those that asked 20 or were seen": _share([one.queries for one in long], len(long)),
        "fooled before": "-" if norm == "L2" else str(len(early)),
    }


CASES: tuple[tuple[str, str, float], ...] = (
    ("mnist", "standard", 0.1),
    ("mnist", "adversarial", 0.3),
    ("cifar10", "", 8 / 255),
)


def seen() -> Rows:
    """Our black-box attacks through the guard: at which of 500 queries they are flagged.

    The first 100 test images from number 500 on (CIFAR-10: in a fixed order) that the network gets
    right, each attacked with a key and a tenant of its own, so that nothing is known of the client.
    Calibrated on training images for one false alarm in 10,000. spectrum: a pattern in a single
    query. queries: near copies in the requests alone. search: what is answered to them, too. any:
    of these. In brackets the exact 95 % interval, then
    the median query of the first flag. Linf attacks end when they succeed: fooled before is how
    many did before a flag. hidden: each query of the attack among 19 benign ones under the same
    key. over N keys: of one tenant, in turn.
    """
    rows: Rows = []
    for data, network, eps in CASES:
        more = () if data == "mnist" else ("Square without stripes",)
        for name in ("Square", *more, "NES", "HopSkipJump", "Boundary"):
            linf = name in ("Square", *more, "NES")
            region: Region = Linf(eps) if linf else L2(np.inf)
            what = {"network": f"{data} {network}".strip(), "attack": name,
                    "region": f"Linf {eps:.3g}" if linf else "L2", "how": "one key"}  # fmt: skip
            rows.append(_row(what, _attacked(data, network, name, region), what["region"]))
            print(rows[-1], flush=True)
    for name in ("Square", "HopSkipJump"):
        region = Linf(0.1) if name == "Square" else L2(np.inf)
        for how, keys, hidden in (("over 10 keys", 10, 0), ("over 100 keys", 100, 0),
                                  ("hidden", 1, 19)):  # fmt: skip
            found = _attacked("mnist", "standard", name, region, keys=keys, hidden=hidden)
            what = {"network": "mnist standard", "attack": name,
                    "region": "Linf 0.1" if name == "Square" else "L2", "how": how}  # fmt: skip
            rows.append(_row(what, found, what["region"]))
            print(rows[-1], flush=True)
    return rows


def _attacked(
    data: str, network: str, name: str, region: Region, *, keys: int = 1, hidden: int = 0
) -> list[Found]:
    net, x, y = victim(data, network)
    guarded = Guarded(net, calibrated(data))
    # Not those that are attacked, nor those of the calibration.
    others = cycle(images(data)[50_000:60_000] if data == "mnist" else images(data)[16_000:20_000])
    found = []
    for i in range(ATTACKED if not hidden else 30):

        def between(tenant: str = f"t{i}") -> None:
            for _ in range(hidden):
                guarded.ask(next(others)[None], tenant, "0")

        who = cycle([(f"t{i}", str(key)) for key in range(keys)])
        found.append(watched(guarded, name, region, x[i : i + 1], y[i : i + 1], who, between))
    guarded.close()
    return found


def benign() -> Rows:
    """False alarms on benign queries through the guard: MNIST and CIFAR-10, all images held out.

    Half of the images calibrates for 1 in 10,000 and the other half is asked about, then the other
    way round: each of the 68,000 images of MNIST and 28,000 of CIFAR-10 is asked about once in each
    order. one client: as the files have them. kinds: a client for each class, who asks about
    nothing else, all of one tenant. shuffled: 20 clients of four tenants, in turn. at most: the
    Clopper-Pearson bound at 95 %; between the orders the images are the same, so that `all` is not
    as sure as its number says.
    """
    alarms = {order: dict.fromkeys(COUNTED, 0) for order in ("one client", "kinds", "shuffled")}
    for data, network in (("mnist", "standard"), ("cifar10", "")):
        net, _, _ = victim(data, network)
        x = images(data)
        kinds = _classes(net, x)
        for half in (0, 1):
            calibration = calibrate(x[half::2], seed=half)
            print(data, half, calibration.threshold, calibration.bound, flush=True)
            shown, kind = x[1 - half :: 2], kinds[1 - half :: 2]
            for order, told in alarms.items():
                guarded = Guarded(net, calibration)
                for row, tenant, key in _stream(order, kind):
                    guarded.ask(shown[row : row + 1], tenant, key)
                    told["asked"] += 1
                    told["any"] += bool(guarded.flags)
                    for sensor in guarded.flags:
                        told[sensor] += 1
                guarded.close()
                print(data, half, order, told, flush=True)
    return told_of(alarms)


def told_of(alarms: dict[str, dict[str, int]]) -> Rows:
    """Rows from queries and alarms, by order."""
    rows: Rows = []
    everything = {name: sum(told[name] for told in alarms.values()) for name in COUNTED}
    for order, told in {**alarms, "all": everything}.items():
        row: dict[str, Any] = {"order": order, "benign queries": told["asked"]}
        for name in COUNTED[1:]:
            most = 1e4 * float(upper_bound(told[name], told["asked"], 0.05))
            row[f"alarms, {name}"] = f"{told[name]}, at most {most:.2f} in 10,000"
        rows.append(row)
    return rows


def _classes(net: torch.nn.Module, x: Array) -> Array:
    with torch.no_grad():
        found = [net(torch.from_numpy(part)).argmax(1) for part in np.array_split(x, 100)]
    return torch.cat(found).numpy()


def _stream(order: str, kinds: Array) -> Iterator[tuple[int, str, str]]:
    rows = np.arange(len(kinds))
    if order == "kinds":
        rows = np.argsort(kinds, kind="stable")
    if order == "shuffled":
        rows = np.random.default_rng(0).permutation(rows)
    for number, row in enumerate(rows.tolist()):
        if order == "shuffled":
            yield row, f"t{number % 4}", str(number % 20)
        else:
            yield row, "t", str(kinds[row]) if order == "kinds" else "0"
