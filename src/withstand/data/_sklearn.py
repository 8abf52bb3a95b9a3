"""The small data sets that come with scikit-learn, so that nothing has to be downloaded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._errors import DataError, did_you_mean
from ._dataset import Dataset
from ._prepare import Layout, prepare


@dataclass(frozen=True, kw_only=True)
class _Set:
    source: str
    licence: str = "CC BY 4.0"
    scale: float = 1.0


_VIA = "UCI Machine Learning Repository, via scikit-learn"
_SETS = {
    "digits": _Set(
        source=f"Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), {_VIA}",
        scale=16.0,
    ),
    "breast_cancer": _Set(
        source=f"Breast Cancer Wisconsin (Diagnostic) (Wolberg et al., 1995), {_VIA}"
    ),
    "wine": _Set(source=f"Wine (Aeberhard and Forina, 1991), {_VIA}"),
    "iris": _Set(source=f"Iris (Fisher, 1936), {_VIA}"),
}


def load_sklearn(
    name: str, *, scale: float | None = None, layout: Layout = "auto", limit: int | None = None
) -> Dataset:
    """One of digits (N, 1, 8, 8), breast_cancer (N, 30), wine (N, 13), iris (N, 4).

    scale: digits are divided by 16 into [0, 1] and the others left raw unless it is given.
    """
    if name not in _SETS:
        raise DataError(
            f"there is no embedded data set {name!r}{did_you_mean(name, _SETS) or ';'} "
            f"it is one of {', '.join(_SETS)}"
        )
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    images = name == "digits"
    return prepare(
        np.asarray(bunch.images if images else bunch.data),
        np.asarray(bunch.target),
        name=name,
        source=_SETS[name].source,
        licence=_SETS[name].licence,
        scale=_SETS[name].scale if scale is None else scale,
        layout=layout,
        limit=limit,
        classes=[str(c) for c in bunch.target_names],
        features=None if images else [str(f) for f in bunch.feature_names],
    )
