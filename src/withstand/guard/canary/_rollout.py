"""One new version on its way in: its state, its share of the traffic, and what moves it."""

from __future__ import annotations

import hashlib
import logging
import random
import secrets
import time
from collections.abc import Callable
from typing import Any, Literal

from ..._errors import ConfigError, OperationError
from ._judge import Judgement, judge, overall
from ._settings import PROBED, Settings
from ._tally import CANARY, CONTROL, STABLE, Arm, Tally
from ._traffic import Traffic

State = Literal["off", "running", "frozen", "promoted", "rolled_back"]

_log = logging.getLogger("withstand.guard")
_WHOLE = 2**64
_WRITE = 5.0
# A machine that slept, or a loop that was blocked, has not watched.
_STRIDE = 5.0
_SOURCES = 5000
_ORDERS = 100
_PLACES = 10_000


class Rollout:
    """A version between 0 and 100 percent: `off`, `running`, `frozen`, `promoted`, `rolled_back`.

    A text is at one place in [0, 1) for as long as the rollout lasts: below the weight it is the
    canary's, in the next stretch of the same length the control arm's, else plainly stable. So a
    rising weight only brings further ones to the canary. Beyond 50 % the control arm is what is
    left.

    told: what was kept. keep: writes it down, or raises ConfigError. secret: so that nobody can
    choose an arm. clock: one that is never set; wall: seconds since 1970, only shown. tell: hears
    of every change. To be used from one event loop.
    """

    def __init__(
        self,
        told: dict[str, Any] | None = None,
        *,
        keep: Callable[[dict[str, Any]], None] = lambda told: None,
        secret: bytes | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        told = told or {}
        self._keep, self._clock, self._wall = keep, clock, wall
        self._secret = secret or secrets.token_bytes(32)
        self.tell: Callable[[dict[str, Any]], None] = lambda told: None
        self.state: State = told.get("state", "off")
        self.id: str = told.get("id", "")
        self.since: float = told.get("since", wall())
        self.why: str = told.get("why", "")
        self.who: str = told.get("who", "")
        self._traffic = Traffic(told)
        self._probes = {name: Tally(told.get("tallies", {}).get(name)) for name in PROBED}
        self.judged: dict[str, Judgement] = {}
        self._elapsed: float = told.get("elapsed", 0.0)
        self._sources: dict[str, None] = dict.fromkeys(told.get("sources", []))
        self._orders: dict[str, None] = dict.fromkeys(told.get("orders", []))
        self._streak = 0
        self._looked, self._written, self._kept = clock(), clock(), True
        self._weigh(float(told.get("weight", 0.0)))

    @property
    def serving(self) -> bool:
        """Whether the canary may be asked at all."""
        return self.state in ("running", "frozen", "promoted")

    @property
    def arms(self) -> dict[str, Arm]:
        """What was seen of each arm since the rollout began."""
        self._traffic.settle()
        return self._traffic.arms

    @property
    def tallies(self) -> dict[str, Tally]:
        """Pairs of what happens or not: of probes since it began, of traffic since its step did."""
        self._traffic.settle()
        return {**self._probes, **self._traffic.tallies}

    def arm(self, text: str) -> str:
        """The arm of a client or an input."""
        place = self._places.get(text)
        if place is None:
            # With the key before it, which is as good as keyed, and one block less.
            place = hashlib.blake2b(self._key + text.encode()).digest()
            if len(self._places) < _PLACES:
                self._places[text] = place
        if place < self._canary:
            return CANARY
        return CONTROL if place < self._control else STABLE

    def saw(
        self, arm: str, settings: Settings, *, status: int, seconds: float, flagged: bool | None,
        label: int | None = None, confidence: float | None = None,
    ) -> None:  # fmt: skip
        """A request of a client on an arm; status: of the model's answer, 0 for none that came.

        One that was refused before the model was asked has status -1, and only its flag counts;
        flagged: None where that is not known. label, confidence: the class of the answer's first
        row, and its score, where there are such.
        """
        self._traffic.saw(arm, status, seconds, flagged, settings.slow, label, confidence)
        if arm == CANARY and status != -1:
            # What a client did wrong must not roll a version back by itself.
            if 0 < status < 500:
                self._streak = 0
                return
            self._streak += 1
            if self._streak >= settings.failures and self.state in ("running", "frozen"):
                self._back("guard", f"{self._streak} failures of the canary in a row")

    def outcomes(self, arm: str, sli: str, tried: int, happened: int, source: str) -> bool:
        """Probes of one arm, fooled or wrong; False for a source that was told already.

        They are paired with the other arm's at random. Raises OperationError while nothing runs.
        """
        if not 0 <= happened <= tried:
            raise OperationError(f"{happened} of {tried} probes cannot be; give the counts anew")
        if not self._takes(source):
            return False
        each = [True] * happened + [False] * (tried - happened)
        random.shuffle(each)
        for one in each:
            self._probes[sli].saw(arm, one)
        self._traffic.arms[arm].probed(sli, tried, happened)
        self._write()
        return True

    def pairs(self, sli: str, counts: list[int], source: str) -> bool:
        """Probes that both arms answered: in both, the canary alone, the control alone, neither.

        False for a source that was told already; raises OperationError while nothing runs.
        """
        if not self._takes(source):
            return False
        both, canary, control, _ = counts
        self._probes[sli].add(counts)
        self._traffic.arms[CANARY].probed(sli, sum(counts), both + canary)
        self._traffic.arms[CONTROL].probed(sli, sum(counts), both + control)
        self._write()
        return True

    def start(self, settings: Settings, who: str, why: str, order: str = "") -> bool:
        """Begin at the first step, with nothing known; False where that was ordered already.

        Raises OperationError where it is frozen or promoted.
        """
        if order in self._orders or self.state == "running":
            return False
        self._must("off", "rolled_back")
        self.id = secrets.token_hex(8)
        self._traffic, self._probes = Traffic(), {name: Tally() for name in PROBED}
        self._sources, self.judged = {}, {}
        self._raise(settings.steps[0], "running", who, why, order)
        return True

    def freeze(self, who: str, why: str, order: str = "") -> bool:
        """Stay at this weight until told otherwise; raises OperationError where nothing runs."""
        if order in self._orders or self.state == "frozen":
            return False
        self._must("running")
        self._become("frozen", who, why, order)
        return True

    def resume(self, who: str, why: str, order: str = "") -> bool:
        """Go on from where it was frozen, with new patience; raises OperationError elsewhere."""
        if order in self._orders or self.state == "running":
            return False
        self._must("frozen")
        self._elapsed = 0.0
        self._become("running", who, why, order)
        return True

    def promote(self, who: str, why: str, order: str = "") -> bool:
        """Give it all traffic, whatever was shown: a person's word; OperationError elsewhere."""
        if order in self._orders or self.state == "promoted":
            return False
        self._must("running", "frozen")
        self._raise(100.0, "promoted", who, why, order)
        return True

    def rollback(self, who: str, why: str, order: str = "") -> bool:
        """Give all traffic back to the stable version, from this moment on; False if it has it."""
        if order in self._orders or self.state in ("rolled_back", "off"):
            return False
        self._back(who, why, order)
        return True

    def consider(self, settings: Settings) -> None:
        """Look at what is known, and move; to be called about once a second."""
        now = self._clock()
        stride, self._looked = min(max(0.0, now - self._looked), _STRIDE), now
        if self.state in ("running", "frozen"):
            self.judged = self._judge(settings)
            failed = [name for name, one in self.judged.items() if one.verdict == "fail"]
            if failed:
                self._back("guard", f"worse in {', '.join(failed)}")
            elif self.state == "running":
                self._elapsed += stride
                self._advance(settings)
        if not self._kept or (self.serving and now - self._written >= _WRITE):
            self._write()

    def told(self, settings: Settings) -> dict[str, Any]:
        """All that is known, as plain values."""
        judged = self._judge(settings) if self.state != "off" else {}
        verdicts = {"off": "", "promoted": "pass", "rolled_back": "fail"}
        return {
            "state": self.state,
            "weight": self.weight,
            "step": self._step(settings),
            "steps": list(settings.steps),
            "since": self.since,
            "step_seconds": round(self._elapsed, 1),
            "verdict": verdicts.get(self.state) or (overall(judged) if judged else ""),
            "who": self.who,
            "why": self.why,
            "kept": self._kept,
            "arms": {name: _shown(arm) for name, arm in self.arms.items()},
            "compared": {name: one.told() for name, one in judged.items()},
        }

    def _judge(self, settings: Settings) -> dict[str, Judgement]:
        return judge({**self.tallies, "labels": self._traffic.labels}, settings)

    def _step(self, settings: Settings) -> int:
        return sum(step < self.weight for step in settings.steps)

    def _advance(self, settings: Settings) -> None:
        if overall(self.judged) == "pass" and self._elapsed >= settings.least:
            rest = [step for step in settings.steps if step > self.weight]
            weight = rest[0] if rest else 100.0
            state: State = "promoted" if weight >= 100 else "running"
            self._traffic.anew()
            self._raise(weight, state, "guard", f"not worse in {', '.join(self.judged)}")
        elif self._elapsed >= settings.patience:
            why = f"no verdict within {settings.patience:g} s of serving"
            if settings.hold:
                self._become("frozen", "guard", why)
            else:
                self._back("guard", why)

    def _raise(self, weight: float, state: State, who: str, why: str, order: str = "") -> None:
        """A higher weight: in memory first, so that a restart is never above what was served.

        Where it cannot be written down, it is taken back.
        """
        before, was = self.weight, self.state
        self._weigh(weight)
        self._elapsed, self._streak = 0.0, 0
        self._become(state, who, why, order)
        if not self._kept:
            self._weigh(before)
            self._orders.pop(order, None)
            self._become("frozen" if was == "running" else was, "guard", "it could not be written")
            raise OperationError("the canary's state cannot be written; see the guard's log")

    def _back(self, who: str, why: str, order: str = "") -> None:
        """To weight 0, in memory first: whatever comes of the rest, no request goes there now."""
        self._weigh(0.0)
        self._become("rolled_back", who, why, order)

    def _become(self, state: State, who: str, why: str, order: str = "") -> None:
        self.state, self.who, self.why, self.since = state, who, why, self._wall()
        if order:
            self._orders[order] = None
            while len(self._orders) > _ORDERS:
                del self._orders[next(iter(self._orders))]
        self._write()
        _log.warning("canary: %s at %g %%, by %r: %r", state, self.weight, who, why)
        shown = {name: one.told() for name, one in self.judged.items()}
        self.tell(
            {
                "state": state, "weight": self.weight, "who": who, "why": why, "rollout": self.id,
                "compared": shown,
            }
        )  # fmt: skip

    def _weigh(self, weight: float) -> None:
        self.weight = weight
        share = int(weight / 100 * _WHOLE)
        self._canary, self._control = _end(share), _end(2 * share)
        self._key = hashlib.blake2b(self.id.encode(), key=self._secret, digest_size=32).digest()
        self._places: dict[str, bytes] = {}

    def _must(self, *states: State) -> None:
        if self.state not in states:
            raise OperationError(
                f"the canary is {self.state}; this is for one that is {' or '.join(states)}"
            )

    def _takes(self, source: str) -> bool:
        if self.state not in ("running", "frozen"):
            raise OperationError(f"the canary is {self.state}; start it before it is probed")
        if source in self._sources:
            return False
        if len(self._sources) >= _SOURCES:
            raise OperationError(
                f"{_SOURCES} sources of probes were told; join outcomes to larger batches"
            )
        self._sources[source] = None
        return True

    def _write(self) -> None:
        self._written, seen = self._clock(), self._traffic.kept()
        try:
            self._keep(
                {
                    "state": self.state,
                    "weight": self.weight,
                    "id": self.id,
                    "since": self.since,
                    "who": self.who,
                    "why": self.why,
                    "elapsed": self._elapsed,
                    "sources": list(self._sources),
                    "orders": list(self._orders),
                    **seen,
                    "tallies": {name: one.counts for name, one in self.tallies.items()},
                }
            )
            self._kept = True
        except ConfigError as error:
            if self._kept:
                _log.error("%s", error)
            self._kept = False


def _end(share: int) -> bytes:
    """What digests are below that have a place in this share of _WHOLE."""
    return share.to_bytes(8, "big") if share < _WHOLE else b"\xff" * 9


def _shown(arm: Arm) -> dict[str, Any]:
    answered = sum(arm.buckets)
    return {
        "requests": arm.requests,
        "errors": arm.errors,
        "flagged": arm.flagged,
        "mean_seconds": round(arm.seconds / answered, 6) if answered else None,
        "p50_seconds": arm.quantile(0.5),
        "p95_seconds": arm.quantile(0.95),
        "labels": arm.labels,
        "mean_confidence": round(arm.confidence / arm.confident, 6) if arm.confident else None,
        "unsure": {"tried": arm.sure + arm.unsure, "happened": arm.unsure},
        **{
            name: {"tried": counts[0], "happened": counts[1]} for name, counts in arm.probes.items()
        },
    }
