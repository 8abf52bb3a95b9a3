"""Whether rows have the columns that an estimator was fitted to, in its order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._errors import ModelError, listed


def check_columns(estimator: Any, name: str, columns: Sequence[str], *, place: str) -> None:
    """Raise ModelError where an estimator that knows its columns' names was fitted to other ones.

    name: where it comes from; place: where the columns are listed. Names that no column has, such
    as LightGBM's own `Column_0`, say nothing.
    """
    own = [_spelt(one) for one in _fitted_to(estimator)]
    places = {_spelt(one): i for i, one in enumerate(columns)}
    shared = [one for one in own if one in places]
    if shared and (len(own) != len(columns) or any(own[places[one]] != one for one in shared)):
        raise ModelError(
            f"{name} was trained on the columns {listed(own)}, but rows have {listed(columns)}; "
            f"list those {place}, in that order, and no others"
        )


def _fitted_to(estimator: Any) -> Sequence[str]:
    trees = estimator.get_booster() if hasattr(estimator, "get_booster") else estimator
    trees = getattr(trees, "booster_", trees)
    names = getattr(trees, "feature_name", None)
    found = names() if callable(names) else getattr(trees, "feature_names", None)
    if found is None or not len(found):
        found = getattr(trees, "feature_names_", getattr(estimator, "feature_names_in_", None))
    return () if found is None else [str(one) for one in found]


def _spelt(name: str) -> str:
    """LightGBM's files have no blanks."""
    return name.replace(" ", "_")
