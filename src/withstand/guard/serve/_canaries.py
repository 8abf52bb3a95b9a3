"""The new versions of a guard in service: what they are told, and what they tell."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from typing import Any, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from ..._errors import OperationError, WithstandError, listed
from .._guard import Guard
from ..canary import CANARY, CONTROL, PROBED, SECONDS, Canary, State, Verdict

_log = logging.getLogger("withstand.guard")
_COUNT = re.compile(r"\d{1,6}")
_NAME = re.compile(r"[A-Za-z0-9._:/-]{1,200}")
ORDERS = ("start", "rollback", "freeze", "resume", "promote")
OUTCOME = ("model", "sli", "arm", "source", "tried", "fooled", "both", "canary", "control")

FIGURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "arm_requests_total": ("Requests by arm of a canary, since it was started.", ("model", "arm")),
    "arm_errors_total": ("Requests that the model did not answer well.", ("model", "arm")),
    "arm_flagged_total": ("Flagged requests.", ("model", "arm")),
    "arm_latency_seconds": (
        "Time that the model takes, on the arms that are compared. A histogram.", ("model", "arm"),
    ),
    "canary_weight_ratio": ("Share of the traffic that a new version has.", ("model",)),
    "canary_state": ("1 for the state that a canary is in.", ("model", "state")),
    "canary_verdict": ("1 for what is known of a canary by now.", ("model", "verdict")),
}  # fmt: skip
"""What is told of each canary, after `withstand_`, and by which labels."""


class Canaries:
    """Those of whatever guard answers at present. tell: writes down in evidence what happened."""

    def __init__(
        self, guard: Callable[[], Guard], tell: Callable[[str, dict[str, Any]], bool]
    ) -> None:
        self._guard, self._tell = guard, tell

    def begin(self) -> None:
        """Listen to the rollouts, those of a new configuration too."""
        for name, canary in self._all():
            canary.rollout.tell = self._hearing(name, canary)

    def told(self) -> dict[str, Any]:
        """All that is known, by the name of the model, `*` for that of all others."""
        return {
            "models": {
                name: {
                    "version": canary.version,
                    "stable": line.version,
                    **canary.rollout.told(canary.settings),
                }
                for name, canary in self._all()
                for line in (self._guard().lines["" if name == "*" else name],)
            }
        }

    def order(self, verb: str, told: dict[str, str]) -> dict[str, Any]:
        """One of ORDERS; an `id` that was given before changes nothing.

        Raises OperationError where it cannot be done.
        """
        name, canary = self._named(told)
        who, why = told.get("who", "")[:200], told.get("why", "")[:1000]
        identity, rollout = _identity(told, "id", needed=False), canary.rollout
        new = (
            rollout.start(canary.settings, who, why, identity)
            if verb == "start"
            else getattr(rollout, verb)(who, why, identity)
        )
        return {"model": name, "new": new, "state": rollout.state, "weight": rollout.weight}

    def outcomes(self, told: dict[str, str]) -> dict[str, Any]:
        """Probes: `tried` and `fooled` of one arm, or those that `both` arms answered.

        Of pairs, `both`, `canary` and `control` say how often it happened in both arms, and in one
        alone. sli: fooled where nothing is said, or wrong. A `source` counts once. Raises
        OperationError for what cannot be.
        """
        name, canary = self._named(told)
        sli, arm = told.get("sli", "fooled"), told.get("arm", "")
        source = _identity(told, "source", needed=True)
        if sli not in PROBED or arm not in (CANARY, CONTROL, "pairs"):
            raise OperationError(
                f"arm is {arm[:20]!r} and sli {sli[:20]!r}; give canary, control or pairs, and "
                f"{' or '.join(PROBED)}"
            )
        tried = _count(told, "tried")
        if arm != "pairs":
            new = canary.rollout.outcomes(arm, sli, tried, _count(told, "fooled"), source)
        else:
            counts = [_count(told, one) for one in ("both", "canary", "control")]
            if sum(counts) > tried:
                raise OperationError(f"{sum(counts)} of {tried} pairs cannot be; count them anew")
            new = canary.rollout.pairs(sli, [*counts, tried - sum(counts)], source)
        if new:
            canary.rollout.consider(canary.settings)
        return {"model": name, "new": new, "state": canary.rollout.state}

    def consider(self) -> None:
        """Let each move, by what is known; to be called about once a second."""
        for name, canary in self._all():
            try:
                canary.rollout.consider(canary.settings)
            except WithstandError as error:
                _log.error("canary of %s: %s", name, error)

    def collect(self) -> Iterator[Metric]:
        """The figures, as prometheus_client asks for them."""
        counters = [
            _family(CounterMetricFamily, f"arm_{what}_total")
            for what in ("requests", "errors", "flagged")
        ]
        weight = _family(GaugeMetricFamily, "canary_weight_ratio")
        state = _family(GaugeMetricFamily, "canary_state")
        verdict = _family(GaugeMetricFamily, "canary_verdict")
        seconds = _family(HistogramMetricFamily, "arm_latency_seconds")
        for name, canary in self._all():
            rollout, label = canary.rollout, "" if name == "*" else name
            weight.add_metric((label,), rollout.weight / 100)
            for one in get_args(State):
                state.add_metric((label, one), one == rollout.state)
            # One that is off has no verdict and no sample: it must not look like a sound one.
            known = rollout.told(canary.settings)["verdict"]
            for word in get_args(Verdict) if known else ():
                verdict.add_metric((label, word), word == known)
            for arm, seen in rollout.arms.items():
                counts = (seen.requests, seen.errors, seen.flagged)
                for family, count in zip(counters, counts, strict=True):
                    family.add_metric((label, arm), count)
                total, buckets = 0, []
                for end, count in zip((*SECONDS, "+Inf"), seen.buckets, strict=True):
                    total += count
                    buckets.append((str(end), total))
                seconds.add_metric((label, arm), buckets, seen.seconds)
        yield from (*counters, weight, state, verdict, seconds)

    def _all(self) -> Iterator[tuple[str, Canary]]:
        for name, line in self._guard().lines.items():
            if line.canary is not None:
                yield name or "*", line.canary

    def _named(self, told: dict[str, str]) -> tuple[str, Canary]:
        found, name = dict(self._all()), told.get("model", "")
        name = name or (next(iter(found)) if len(found) == 1 else "")
        if name not in found:
            raise OperationError(
                f"model {name[:80]!r} has no canary; those that have one: {listed(found)}"
            )
        return name, found[name]

    def _hearing(self, name: str, canary: Canary) -> Callable[[dict[str, Any]], None]:
        def hear(told: dict[str, Any]) -> None:
            self._tell("canary", {"model": name, "version": canary.version, **told})

        return hear


def _family(kind: Callable[..., Any], name: str) -> Any:
    told, labels = FIGURES[name]
    return kind(f"withstand_{name.removesuffix('_total')}", told, labels=labels)


def _identity(told: dict[str, str], name: str, *, needed: bool) -> str:
    found = told.get(name, "")
    if (found or needed) and not _NAME.fullmatch(found):
        raise OperationError(f"{name} is missing or odd; give 1 to 200 letters, digits or ._:/-")
    return found


def _count(told: dict[str, str], name: str) -> int:
    found = told.get(name, "")
    if not _COUNT.fullmatch(found):
        raise OperationError(f"{name} is {found[:20]!r}; give a whole number as text")
    return int(found)
