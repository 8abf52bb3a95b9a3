"""The new version beside a line: which requests are its, and how it did."""

from __future__ import annotations

from dataclasses import dataclass, field

from .._message import Answer, Headers, Upstream
from ..wire import RequestError
from ._rollout import Rollout
from ._settings import Settings
from ._tally import CANARY, CONTROL, STABLE

_OPEN = "open"


@dataclass(kw_only=True, eq=False)
class Canary:
    """A new version of a line's model, and the rollout that says how much of the traffic it has.

    room: requests that it may have at one time. What is beyond goes to the stable version rather
    than wait: of a slow canary nothing is left in a queue when it is rolled back.
    """

    upstream: Upstream
    rollout: Rollout
    settings: Settings = field(default_factory=Settings)
    version: str = ""
    digest: str = ""
    room: int = 64
    under_way: int = 0

    def arm(self, client: str, told: str, forced: str = "") -> str:
        """The arm of a request, by the client's id or by a digest of what it asks.

        forced: the arm that a permitted attack asks for; raises RequestError where it cannot have
        it, since an answer of another arm would be taken for this one's.
        """
        rollout = self.rollout
        if forced:
            if forced not in (CANARY, CONTROL) or not rollout.serving:
                raise RequestError(409, "arm", f"there is no arm {forced[:20]!r} at present")
            return forced
        if not rollout.weight:
            return STABLE
        by_input = self.settings.by_input or client == _OPEN
        return rollout.arm(told if by_input else client)

    def free(self, forced: bool) -> bool:
        """Whether it may be asked at this moment; raises RequestError for a pass that needs it."""
        state = self.rollout.state
        if state == "promoted" or (self.rollout.serving and self.under_way < self.room):
            return True
        if forced:
            raise RequestError(503, "arm", "the canary cannot be asked", [(b"retry-after", b"1")])
        return False

    async def ask(self, method: str, target: str, headers: Headers, body: bytes = b"") -> Answer:
        """What the new version answers; raises UpstreamError."""
        self.under_way += 1
        try:
            return await self.upstream.ask(method, target, headers, body)
        finally:
            self.under_way -= 1

    def close(self) -> None:
        """Let go of what is held open."""
        self.upstream.close()

    def saw(
        self, arm: str, *, status: int, seconds: float, flagged: bool | None,
        label: int | None = None, confidence: float | None = None,
    ) -> None:  # fmt: skip
        """A client's request; status: the model's, 0 for no answer, -1 where it was not asked."""
        self.rollout.saw(
            arm, self.settings, status=status, seconds=seconds, flagged=flagged, label=label,
            confidence=confidence,
        )  # fmt: skip
