"""What a configuration asks for, held against what the scope permits."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .._errors import ConfigError, OperationError, ThreatError, listed
from ..config import RedteamConfig
from ._scope import Scope

if TYPE_CHECKING:
    from ..attacks import Attack

TRANSFER = "transfer"
"""The attack that shows examples of surrogates."""


@dataclass(frozen=True, kw_only=True)
class Probing:
    """One attack of a campaign, ready to run; attack None: examples of surrogates are shown."""

    name: str
    attack: Attack | None


def endpoint(config: RedteamConfig) -> tuple[str, str]:
    """Address and model of the target; raises ConfigError where none is named."""
    if config.target is None or config.target.url is None:
        raise ConfigError(
            "redteam.target is missing; add it, e.g. target: {kind: http, url: "
            "http://127.0.0.1:8100, http: {name: digits}}"
        )
    parts = urlsplit(config.target.url)
    name = config.target.http.name if config.target.http else None
    if name is None and parts.path.endswith("/infer"):
        name = parts.path.split("/")[-2]
    return f"{parts.scheme}://{parts.netloc}", name or ""


def check_permitted(config: RedteamConfig, scope: Scope, now: float) -> None:
    """Raise OperationError for the first thing that the scope does not permit."""
    url, model = endpoint(config)
    if not scope.allows(url, model):
        told = listed(f"{one.url} ({listed(one.models)})" for one in scope.targets)
        raise OperationError(f"{url} ({model or 'no model'}) is not in the scope, which has {told}")
    for one in config.attacks:
        if one.name not in scope.attacks:
            raise OperationError(
                f"attack {one.name} is not in the scope, which has {listed(scope.attacks)}"
            )
    if not scope.reaches(config.norm, config.eps):
        told = listed(f"{one.norm} {one.eps:g}" for one in scope.regions)
        raise OperationError(
            f"{config.norm} {config.eps:g} is not in the scope, which reaches {told}"
        )
    if why := scope.closed(now):
        raise OperationError(why)


def probings(config: RedteamConfig, scope: Scope) -> list[Probing]:
    """The attacks as they are run; raises ConfigError for one that cannot be made."""
    from ..attacks import registry

    known, found = registry(), []
    for one in config.attacks:
        if one.name == TRANSFER:
            found.append(Probing(name=TRANSFER, attack=None))
            continue
        kind = known.get(one.name)
        if kind is None or kind.needs not in ("scores", "labels"):
            able = [name for name, each in known.items() if each.needs in ("scores", "labels")]
            raise ConfigError(
                f"redteam.attacks names {one.name}; an endpoint is attacked with {TRANSFER} or one "
                f"of {listed(able, 20)}"
            )
        options = dict(one.options)
        # Some plan their steps by how many there will be.
        if "queries" in {field.name for field in fields(kind)}:  # type: ignore[arg-type]
            options.setdefault("queries", scope.caps.per_input - 1)
        try:
            found.append(Probing(name=one.name, attack=kind(**options)))
        except (TypeError, ThreatError) as error:
            raise ConfigError(f"redteam.attacks: {one.name}: {error}; see its settings") from None
    return found
