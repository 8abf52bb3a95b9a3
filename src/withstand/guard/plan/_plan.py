"""A guard from the section `guard` of withstand.yaml."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...config import GuardConfig, LineConfig, RateConfig
from .._guard import Guard
from .._journal import Journal, NoJournal
from .._ladder import Ladder, Standing
from .._lines import Line, Pace, Share
from .._message import Upstream
from .._metrics import Metrics
from .._mitigations import Mitigations
from ..access import Access, Experiments, Keys, Quota, Rate, Secrets
from ..canary import Rollouts
from ..upstream import Declared, Patience, upstream_of
from ..wire import Limits
from ._canary import canary_of, identity_of
from ._journal import check_redacted, journal_of
from ._parts import Parts, stamp
from ._rules import rules_of
from ._sensors import sensors_of

_SHARE = 0.75


class Learned(NamedTuple):
    """What a model server told of itself: raw tensors or not, and the model's inputs.

    inputs: None where it has told nothing of the model yet.
    """

    binary: bool = False
    inputs: tuple[Declared, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A configuration, and what it takes to make a guard of it.

    folder: what paths in it are relative to. policy: a digest of it, for evidence.
    """

    config: GuardConfig
    folder: Path
    secrets: Secrets
    parts: Parts
    metrics: Metrics
    policy: str = ""

    def guard(self, learned: Mapping[str, Learned]) -> Guard:
        """The guard; learned: by the name of the line. Raises WithstandError."""
        config, parts = self.config, self.parts
        rate, held = config.quota, self.folder / config.state / "mitigations.json"
        quota = None if rate is None else parts.get("quota", rate, lambda: Quota(_rate(rate)))
        limits = config.limits
        each = limits.requests_each or math.ceil(_SHARE * limits.requests)
        return Guard(
            {name: self.line(name, learned.get(name, Learned())) for name in self.names()},
            access=Access(self.keys(), quota, most=each),
            journal=self._journal(),
            metrics=self.metrics,
            secret=self.secrets.get("fingerprint"),
            mitigations=parts.get("mitigations", held, lambda: Mitigations(held)),
            experiments=Experiments(self.secrets.get("experiment")),
        )

    def names(self) -> Iterator[str]:
        """The names of the lines; the one named "" is for all other models."""
        yield from self.config.models
        if self.config.other_models or not self.config.models:
            yield ""

    def keys(self) -> Keys | None:
        """The API keys as their file has them now, None where the guard is open."""
        if self.config.keys is None:
            return None
        path = self.folder / self.config.keys
        return self.parts.get(
            "keys", (path, stamp(path)), lambda: Keys(path, self.secrets.get("pepper"))
        )

    def upstream(self, line: LineConfig, url: str | None) -> Upstream:
        """The server at a URL; lines share its connections."""
        limits = self.config.limits
        patience = Patience(
            connect=limits.connect_seconds,
            total=limits.answer_seconds,
            body=limits.answer,
            connections=limits.upstream_connections,
        )
        files = {"ca": line.ca, "certificate": line.certificate}
        if url is None or url.startswith("http://"):
            files = {}
        places = {key: self.folder / name for key, name in files.items() if name is not None}
        return self.parts.get(
            "upstream", (url, patience, places), lambda: upstream_of(url or "", patience, **places)
        )

    def line(self, name: str, learned: Learned) -> Line:
        """The line of a model, with what its server told."""
        line, get = self.config.line(name), self.parts.get
        limits, rate, away = self.config.limits, line.throttle, line.reroute
        ladder = Ladder(
            actions=tuple(line.ladder.actions), climb=line.ladder.climb, window=line.ladder.window
        )
        share = 0.0 if away is None else away.share
        return Line(
            mode=line.mode,
            upstream=self.upstream(line, line.upstream),
            limits=Limits(
                body=limits.body, inputs=limits.inputs, elements=limits.elements, text=limits.text
            ),
            raw=learned.binary if line.binary is None else line.binary,
            version=line.version,
            digest=line.weights,
            policy=self.policy,
            rules=tuple(rules_of(line, learned.inputs or (), self.folder)),
            sensors=tuple(
                sensors_of(name, line, folder=self.folder, secrets=self.secrets, parts=self.parts)
            ),
            standing=get("standing", (name, ladder), lambda: Standing(ladder)),
            reroute=None if away is None else self.upstream(line, away.upstream),
            share=get("share", (name, share), lambda: Share(share)),
            delay=line.delay,
            throttled=None
            if rate is None
            else get("throttle", (name, rate), lambda: Quota(_rate(rate))),
            digits=line.digits,
            top=line.top,
            pace=get("pace", name, Pace),
            canary=canary_of(
                name, line, self.upstream, self.rollouts(), parts=self.parts,
                room=limits.upstream_connections,
            ),
        )  # fmt: skip

    def rollouts(self) -> Rollouts:
        """What is known of new versions; raises ConfigError where its file is damaged."""
        path = self.folder / self.config.state / "canary.json"
        secret = self.secrets.get("fingerprint")
        return self.parts.get("canary", path, lambda: Rollouts(path, secret))

    def identities(self) -> list[str]:
        """What tells the new versions of this configuration from others, each beside its line."""
        lines = {name: self.config.line(name) for name in self.names()}
        return [identity_of(name, line) for name, line in lines.items() if line.canary is not None]

    def _journal(self) -> Journal:
        told = self.config.evidence
        if told is None:
            return NoJournal()
        check_redacted(told, map(self.config.line, self.names()), self.folder)
        return self.parts.get("evidence", told, lambda: journal_of(told, self.folder, self.secrets))


def _rate(told: RateConfig) -> Rate:
    return Rate(requests=told.requests, seconds=told.seconds, burst=told.burst)
