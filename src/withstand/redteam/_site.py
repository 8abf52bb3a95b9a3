"""From withstand.yaml to a campaign."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .._errors import OperationError
from ..config import Operations, load_operations
from ..guard import Experiments, Keys, Secrets
from ..monitor import Store
from ._campaign import Campaign, Guarded, Site
from ._scope import Scope
from ._signature import Signed, read_scope

_API_KEY = "x-api-key"
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


def open_campaign(
    path: Path, guard: Guarded | None, *, arms: bool = False, who: str = "redteam"
) -> Campaign:
    """The campaign of a withstand.yaml, everything checked that can be before the first query.

    guard: the admin port of its guard, if it has one. Raises OperationError or ConfigError.
    """
    config = load_operations(path)
    signed = signed_scope(path, config)
    if config.guard is not None:
        _check_key(path.parent, config, signed.scope)
    evidence = config.guard.evidence if config.guard is not None else None
    site = Site(
        root=path.parent,
        store=Store(path.parent / config.monitor.folder),
        guard=guard if config.guard is not None and signed.scope.safety.guard else None,
        evidence=path.parent / evidence.folder if evidence is not None else None,
        experiments=None if signed.scope.surprise else _experiments(path.parent, config),
    )
    return Campaign(config.redteam, signed, site, arms=arms, who=who)


def signed_scope(path: Path, config: Operations) -> Signed:
    """The scope that a withstand.yaml names; raises OperationError where it does not hold."""
    if not config.redteam.signers:
        raise OperationError(
            "redteam.signers is empty, so that nobody may permit anything; add names and public "
            "keys of `withstand redteam keygen`"
        )
    return read_scope(path.parent / config.redteam.scope, config.redteam.signers)


def _experiments(folder: Path, config: Operations) -> Experiments | None:
    """What signs passes, with the guard's secret; None where that is not here.

    It is never made here: a secret of our own would be none to the guard.
    """
    secrets = folder / (config.guard.secrets if config.guard is not None else "withstand-secrets")
    known = "WITHSTAND_EXPERIMENT" in os.environ or (secrets / "experiment").exists()
    return Experiments(Secrets(secrets).get("experiment")) if known else None


def _check_key(folder: Path, config: Operations, scope: Scope) -> None:
    """Raise OperationError where the red team's API key is not the scope's, if that can be known.

    The guard would take its pass for a forged one, and the campaign for an attack.
    """
    assert config.guard is not None
    target, keys = config.redteam.target, config.guard.keys
    if target is None or target.http is None or keys is None or not (folder / keys).exists():
        return
    headers = {name.lower(): value for name, value in target.http.headers.items()}
    told = _VARIABLE.fullmatch(headers.get(_API_KEY, ""))
    shown = os.environ.get(told[1] or told[2] or "", "") if told else ""
    if not shown:
        return
    known = Keys(folder / keys, Secrets(folder / config.guard.secrets).get("pepper")).find(shown)
    if known is None or known.id != scope.key:
        raise OperationError(
            f"the API key of redteam.target is not the scope's, whose id is {scope.key[:16]}…; "
            "take that one, or have a scope signed for this one"
        )
