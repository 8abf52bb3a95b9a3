"""Monotone constraints that follow from what an attacker of a table can do."""

from __future__ import annotations

from collections.abc import Sequence

from .._errors import ThreatError, did_you_mean
from ..threat.tabular import Capability, Derived, affine

_SIGNS = {"increase": 1, "decrease": -1}


def directions(capability: Capability, *, leave: Sequence[str] = ()) -> tuple[int, ...]:
    """For each feature (F,) the constraint 1, -1 or 0 under which its changes cannot help.

    For `monotone_constraints` of XGBoost, LightGBM or scikit-learn where class 1 is what an
    attacker does not want to be: its score must not fall as a feature rises that he can only
    increase, nor as one falls that he can only decrease. What follows from these by a sum has
    their direction; other derived features have none, and are better left out of the model. leave:
    features that stay free, such as an amount whose honest sign is the other one. Raises
    ThreatError for a feature that there is not.
    """
    for name in leave:
        if name not in capability.index:
            hint = did_you_mean(name, capability.index)
            raise ThreatError(f"feature {name!r} is not in the table{hint or ''}; correct leave")
    found = {
        one.name: 0 if one.name in leave else _SIGNS.get(one.change, 0)
        for one in capability.features
    }
    # What stays free gives what is derived no direction; what nobody can change has no say.
    still = {
        one.name for one in capability.features if one.change == "none" and one.name not in leave
    }
    for item in capability.order:
        found[item.name] = 0 if item.name in leave else _direction(item, found, still)
    return tuple(found[one.name] for one in capability.features)


def _direction(item: Derived, found: dict[str, int], still: set[str]) -> int:
    """That of a sum whose changing parts all pull one way, else 0."""
    linear = affine(item.tree)
    if linear is None:
        return 0
    pulls = {
        found[name] * (1 if factor > 0 else -1)
        for name, factor in linear[0].items()
        if factor and name not in still
    }
    if not pulls:
        still.add(item.name)
    return pulls.pop() if len(pulls) == 1 else 0
