"""From the configuration's data section to a data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import DataError, did_you_mean, listed
from .._factory import called, importable, users
from ..config import DataConfig
from ._audio import load_audio
from ._dataset import Dataset
from ._images import load_images
from ._npz import load_npz
from ._prepare import prepare
from ._sklearn import load_sklearn
from ._table import load_csv, load_parquet
from ._tabular import load_tabular
from ._torch import from_torch


def load(spec: DataConfig, root: str | Path = ".") -> Dataset:
    """The data that a configuration describes; a relative path counts from the folder `root`."""
    if spec.kind == "sklearn":
        # The embedded sets know their own scale, so only one that was written replaces it.
        scale = spec.scale if "scale" in spec.model_fields_set else None
        limit = None if spec.only else spec.limit
        found = load_sklearn(spec.name or "", scale=scale, layout=spec.layout, limit=limit)
        return _only(found, spec.only, spec.limit)
    if spec.factory is not None:
        return _only(_made(spec, spec.factory, Path(root)), spec.only, spec.limit)
    if spec.path is None:
        raise DataError(f"data.path is missing; kind {spec.kind} needs it, e.g. path: data.npz")
    path = Path(root) / Path(spec.path).expanduser()
    if spec.table is not None:
        return _only(load_tabular(path, spec, root), spec.only, spec.limit)
    return _only(_loaded(spec, path), spec.only, spec.limit)


def _loaded(spec: DataConfig, path: Path) -> Dataset:
    common: dict[str, Any] = {
        "scale": spec.scale,
        "limit": None if spec.only else spec.limit,
        "classes": spec.classes,
        # The path as it was written: reports should not tell of folders on one machine.
        "source": spec.source or spec.path,
        "licence": spec.licence,
    }
    match spec.kind:
        case "npz":
            return load_npz(path, spec.x, spec.y, layout=spec.layout, group=spec.group, **common)
        case "parquet":
            return load_parquet(path, spec.y, spec.features, group=spec.group, **common)
        case "csv":
            return load_csv(path, spec.y, spec.features, group=spec.group, **common)
        case "images":
            return load_images(path, size=spec.size, **common)
        case "audio":
            return load_audio(path, spec.x, spec.y, length=spec.length, **common)
        case "sklearn" | "python":
            raise AssertionError(spec.kind)


def _made(spec: DataConfig, factory: str, root: Path) -> Dataset:
    """What the user's callable returns, as a data set."""
    import torch

    limit = None if spec.only else spec.limit
    told: dict[str, Any] = {
        "name": factory.rpartition(":")[2],
        "source": spec.source or factory,
        "licence": spec.licence or "unknown",
        "limit": limit,
        "classes": spec.classes,
    }
    with importable(root, factory), torch.random.fork_rng(devices=[]):
        made = called(factory, root, key="data.factory", error=DataError)
        if isinstance(made, Dataset):
            return made if limit is None else made.head(limit)
        if isinstance(made, tuple) and len(made) == 2:
            return prepare(np.asarray(made[0]), np.asarray(made[1]), **told)
        return users(lambda: from_torch(made, **told), factory, DataError)


def _only(data: Dataset, classes: list[str] | None, limit: int | None) -> Dataset:
    """The rows of these classes, by name or number."""
    if classes is None:
        return data
    names = data.classes or tuple(str(one) for one in np.unique(data.y))
    for one in classes:
        if one not in names:
            hint = did_you_mean(one, names) or ";"
            raise DataError(f"data.only names the class {one!r}{hint} there are {listed(names)}")
    if data.classes is None:
        rows = np.isin(data.y, [int(one) for one in classes])
    else:
        rows = np.isin(data.y, [data.classes.index(one) for one in classes])
    if not rows.any():
        raise DataError(f"data.only is {listed(classes)}, and no row is of that; correct it")
    kept = replace(data.take(rows), others=(data.x[~rows], data.y[~rows]))
    return kept if limit is None else kept.head(limit)
