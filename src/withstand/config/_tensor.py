"""An input of a model that is guarded, as clients send it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    WithJsonSchema,
    model_validator,
)

from ._section import Section, wrong
from ._values import Count, Names, Probability, number

Datatype = Literal[
    "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16",
    "FP32", "FP64", "BYTES",
]  # fmt: skip
_FEWEST = 300
_OF = {"formats": "image", "pixels": "image", "base64": "image", "characters": "text"}


def _shape(value: object) -> list[int]:
    told = value if isinstance(value, list | tuple) else []
    if not told or not all(type(n) is int and (n > 0 or n == -1) for n in told):
        raise ValueError("give the sizes of its axes, -1 for any, such as [-1, 784]")
    return list(told)


def _range(value: object) -> list[float]:
    told = value if isinstance(value, list | tuple) else []
    try:
        low, high = (number(n) for n in told)
    except ValueError:
        raise ValueError("give [lowest, highest], such as [0, 1]") from None
    if low >= high:
        raise ValueError("the lowest must be below the highest")
    return [low, high]


Shape = Annotated[
    list[int],
    BeforeValidator(_shape),
    WithJsonSchema({"type": "array", "items": {"type": "integer", "minimum": -1}, "minItems": 1}),
]
Range = Annotated[
    list[float],
    BeforeValidator(_range),
    WithJsonSchema({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}),
]


class DriftConfig(Section):
    """What is usual of each column, and how many rows are held against it at a time."""

    histograms: str = Field(
        description="file of what is usual, which `withstand table histograms` makes, relative to "
        "the configuration's folder",
        examples=["histograms.json"],
    )
    window: Count = Field(default=10_000, description="rows that are judged at a time, 300 or more")
    chance: Probability = Field(
        default=0.001,
        description="share of windows in which any column seems to drift where none does",
    )

    @model_validator(mode="after")
    def _enough(self) -> DriftConfig:
        if self.window < _FEWEST:
            raise wrong("window", f"is {self.window}, too few to tell; give {_FEWEST} or more")
        return self


class TensorConfig(Section):
    """One input of the model, as clients send it."""

    name: str = Field(description="its name in the protocol", examples=["x"])
    datatype: Datatype = Field(description="its datatype in the protocol", examples=["FP32"])
    shape: Shape = Field(description="sizes of its axes, -1 for any", examples=["[-1, 784]"])
    range: Range | None = Field(default=None, description="lowest and highest value")
    outside: Literal["refuse", "clip"] = Field(
        default="refuse", description="what becomes of values outside the range"
    )
    table: str | None = Field(
        default=None,
        description="file that says what the columns of its rows are, as `data.table`, relative to "
        "the configuration's folder: rows that break its rules are refused",
    )
    drift: DriftConfig | None = Field(
        default=None, description="with table: watch the histogram of each column for drift"
    )
    holds: Literal["image", "text"] | None = Field(
        default=None, description="BYTES: what is in it, to be checked and brought into one form"
    )
    formats: Names = Field(default=["JPEG", "PNG"], description="image: formats that are taken")
    pixels: Count = Field(
        default=4_000_000, description="image: the most of one; a request may have 8 times that"
    )
    base64: StrictBool = Field(default=False, description="image: elements are texts in base64")
    characters: Count = Field(default=10_000, description="text: the most characters")
    parameters: dict[str, StrictBool | StrictInt | StrictStr] = Field(
        default_factory=dict, description="parameters that it may have, by name"
    )

    @model_validator(mode="after")
    def _fits(self) -> TensorConfig:
        if self.range is None and "outside" in self.model_fields_set:
            raise wrong("outside", "needs range; add it, e.g. range: [0, 1]")
        if self.holds is not None and self.datatype != "BYTES":
            raise wrong("holds", f"is for BYTES, not {self.datatype}; take it out")
        if self.range is not None and self.datatype in ("BYTES", "BOOL"):
            raise wrong("range", f"is for numbers, not {self.datatype}; take it out")
        if self.table is not None and self.datatype in ("BYTES", "BOOL"):
            raise wrong("table", f"is for rows of numbers, not {self.datatype}; take it out")
        if self.drift is not None and self.table is None:
            raise wrong("drift", "needs table; add it, e.g. table: table.yaml, or take this out")
        for key, holds in _OF.items():
            if key in self.model_fields_set and self.holds != holds:
                raise wrong(key, f"is for what holds {holds}; add holds: {holds}, or take it out")
        return self
