"""Preprocessing parity: the same raw input through the evaluated pipeline and the served one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..._errors import ConfigError, DataError, ModelError, WithstandError
from ..._version import __version__
from ...config import Config
from ...data import load as load_data
from ...models import Model, describe, load_model
from ._compare import Comparison, asked, common_unit, gap
from ._difference import Difference, beyond, measured
from ._known import Catalogue
from ._pictures import Layout, view_of
from ._result import Parity, judge
from ._route import Route, taken_apart
from ._search import Explanation, explain
from ._suspect import Suspect

# Float32 with its sums in another order is a hundred times nearer; float16 is farther.
TOLERANCE = 1e-4
EXPLAINED = 0.1
_AGAIN = 16


def parity(
    reference: Model,
    served: Model,
    x: ArrayLike,
    *,
    tolerance: float = TOLERANCE,
    explained: float = EXPLAINED,
    layout: Layout = "auto",
    features: Sequence[str] | None = None,
    suspects: Sequence[Suspect] = (),
) -> Parity:
    """Compare two pipelines' answers to the same raw inputs x (N, ...); name the step that differs.

    tolerance: of scores, as a share of their spread; explained: the share of the difference that a
    culprit may leave; layout: of pictures; features: the columns of a table; suspects: more to try.
    Costs N queries of the served model, and 16 where there is a difference; all else is asked of
    the reference. Raises ModelError for answers that cannot be compared, and DataError.
    """
    for name, share in (("tolerance", tolerance), ("explained", explained)):
        if not 0 <= share < 1:
            raise DataError(f"{name} is {share:g}; give a share of at least 0 and below 1")
    rows = torch.as_tensor(np.array(x, np.float32))
    if features is not None and (rows.ndim != 2 or len(features) != rows.shape[1]):
        raise DataError(
            f"{len(features)} feature names for x of shape {tuple(rows.shape)}; name each of its "
            "columns, or leave the names out"
        )
    view = view_of(rows, reference.domain, layout)
    found: list[Explanation] = []
    with reference.held(), served.held():
        difference, seen, route = _compared(reference, served, rows, tolerance)
        if seen is not None and not difference.noisy and beyond(difference, tolerance):
            known = Catalogue(view=view, own=route.steps, features=features, more=tuple(suspects))
            found = explain(seen, route, known, explained + difference.noise)
    ranked = tuple(found)
    culprit = ranked[0] if ranked and ranked[0].left <= explained + difference.noise else None
    return Parity(
        difference=difference,
        tolerance=tolerance,
        suspects=ranked,
        culprit=culprit,
        finding=judge(difference, tolerance, ranked, culprit),
        provenance={
            "withstand": __version__,
            "reference": describe(reference),
            "served": describe(served),
        },
    )


def parity_of(config: Config, root: str | Path = ".", *, limit: int = 256) -> Parity:
    """The parity of a configuration's `model` and `served` on rows spread evenly over its `data`.

    limit: rows at most. Raises ConfigError where `served` is missing, and what `parity` raises.
    """
    if config.served is None:
        raise ConfigError(
            "served is missing; say where the model is served with the keys of model, e.g. served: "
            "{kind: http, url: http://localhost:8000, http: {name: digits}}"
        )
    data = load_data(config.data, root)
    reference = load_model(config.model, root, data.table, columns=data.features)
    try:
        served = load_model(config.served, root)
    except WithstandError as error:
        raise ModelError(f"served: {error}") from None
    rows = np.unique(np.linspace(0, len(data) - 1, min(limit, len(data))).astype(int))
    return parity(reference, served, data.x[rows], features=data.features)


def _compared(
    reference: Model, served: Model, x: Tensor, tolerance: float
) -> tuple[Difference, Comparison | None, Route]:
    """The difference, the comparison that it comes from (none without data), the route compared."""
    whole = Route(steps=(), model=reference)
    if not len(x):
        return Difference(n=0), None, whole
    route = taken_apart(reference)
    if not _same(route, whole, x[:8]):
        route = whole
    other = Route(steps=(), model=served)
    mine, theirs = asked(whole, x), asked(other, x)
    unit, to_unit, from_served = common_unit(mine, theirs)
    seen = Comparison(x=x, served=from_served(theirs), unit=unit, to_unit=to_unit)
    difference = measured(seen, to_unit(mine), tolerance)
    if beyond(difference, tolerance):
        # Other rows beside them, in another order: what depends on the batch differs as well.
        gaps = gap(to_unit(mine), seen.served)
        rows = gaps.argsort(descending=True, stable=True)[:_AGAIN].flip(0)
        again = gap(from_served(asked(other, x[rows])), seen.served[rows])
        difference = replace(difference, noise=seen.total(again) / seen.total(gaps[rows]))
    return difference, seen, route


def _same(one: Route, other: Route, x: Tensor) -> bool:
    """Whether a model that was taken apart still answers as it did."""
    try:
        return torch.allclose(one.answers(x), other.answers(x), rtol=1e-4, atol=1e-5)
    # The parts come from the user, and may be called by something else than a plain sequence.
    except Exception:
        return False
