"""The inputs that a model has: others are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..._errors import ConfigError
from ..wire import DATATYPES, Inference, Named, RequestError

ROWS = ("instances", "inputs", "dataframe_split")
_NUMBERS = ("FP64", "INT64")


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input by its name and datatype in the protocol; shape: its axes, -1 for any size.

    Where the first axis is -1 it counts the rows. parameters: what may be said about it, name and
    value; anything else is refused, since servers read data differently because of it.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.datatype != "BYTES" and self.datatype not in DATATYPES:
            raise ConfigError(
                f"input {self.name!r} has datatype {self.datatype!r}; give BYTES or one of "
                f"{', '.join(DATATYPES)}"
            )
        if not self.shape or not all(size == -1 or size > 0 for size in self.shape):
            raise ConfigError(
                f"input {self.name!r} has shape {list(self.shape)}; give the sizes of its axes, -1 "
                "for any"
            )


@dataclass(frozen=True, kw_only=True)
class Schema:
    """Which inputs a request must have: all of these, no other, of at most `batch` rows.

    rows: the only input may also come as rows of KServe v1 or MLflow, which have no datatype and a
    name of their own; then name it "" in the other rules. parameters: as those of an Input, of the
    request. Raises RequestError 400, or 413 for too many rows. Some 2 microseconds.
    """

    inputs: tuple[Input, ...]
    batch: int = 64
    rows: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = {one.name for one in self.inputs}
        if not names or len(names) < len(self.inputs):
            raise ConfigError(f"{len(self.inputs)} inputs; name at least one, and each once")
        if self.batch < 1:
            raise ConfigError(f"batch is {self.batch}; give at least 1")
        if self.rows and len(self.inputs) > 1:
            raise ConfigError(f"rows have one input, not {len(self.inputs)}; leave out rows")

    @staticmethod
    def of(metadata: Mapping[str, Any], *, batch: int = 64) -> Schema:
        """The schema in a model's metadata (`GET /v2/models/NAME`).

        Raises ConfigError where it says nothing of inputs, or something that the guard cannot read.
        """
        try:
            inputs = tuple(
                Input(
                    name=one["name"], datatype=one["datatype"], shape=tuple(map(int, one["shape"]))
                )
                for one in metadata["inputs"]
            )
        except (KeyError, TypeError, ValueError):
            inputs = ()
        if not inputs:
            raise ConfigError("the model's metadata name no inputs; declare them in guard.inputs")
        return Schema(inputs=inputs, batch=batch)

    def __call__(self, asked: Inference) -> Inference:
        """The request as it is; raises RequestError where it does not fit."""
        if asked.parameters:
            _check_parameters("the request", asked.parameters, self.parameters)
        known, rows = self._known, 0
        if len(asked.inputs) != len(known):
            raise _unfit(f"the model takes {len(known)} inputs: {', '.join(known)}")
        for named in asked.inputs:
            wanted = known.get(named.name)
            if wanted is None:
                if not (self.rows and named.name in ROWS and named.datatype in _NUMBERS):
                    raise _unfit(f"the model has no input {named.name!r}")
                wanted = self.inputs[0]
            elif wanted.datatype != named.datatype:
                raise _unfit(f"input {named.name!r} must be {wanted.datatype}")
            size = _checked(named, wanted)
            if size > self.batch:
                raise RequestError(
                    413, "too_large", f"input {named.name!r} has more than {self.batch} rows"
                )
            if size and rows and size != rows:
                raise _unfit("the inputs must have the same number of rows")
            rows = rows or size
        return asked

    @cached_property
    def _known(self) -> dict[str, Input]:
        return {one.name: one for one in self.inputs}


def _checked(named: Named, wanted: Input) -> int:
    """The rows of an input that fits, 0 where it does not count them."""
    shape, found = wanted.shape, named.values.shape
    if found != shape:
        right = len(found) == len(shape)
        for size, real in zip(shape, found, strict=False):
            right = right and (size == real or size == -1)
        if not right:
            raise _unfit(f"input {named.name!r} must have shape {list(shape)}, -1 for any size")
    if named.parameters and not (named.name in ROWS and set(named.parameters) == {"columns"}):
        _check_parameters(f"input {named.name!r}", named.parameters, wanted.parameters)
    return found[0] if shape[0] == -1 else 0


def _check_parameters(what: str, told: Mapping[str, Any], allowed: Mapping[str, Any]) -> None:
    for name, value in told.items():
        if name not in allowed or type(value) is not type(allowed[name]) or value != allowed[name]:
            raise _unfit(f"{what} has a parameter that is not taken here")


def _unfit(text: str) -> RequestError:
    return RequestError(400, "schema", text)
