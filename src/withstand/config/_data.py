"""The section that says how data is read."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ._section import Section, check_factory, wrong
from ._values import Count, Names, Positive, Size

DataKind = Literal["npz", "parquet", "csv", "images", "audio", "sklearn", "python"]

_FILES = ("npz", "parquet", "csv", "images", "audio")
_ONLY: dict[str, tuple[str, ...]] = {
    "path": _FILES,
    "name": ("sklearn",),
    "factory": ("python",),
    "x": ("npz", "audio"),
    "y": ("npz", "parquet", "csv", "audio"),
    "features": ("parquet", "csv"),
    "table": ("parquet", "csv"),
    "group": ("npz", "parquet", "csv"),
    "layout": ("npz", "sklearn"),
    "scale": (*_FILES, "sklearn"),
    "classes": (*_FILES, "python"),
    "source": (*_FILES, "python"),
    "licence": (*_FILES, "python"),
    "size": ("images",),
    "length": ("audio",),
}


class DataConfig(Section):
    """What the model is attacked on and how it is read."""

    kind: DataKind = Field(description="how the data is read", examples=["npz"])
    path: str | None = Field(
        default=None, description="file or folder, relative to the configuration's folder"
    )
    name: str | None = Field(
        default=None, description="digits, breast_cancer, wine or iris, for kind sklearn"
    )
    factory: str | None = Field(
        default=None,
        description="file.py:callable or package.module:callable that returns a torch Dataset of "
        "pairs (x, y), a DataLoader of batches of them, arrays (x, y), or a withstand Dataset; for "
        "kind python",
    )
    x: str = Field(default="x", description="key of the inputs")
    y: str = Field(default="y", description="key or column of the labels")
    features: Names | None = Field(
        default=None, description="feature columns; all but the label and the group if absent"
    )
    table: str | None = Field(
        default=None,
        description="file that says what the columns are and what an attacker can do to them, "
        "relative to the configuration's folder; `withstand init --from` writes it",
    )
    only: Names | None = Field(
        default=None, description="only rows of these classes, such as the frauds; all if absent"
    )
    group: str | None = Field(default=None, description="key or column of each row's user group")
    scale: Positive = Field(default=1.0, description="raw values are divided by this")
    layout: Literal["auto", "none", "hwc", "chw"] = Field(
        default="auto", description="auto: square HxH gets a channel axis, HxWx3 becomes 3xHxW"
    )
    limit: Count | None = Field(default=None, description="only the first rows")
    classes: Names | None = Field(default=None, description="class names in the model's order")
    source: str | None = Field(default=None, description="where the data comes from, for reports")
    licence: str | None = Field(default=None, description="its licence, for reports")
    size: Size | None = Field(
        default=None, description="images are resized to this: pixels, or [height, width]"
    )
    length: Count | None = Field(
        default=None, description="waveforms are cut or zero-padded to this many samples"
    )

    @model_validator(mode="after")
    def _kinds(self) -> DataConfig:
        if self.kind == "sklearn" and self.name is None:
            raise wrong("name", "is missing; kind sklearn needs it, e.g. name: digits")
        if self.kind == "python":
            if self.factory is None:
                raise wrong("factory", "is missing; add it, e.g. factory: data.py:test")
            check_factory(self.factory)
        elif self.kind != "sklearn" and self.path is None:
            raise wrong("path", f"is missing; kind {self.kind} needs it, e.g. path: data.npz")
        for key, kinds in _ONLY.items():
            if key in self.model_fields_set and self.kind not in kinds:
                only = " or ".join(kinds)
                raise wrong(key, f"is only for kind {only}, not {self.kind}; take it out")
        if self.table is not None:
            for key in ("features", "scale"):
                if key in self.model_fields_set:
                    raise wrong(
                        key, "is not for data with a table, whose file tells it; take it out"
                    )
        if self.features is not None and self.y in self.features:
            raise wrong("features", f"names the label {self.y!r} itself; take it out")
        return self
