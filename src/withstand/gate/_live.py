"""A gate that attacks by itself, and stops as soon as its limits are decided."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._version import __version__
from ..config import GateConfig
from ..evaluate import Cost, Progress, Setup, check_writable, evaluate, shown_first, weakest
from ..evidence import Corpus
from ..models import describe
from ..threat import ACCESS, Budget, techniques
from ._baseline import Array, Baseline
from ._judge import ATTACKED, Check, Gate, judge, least_trust, limits_of, outcome_of
from ._measured import Extra, Measured
from ._standing import standing
from ._tally import CONFIDENCE, Tally

_LEAST = 32
_AHEAD = 4


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How the samples are attacked, as `evaluate` takes it; seconds: for all of them."""

    preset: str = "standard"
    seed: int = 0
    batch_size: int = 64
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Live:
    """The gate, and what it found: examples of the data's shape (N, ...), and whom they fool."""

    gate: Gate
    x_adv: Array
    fooled: Array


def gate(
    setup: Setup,
    asked: GateConfig,
    *,
    baseline: Baseline | None = None,
    extra: Extra | None = None,
    effort: Effort | None = None,
    corpus: Corpus | str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Live:
    """Attack in random order until the limits are decided, at a false pass rate of at most 5 %.

    baseline: the last release, whose examples all samples are shown first, at 1 forward each.
    corpus: examples of earlier runs, shown as well, and what is found here is added.
    extra: figures from elsewhere, such as test coverage. Raises a WithstandError for what cannot be
    evaluated.
    """
    limits_of(asked)
    kept = Corpus(corpus) if isinstance(corpus, str | Path) else corpus
    return _Run(setup, asked, baseline, extra or {}, effort or Effort(), kept, progress).through()


@dataclass
class _Run:
    setup: Setup
    asked: GateConfig
    baseline: Baseline | None
    extra: Extra
    effort: Effort
    corpus: Corpus | None
    progress: Callable[[Progress], None] | None
    began: float = field(default_factory=time.monotonic)
    cpu: float = field(default_factory=time.process_time)

    def through(self) -> Live:
        """First who stands, then attacks on those until it is decided."""
        model, data, threat = self.setup.model, self.setup.data, self.setup.threat
        known = self._known()
        self.stood = standing(model, data, threat, known, self.effort.batch_size)
        order = np.random.default_rng(self.effort.seed).permutation(self.stood.rows)
        self.tally = Tally(
            standing=self.stood,
            order=order,
            digest=data.provenance.digest,
            threat={
                **threat.describe(),
                "techniques": [vars(technique) for technique in techniques(threat.access)],
            },
            provenance=self._provenance(),
            baseline=self.baseline,
            wanted=frozenset(limits_of(self.asked)),
            cost=Cost(forwards=self.stood.forwards),
        )
        self.x_adv = self.stood.x_adv
        checks = self._judged()
        while self.tally.left and not self._decided(checks) and not self._late():
            self._attack(self._next())
            checks = self._judged()
        return self._ended(checks)

    def _known(self) -> list[list[Array]]:
        """The examples of baseline and corpus whose attacker saw no more than this one."""
        model, data, threat = self.setup.model, self.setup.data, self.setup.threat
        baseline, access = self.baseline, threat.access
        known: list[list[Array]] = [[] for _ in range(len(data))]
        if baseline and ACCESS.index(baseline.access or access) >= ACCESS.index(access):
            known = baseline.of(data.x)
        if self.corpus is not None:
            check_writable(self.corpus.path)
            shown = replace(threat.within(model.domain), access=weakest(model.access, access))
            kept = shown_first(self.corpus, torch.from_numpy(data.x), shown)
            known = [[*before, *more] for before, more in zip(known, kept, strict=True)]
        return known

    def _judged(self) -> tuple[Check, ...]:
        return judge(self._measured(), self.asked)

    def _measured(self) -> Measured:
        return self.tally.measured().beside(self.extra)

    def _decided(self, checks: tuple[Check, ...]) -> bool:
        if outcome_of(checks) == "fail":
            return True
        if least_trust(self.asked) and not self.tally.parts:
            return False
        return not any(c.metric in ATTACKED and c.outcome == "inconclusive" for c in checks)

    def _late(self) -> bool:
        return self.effort.seconds is not None and self._seconds() >= self.effort.seconds

    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def _next(self) -> int:
        """How many to attack next: as many as decide if they fall as often as those before.

        The intervals hold whenever one stops, so that a bad guess costs nothing but time.
        """
        # The share of few that fell is not to be relied on too far.
        most = min(self.tally.left, max(_AHEAD * self.tally.tried, _AHEAD * _LEAST, _LEAST))
        low, high = 0, most
        while self._shares() and max(low, _LEAST) < high - 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._enough(middle) else (middle, high)
        return min(most, max(high, _LEAST))

    def _enough(self, more: int) -> bool:
        """Whether the limits would be decided after so many more attacks like those before."""
        return not any(
            self.tally.survey(n, more=more).plausible(share, CONFIDENCE)
            for n, share in self._shares()
        )

    def _shares(self) -> list[tuple[int, float]]:
        """The shares that limits ask to withstand, and of how many samples."""
        robust, fooled = self.asked.robust_accuracy, self.asked.fooling_rate
        right = self.stood.right
        shares = [] if robust is None or robust.min is None else [(len(right), robust.min)]
        if fooled is not None and fooled.max is not None:
            shares.append((int(right.sum()), 1 - fooled.max))
        return shares

    def _attack(self, count: int) -> None:
        tally, setup = self.tally, self.setup
        rows = tally.order[tally.tried : tally.tried + count]
        seconds = self.effort.seconds
        left = None if seconds is None else max(seconds - self._seconds(), 0.001)
        report = evaluate(
            setup.model,
            setup.data.take(rows),
            setup.threat.take(rows),
            preset=self.effort.preset,
            seed=self.effort.seed,
            surrogates=setup.surrogates,
            corpus=self.corpus,
            budget=Budget(seconds=left),
            batch_size=self.effort.batch_size,
            progress=self._tell(len(rows)),
        )
        tally.add(report.to_dict())
        spent = report.cost
        tally.cost = replace(
            tally.cost,
            forwards=tally.cost.forwards + spent.forwards,
            backwards=tally.cost.backwards + spent.backwards,
        )
        self.x_adv[rows] = report.x_adv

    def _tell(self, count: int) -> Callable[[Progress], None] | None:
        told, tally = self.progress, self.tally
        if told is None:
            return None
        first, last = tally.tried + 1, tally.tried + count
        at = f"samples {first:,} to {last:,} of at most {len(tally.order):,}"
        return lambda now: told(replace(now, stage=f"{at}: {now.stage}"))

    def _ended(self, checks: tuple[Check, ...]) -> Live:
        tally = self.tally
        status = tally.status()
        cost = replace(
            tally.cost,
            wall_seconds=self._seconds(),
            cpu_seconds=time.process_time() - self.cpu,
        )
        gate = Gate(
            checks=checks, measured=self._measured(), spent=vars(cost), samples={"status": status}
        )
        return Live(gate=gate, x_adv=self.x_adv, fooled=np.array([s == "fooled" for s in status]))

    def _provenance(self) -> dict[str, Any]:
        data = self.setup.data.provenance
        head = None if self.corpus is None else self.corpus.head
        return {
            "model": describe(self.setup.model),
            "surrogates": {name: describe(m) for name, m in self.setup.surrogates.items()},
            "data": {**vars(data), "shape": list(data.shape)},
            "corpus": None if head is None else {"version": head.number, "digest": head.digest},
            "preset": self.effort.preset,
            "seed": self.effort.seed,
            "batch_size": self.effort.batch_size,
            "versions": {
                "withstand": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }
