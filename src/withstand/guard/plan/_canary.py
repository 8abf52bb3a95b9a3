"""The new version beside a line, from the section canary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

from ...config import LineConfig, MarginConfig
from .._message import Upstream
from ..canary import MARGINS, Canary, Margin, Rollouts, Settings
from ._parts import Parts


def canary_of(
    name: str, line: LineConfig, upstream: Callable[[LineConfig, str | None], Upstream],
    rollouts: Rollouts, *, parts: Parts, room: int,
) -> Canary | None:  # fmt: skip
    """The canary of a line, None where it has none; its rollout goes on where it is the same one.

    upstream: the server at a URL. room: requests that it may have at one time.
    """
    told = line.canary
    if told is None:
        return None
    identity = identity_of(name, line)
    return Canary(
        upstream=upstream(line, told.upstream),
        rollout=parts.get("rollout", identity, lambda: rollouts.of(identity)),
        settings=Settings(
            steps=tuple(told.steps),
            margins={sli: _margin(sli, one) for sli, one in told.compare.items()},
            by_input=told.by == "input",
            slow=told.slow_seconds,
            alpha=told.alpha,
            least=told.step_seconds,
            patience=told.patience_seconds,
            hold=told.late == "hold",
            failures=told.failures,
        ),
        version=told.version,
        digest=told.weights,
        room=room,
    )


def identity_of(name: str, line: LineConfig) -> str:
    """A digest of which version stands beside which: another one of either begins anew."""
    told = line.canary
    assert told is not None
    names = [name, line.upstream, line.version, line.weights]
    names += [told.upstream, told.version, told.weights]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:32]


def _margin(sli: str, told: MarginConfig) -> Margin:
    return replace(MARGINS[sli], **told.model_dump(exclude_none=True))
