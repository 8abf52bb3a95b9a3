"""What gets past models of fraud, in rows and in money, and what a defence leaves of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from fraud_models import BUDGETS, DEFENCES, Case, area, bank, hardened, standard, trained
from measure import Rows, timed

from withstand import evaluate as measured
from withstand.data import Dataset
from withstand.evaluate import Report
from withstand.models import Model
from withstand.stats import Interval

Array = np.ndarray[Any, Any]


def compared(case: Case, seeds: Sequence[int]) -> Rows:
    """Each model with and without its defence on the weeks to test, which no choice has seen."""
    found, defence = _chosen(case.known)
    found += _tested(case, "trees", "scores", (0,), bank, hardened)
    defended = partial(trained, defence=defence)
    return found + _tested(case, "network", "gradients", seeds, standard, defended)


def _tested(case: Case, kind: str, access: Any, seeds: Sequence[int], *makes: Any) -> Rows:
    """A model and the defended one on the test weeks, and what the defence leaves."""
    test, found, both = case.attacked("test"), [], []
    for name, make in zip((kind, f"{kind}, defended"), makes, strict=True):
        work = timed(lambda: [make(case.known, seed=seed) for seed in seeds])  # noqa: B023
        read = _read(case, work.found, access, test)
        both.append(read)
        found.append(
            {"model": name, "weeks": "test", "seeds": len(seeds)}
            | _told(case.parts["test"], work.found, read)
            | {"CPU s to fit": round(work.cpu / len(seeds), 1)}
        )
    return [*found, _left(kind, test, *both)]


def _chosen(case: Case) -> tuple[Rows, str]:
    """The defence of networks that leaves least on the validation weeks, in the mean.

    Of rows fooled and money through at each budget, as shares of what is without it. A defence that
    costs a point of AUC is none.
    """
    part = case.attacked("validation")
    found, left = [], {}
    plain: list[_Read] = []
    for name in ("", *DEFENCES):
        make = partial(trained, defence=name) if name else standard
        work = timed(lambda: [make(case, seed=0)])  # noqa: B023
        read = _read(case, work.found, "gradients", part)
        plain = plain or read
        pairs = [
            (was.rate(what), now.rate(what))
            for was, now in zip(plain, read, strict=True)
            for what in ("fooled", "money")
        ]
        found.append(
            {"model": f"network, {name or 'as it is'}", "weeks": "validation", "seeds": 1}
            | _told(case.parts["validation"], work.found, read)
            | {"CPU s to fit": round(work.cpu, 1)}
        )
        if found[-1]["AUC"] > found[0]["AUC"] - 0.01:
            left[name] = float(np.mean([now / was for was, now in pairs if was]))
    del left[""]
    return found, min(left, key=lambda name: left[name])


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What came of N frauds at one budget: of each seed (S, N), which were caught, and fooled."""

    reports: tuple[Report, ...]
    stakes: Array
    caught: Array
    fooled: Array

    def rate(self, what: str, weights: Array | None = None) -> float:
        """Mean over seeds of the share of the caught frauds, or of their money, that is fooled."""
        weight = np.ones(len(self.stakes)) if what == "fooled" else self.stakes
        weight = weight if weights is None else weight * weights
        return float(((self.fooled * weight).sum(1) / (self.caught * weight).sum(1)).mean())

    def interval(self, what: str) -> str:
        """That share, with the mean ends of the seeds' intervals and the seeds' own range."""
        each = [one.fooling_rate if what == "fooled" else _money(one) for one in self.reports]
        mean = {end: float(np.mean([getattr(one, end) for one in each]))
                for end in ("value", "low", "high")}  # fmt: skip
        values = [100 * one.value for one in each]
        told = str(Interval(n=len(self.stakes), **mean))
        return told if len(each) == 1 else f"{told}, {min(values):.1f} to {max(values):.1f}"


def _money(report: Report) -> Interval:
    assert report.business is not None
    assert report.business.money is not None
    return report.business.money.rate


def _read(case: Case, models: list[Model], access: Any, part: Dataset) -> list[_Read]:
    """Every model under the standard evaluation, anew at each budget."""
    stakes = case.table.at_stake(part.x)
    found = []
    for budget in BUDGETS:
        reports = [
            measured.evaluate(
                model, part, case.threat(budget, access), preset="standard", batch_size=256
            )
            for model in models
        ]
        status = np.array([one.samples.status for one in reports])
        caught, fooled = status != "already wrong", status == "fooled"
        found.append(_Read(reports=tuple(reports), stakes=stakes, caught=caught, fooled=fooled))
    return found


def _told(part: Dataset, models: list[Model], read: list[_Read]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "AUC": round(float(np.mean([area(model, part) for model in models])), 4),
        "caught": f"{100 * read[0].caught.mean():.1f} %",
    }
    for budget, one in zip(BUDGETS, read, strict=True):
        for what in ("fooled", "money"):
            told[f"{what}, {budget:g} EUR"] = one.interval(what)
    return told


def _left(kind: str, part: Dataset, before: list[_Read], after: list[_Read]) -> dict[str, Any]:
    """What the defence leaves of each figure, with the 95 % of 2,000 draws of customers."""
    places = np.unique(part.groups, return_inverse=True)[1]
    draw = np.random.default_rng(0)
    counts = [np.bincount(draw.integers(places.max() + 1, size=places.max() + 1),
                          minlength=places.max() + 1)[places] for _ in range(2000)]  # fmt: skip
    told: dict[str, Any] = {"model": f"{kind}, what is left", "weeks": "test", "seeds": ""}
    told |= {"AUC": "", "caught": ""}
    for budget, was, now in zip(BUDGETS, before, after, strict=True):
        for what in ("fooled", "money"):
            drawn = np.array([[one.rate(what, count) for one in (was, now)] for count in counts])
            some = drawn[drawn[:, 0] > 0]
            shares = some[:, 1] / some[:, 0] if len(some) else [np.nan]
            low, high = np.quantile(shares, (0.025, 0.975))
            share = now.rate(what) / was.rate(what) if was.rate(what) else np.nan
            told[f"{what}, {budget:g} EUR"] = f"{share:.2f} [{low:.2f}, {high:.2f}]"
    return told | {"CPU s to fit": ""}
