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
from ._settings import PROBED, SEEN, Settings
from ._tally import CANARY, CONTROL, STABLE, Arm, Tally

State = Literal["off", "running", "frozen", "promoted", "rolled_back"]

_log = logging.getLogger("withstand.guard")
_WHOLE = 2**64
_WRITE = 5.0
# A machine that slept, or a loop that was blocked, has not watched.
_STRIDE = 5.0
_SOURCES = 5000
_ORDERS = 100
_FIRST = 100
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
        self.arms = {
            name: Arm(told.get("arms", {}).get(name)) for name in (CANARY, CONTROL, STABLE)
        }
        self.tallies = {name: Tally(told.get("tallies", {}).get(name)) for name in (*PROBED, *SEEN)}
        self.slow: float | None = told.get("slow")
        self.judged: dict[str, Judgement] = {}
        self._elapsed: float = told.get("elapsed", 0.0)
        self._sources: dict[str, None] = dict.fromkeys(told.get("sources", []))
        self._orders: dict[str, None] = dict.fromkeys(told.get("orders", []))
        self._first: list[float] = []
        self._streak = 0
        self._looked, self._written, self._kept = clock(), clock(), True
        self._weigh(float(told.get("weight", 0.0)))

    @property
    def serving(self) -> bool:
        """Whether the canary may be asked at all."""
        return self.state in ("running", "frozen", "promoted")

    def arm(self, text: str) -> str:
        """The arm of a client or an input."""
        place = self._places.get(text)
        if place is None:
            spread = self._spread.copy()
            spread.update(text.encode())
            place = int.from_bytes(spread.digest(), "little")
            if len(self._places) < _PLACES:
                self._places[text] = place
        if place < self._canary:
            return CANARY
        return CONTROL if place < self._control else STABLE

    def saw(
        self, arm: str, settings: Settings, *, status: int, seconds: float, flagged: bool | None
    ) -> None:
        """A request of a client on an arm; status: of the model's answer, 0 for none that came.

        One that was refused before the model was asked has status -1, and only its flag counts;
        flagged: None where that is not known.
        """
        seen = self.arms[arm]
        seen.requests += 1
        failed = status != -1 and not 0 < status < 400
        if flagged:
            seen.flagged += 1
        if failed:
            seen.errors += 1
        if arm == STABLE:
            return
        if flagged is not None:
            self.tallies["flagged"].saw(arm, flagged)
        if status == -1:
            return
        self.tallies["errors"].saw(arm, failed)
        if not failed:
            seen.took(seconds)
            self._saw_time(arm, seconds, settings)
        if arm == CANARY:
            # What a client did wrong must not roll a version back by itself.
            self._streak = self._streak + 1 if status == 0 or status >= 500 else 0
            if self._streak >= settings.failures and self.state in ("running", "frozen"):
                self._back("guard", f"{self._streak} failures of the canary in a row")

    def _saw_time(self, arm: str, seconds: float, settings: Settings) -> None:
        slow = settings.slow if settings.slow is not None else self.slow
        if slow is not None:
            self.tallies["slow"].saw(arm, seconds > slow)
        elif arm == CONTROL:
            # Known before what it is applied to, so that it cannot favour an arm.
            self._first.append(seconds)
            if len(self._first) >= _FIRST:
                self.slow = sorted(self._first)[int(0.9 * _FIRST)]
                self._first = []

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
            self.tallies[sli].saw(arm, one)
        self.arms[arm].probed(sli, tried, happened)
        self._write()
        return True

    def pairs(self, sli: str, counts: list[int], source: str) -> bool:
        """Probes that both arms answered: in both, the canary alone, the control alone, neither.

        False for a source that was told already; raises OperationError while nothing runs.
        """
        if not self._takes(source):
            return False
        both, canary, control, _ = counts
        self.tallies[sli].add(counts)
        self.arms[CANARY].probed(sli, sum(counts), both + canary)
        self.arms[CONTROL].probed(sli, sum(counts), both + control)
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
        self.arms = {name: Arm() for name in self.arms}
        self.tallies = {name: Tally() for name in self.tallies}
        self._sources, self.slow, self._first, self.judged = {}, None, [], {}
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
            self.judged = judge(self.tallies, settings)
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
        judged = judge(self.tallies, settings) if self.state != "off" else {}
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

    def _step(self, settings: Settings) -> int:
        return sum(step < self.weight for step in settings.steps)

    def _advance(self, settings: Settings) -> None:
        if overall(self.judged) == "pass" and self._elapsed >= settings.least:
            rest = [step for step in settings.steps if step > self.weight]
            weight = rest[0] if rest else 100.0
            state: State = "promoted" if weight >= 100 else "running"
            for name in SEEN:
                self.tallies[name] = Tally()
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
        self._canary, self._control = share, min(2 * share, _WHOLE)
        key = hashlib.blake2b(self.id.encode(), key=self._secret, digest_size=32).digest()
        self._places: dict[str, int] = {}
        self._spread = hashlib.blake2b(key=key, digest_size=8)

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
        self._written = self._clock()
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
                    "slow": self.slow,
                    "sources": list(self._sources),
                    "orders": list(self._orders),
                    "tallies": {name: one.counts for name, one in self.tallies.items()},
                    "arms": {name: one.kept() for name, one in self.arms.items()},
                }
            )
            self._kept = True
        except ConfigError as error:
            if self._kept:
                _log.error("%s", error)
            self._kept = False


def _shown(arm: Arm) -> dict[str, Any]:
    answered = sum(arm.buckets)
    return {
        "requests": arm.requests,
        "errors": arm.errors,
        "flagged": arm.flagged,
        "mean_seconds": round(arm.seconds / answered, 6) if answered else None,
        "p50_seconds": arm.quantile(0.5),
        "p95_seconds": arm.quantile(0.95),
        **{
            name: {"tried": counts[0], "happened": counts[1]} for name, counts in arm.probes.items()
        },
    }
