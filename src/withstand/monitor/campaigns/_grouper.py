"""Flagged requests put together: those of a client, and those of clients that do the same."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ...config import CampaignsConfig
from ..store import Campaign
from ._distinct import Distinct

_CLIENTS = 4096
_SHOWN = 20
_EACH = 4


class Seen(NamedTuple):
    """A decision, as far as campaigns are about it.

    wall: seconds since 1970. sensors: those that flagged it. experiment: whose probe it is.
    """

    wall: float
    key: str
    model: str
    sensors: tuple[str, ...] = ()
    fingerprint: str = ""
    tenant: str = ""
    experiment: str = ""


class _Who(NamedTuple):
    model: str
    key: str
    experiment: str


class _What(NamedTuple):
    model: str
    sensor: str
    experiment: str


@dataclass(slots=True, kw_only=True)
class _Client:
    """A client since the first flag of its window, and the campaign that it belongs to."""

    start: float
    inputs: Distinct
    requests: int = 0
    flagged: int = 0
    campaign: str = ""
    sensors: Counter[str] = field(default_factory=Counter)
    shown: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _Crowd:
    """All clients of a model in a window: how much they asked, and how much of it was flagged."""

    start: float
    requests: int = 0
    flagged: Counter[str] = field(default_factory=Counter)
    inputs: dict[str, Distinct] = field(default_factory=dict)
    keys: dict[str, Distinct] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class _Open:
    """A campaign that goes on."""

    told: Campaign
    lead: str
    inputs: Distinct
    keys: Distinct


class Grouper:
    """Makes campaigns of flagged requests, in bounded memory however many come.

    The same input counts once. A client's flags are a campaign when enough different inputs were
    flagged, and they are enough of its requests: a busy client with false alarms is none. Clients
    that the same sensor flags are one campaign together when they are enough, and their flags
    enough of the model's requests; it then takes in those that they had, under the first one's id.
    Probes of an experiment are apart from everybody else's requests.
    """

    def __init__(self, config: CampaignsConfig, *, most: int = _CLIENTS) -> None:
        self._config, self._most = config, most
        self._clients: OrderedDict[_Who, _Client] = OrderedDict()
        self._crowds: dict[tuple[str, str], _Crowd] = {}
        self._open: dict[str, _Open] = {}
        self._wide: dict[_What, str] = {}
        self._changed: dict[str, Campaign] = {}
        self._fresh: set[str] = set()

    def see(self, seen: Seen) -> None:
        """Take in a decision."""
        who = _Who(seen.model, seen.key, seen.experiment)
        crowd = self._crowd(seen)
        crowd.requests += 1
        client = self._clients.get(who)
        if not seen.sensors:
            if client is not None:
                client.requests += 1
                self._count(client.campaign, requests=1)
            return
        client = self._client(who, client, seen)
        client.requests += 1
        client.flagged += 1
        client.sensors.update(seen.sensors)
        client.inputs.add(seen.fingerprint)
        if len(client.shown) < _EACH and seen.fingerprint not in client.shown:
            client.shown.append(seen.fingerprint)
        lead = client.sensors.most_common(1)[0][0]
        self._note(crowd, seen, lead)
        what = _What(seen.model, lead, seen.experiment)
        if client.campaign not in self._open:
            client.campaign = self._wide.get(what, "")
            if client.campaign:
                self._join(self._open[client.campaign], who, client, seen)
            elif self._is_wide(crowd, lead):
                self._widen(what, crowd, seen.wall)
            elif self._is_campaign(client):
                client.campaign = self._begin(who, client, lead, seen)
            return
        one = self._open[client.campaign]
        self._grow(one, seen)
        if client.campaign not in self._wide.values():
            # What flags a client may change, and with it whom it belongs to.
            one.lead = lead
            if self._is_wide(crowd, lead):
                self._widen(what, crowd, seen.wall)

    def settle(self, now: float) -> None:
        """End the campaigns that are quiet, and forget clients and crowds that are.

        One that was flagged just now goes on until the next time, so that nobody misses it.
        """
        for identity, one in list(self._open.items()):
            if now - one.told.last > self._config.quiet and identity not in self._fresh:
                self._end(identity)
                self._forget(identity)
        over = now - max(self._config.window, self._config.quiet)
        for who, client in list(self._clients.items()):
            if client.campaign not in self._open and client.start < over:
                del self._clients[who]
        for place, crowd in list(self._crowds.items()):
            if crowd.start < over:
                del self._crowds[place]

    def shift(self, seconds: float) -> None:
        """Somebody has set the clock: what was seen is as old as it was before."""
        for one in self._open.values():
            told = one.told
            one.told = replace(told, first=told.first + seconds, last=told.last + seconds)
            self._changed[told.id] = one.told
        for client in self._clients.values():
            client.start += seconds
        for crowd in self._crowds.values():
            crowd.start += seconds

    @property
    def stirred(self) -> bool:
        """Whether a campaign has changed since `changed` was asked."""
        return bool(self._changed)

    def changed(self) -> list[Campaign]:
        """The campaigns that have changed since this was asked last, as they are now."""
        found, self._changed = list(self._changed.values()), {}
        self._fresh.clear()
        return found

    def __len__(self) -> int:
        """Clients that are remembered."""
        return len(self._clients)

    def snapshot(self) -> dict[str, Any]:
        """All of it as plain values, to go on from after a restart."""
        return {
            "clients": [
                [*who, one.start, one.requests, one.flagged, one.campaign, one.sensors,
                 one.shown, one.inputs.kept]
                for who, one in self._clients.items()
            ],
            "crowds": [
                [*place, one.start, one.requests, one.flagged,
                 {name: kept.kept for name, kept in one.inputs.items()},
                 {name: kept.kept for name, kept in one.keys.items()}]
                for place, one in self._crowds.items()
            ],
            "open": [
                [identity, one.lead, one.inputs.kept, one.keys.kept]
                for identity, one in self._open.items()
            ],
            "wide": [[*what, identity] for what, identity in self._wide.items()],
        }  # fmt: skip

    def restore(self, told: dict[str, Any], campaigns: Iterable[Campaign]) -> None:
        """Go on from a snapshot; campaigns: those that were open then."""
        known = {one.id: one for one in campaigns}
        for identity, lead, inputs, keys in told["open"]:
            if identity in known:
                self._open[identity] = _Open(
                    told=known[identity], lead=lead, inputs=Distinct(kept=inputs),
                    keys=Distinct(kept=keys),
                )  # fmt: skip
        for model, sensor, experiment, identity in told["wide"]:
            if identity in self._open:
                self._wide[_What(model, sensor, experiment)] = identity
        for model, key, experiment, start, requests, flagged, campaign, *rest in told["clients"]:
            sensors, shown, kept = rest
            self._clients[_Who(model, key, experiment)] = _Client(
                start=start, inputs=Distinct(self._config.flags, kept), requests=requests,
                flagged=flagged, campaign=campaign, sensors=Counter(sensors), shown=shown,
            )  # fmt: skip
        for model, experiment, start, requests, flagged, inputs, keys in told["crowds"]:
            self._crowds[model, experiment] = _Crowd(
                start=start, requests=requests, flagged=Counter(flagged),
                inputs={n: Distinct(self._config.flags, kept) for n, kept in inputs.items()},
                keys={n: Distinct(self._config.clients, kept) for n, kept in keys.items()},
            )  # fmt: skip

    def _crowd(self, seen: Seen) -> _Crowd:
        place = (seen.model, seen.experiment)
        crowd = self._crowds.get(place)
        if crowd is None or not 0 <= seen.wall - crowd.start < self._config.window:
            crowd = self._crowds[place] = _Crowd(start=seen.wall)
        return crowd

    def _client(self, who: _Who, client: _Client | None, seen: Seen) -> _Client:
        fresh = client is None or (
            client.campaign not in self._open
            and not 0 <= seen.wall - client.start < self._config.window
        )
        if client is None or fresh:
            client = _Client(start=seen.wall, inputs=Distinct(self._config.flags))
            self._clients[who] = client
        self._clients.move_to_end(who)
        if len(self._clients) > self._most:
            self._clients.popitem(last=False)
        return client

    def _note(self, crowd: _Crowd, seen: Seen, lead: str) -> None:
        crowd.flagged[lead] += 1
        crowd.inputs.setdefault(lead, Distinct(self._config.flags)).add(seen.fingerprint)
        crowd.keys.setdefault(lead, Distinct(self._config.clients)).add(seen.key)

    def _is_campaign(self, client: _Client) -> bool:
        # The first flag has opened the window, and tells nothing of how many there are in it.
        rest = max(1, client.requests - 1)
        return (
            len(client.inputs) >= self._config.flags
            and (client.flagged - 1) / rest >= self._config.share
        )

    def _is_wide(self, crowd: _Crowd, lead: str) -> bool:
        return (
            len(crowd.keys[lead]) >= self._config.clients
            and len(crowd.inputs[lead]) >= self._config.flags
            and crowd.flagged[lead] / crowd.requests >= self._config.share
        )

    def _begin(self, who: _Who, client: _Client, lead: str, seen: Seen) -> str:
        inputs, keys = Distinct(kept=client.inputs.kept), Distinct()
        keys.add(who.key)
        told = Campaign(
            id=_name(*who, str(client.start)), model=who.model, kind="client",
            first=client.start, last=seen.wall, tenant=seen.tenant, keys=(who.key,),
            inputs=tuple(client.shown), requests=client.requests, flagged=client.flagged,
            distinct=len(inputs), sensors=dict(client.sensors), experiment=who.experiment,
        )  # fmt: skip
        self._open[told.id] = _Open(told=told, lead=lead, inputs=inputs, keys=keys)
        self._changed[told.id] = told
        self._fresh.add(told.id)
        return told.id

    def _widen(self, what: _What, crowd: _Crowd, wall: float) -> None:
        """Make one campaign of all clients that one sensor flags on a model."""
        same = [
            one
            for one in self._open.values()
            if (one.told.model, one.lead, one.told.experiment) == what
        ]
        same.sort(key=lambda one: one.told.first)
        if same:
            kept = same[0]
            kept.told = replace(kept.told, kind="distributed", tenant="")
        else:
            told = Campaign(
                id=_name(*what, str(crowd.start)), model=what.model, kind="distributed",
                first=float("inf"), last=0.0, clients=0, experiment=what.experiment,
            )  # fmt: skip
            kept = _Open(told=told, lead=what.sensor, inputs=Distinct(), keys=Distinct())
            self._open[told.id] = kept
        for other in same[1:]:
            for number in other.inputs.kept:
                kept.inputs.take(number)
            for number in other.keys.kept:
                kept.keys.take(number)
            kept.told = _joined(kept.told, other.told)
            self._end(other.told.id)
        gone = {one.told.id for one in same[1:]}
        for who, client in self._clients.items():
            if (who.model, who.experiment) != (what.model, what.experiment):
                continue
            if client.campaign in gone:
                client.campaign = kept.told.id
            elif client.campaign not in self._open and (
                client.sensors.most_common(1)[0][0] == what.sensor
            ):
                client.campaign = kept.told.id
                self._adopt(kept, who, client)
        kept.told = replace(kept.told, last=max(kept.told.last, wall))
        self._wide[what] = kept.told.id
        self._told(kept)

    def _adopt(self, into: _Open, who: _Who, client: _Client) -> None:
        into.keys.add(who.key)
        for number in client.inputs.kept:
            into.inputs.take(number)
        told = into.told
        into.told = replace(
            told,
            first=min(told.first, client.start),
            keys=(*told.keys, who.key)[:_SHOWN], inputs=(*told.inputs, *client.shown)[:_SHOWN],
            requests=told.requests + client.requests, flagged=told.flagged + client.flagged,
            sensors=dict(Counter(told.sensors) + client.sensors),
        )  # fmt: skip

    def _join(self, into: _Open, who: _Who, client: _Client, seen: Seen) -> None:
        self._adopt(into, who, client)
        into.told = replace(into.told, last=max(into.told.last, seen.wall))
        self._told(into)

    def _grow(self, one: _Open, seen: Seen) -> None:
        one.inputs.add(seen.fingerprint)
        told, more = one.told, Counter(one.told.sensors)
        more.update(seen.sensors)
        shown = told.inputs
        if len(shown) < _SHOWN and seen.fingerprint not in shown:
            shown = (*shown, seen.fingerprint)
        one.told = replace(
            told, last=max(told.last, seen.wall), requests=told.requests + 1,
            flagged=told.flagged + 1, sensors=dict(more), inputs=shown,
        )  # fmt: skip
        self._told(one)

    def _count(self, identity: str, *, requests: int) -> None:
        one = self._open.get(identity)
        if one is not None:
            one.told = replace(one.told, requests=one.told.requests + requests)
            self._changed[identity] = one.told

    def _told(self, one: _Open) -> None:
        one.told = replace(one.told, clients=len(one.keys), distinct=len(one.inputs))
        self._changed[one.told.id] = one.told
        self._fresh.add(one.told.id)

    def _forget(self, identity: str) -> None:
        for who in [who for who, one in self._clients.items() if one.campaign == identity]:
            del self._clients[who]

    def _end(self, identity: str) -> None:
        one = self._open.pop(identity)
        self._changed[identity] = replace(one.told, open=False)
        self._wide = {what: name for what, name in self._wide.items() if name != identity}


def _joined(one: Campaign, other: Campaign) -> Campaign:
    return replace(
        one,
        first=min(one.first, other.first), last=max(one.last, other.last),
        keys=(*one.keys, *other.keys)[:_SHOWN], inputs=(*one.inputs, *other.inputs)[:_SHOWN],
        requests=one.requests + other.requests, flagged=one.flagged + other.flagged,
        sensors=dict(Counter(one.sensors) + Counter(other.sensors)),
    )  # fmt: skip


def _name(*parts: str) -> str:
    return "c-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
