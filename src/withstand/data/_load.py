"""From the configuration's data section to a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .._errors import DataError
from ..config import DataConfig
from ._audio import load_audio
from ._dataset import Dataset
from ._images import load_images
from ._npz import load_npz
from ._sklearn import load_sklearn
from ._table import load_csv, load_parquet


def load(spec: DataConfig, root: str | Path = ".") -> Dataset:
    """The data that a configuration describes; a relative path counts from the folder `root`."""
    if spec.kind == "sklearn":
        # The embedded sets know their own scale, so only one that was written replaces it.
        scale = spec.scale if "scale" in spec.model_fields_set else None
        return load_sklearn(spec.name or "", scale=scale, layout=spec.layout, limit=spec.limit)
    if spec.path is None:
        raise DataError(f"data.path is missing; kind {spec.kind} needs it, e.g. path: data.npz")
    path = Path(root) / Path(spec.path).expanduser()
    common: dict[str, Any] = {
        "scale": spec.scale,
        "limit": spec.limit,
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
