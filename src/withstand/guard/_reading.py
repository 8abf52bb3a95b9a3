"""The model's input in a request, as the numbers that a sensor looks at."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import DataError
from .wire import Inference, Named

Array = NDArray[Any]

# Of all pictures of a request, looked at before they are decoded: 16 bytes each at the most.
_PIXELS = 2**24
_RAW = (b"\x89", b"\xff")  # how PNG and JPEG begin, and base64 cannot


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Which input of a request is looked at, and how it becomes what a model here takes.

    name: of the input, "" for the first. shape: of a row, as which the numbers are read, None as
    they came. scale: they are divided by it. channels_last: pictures of HxWxC become CxHxW. An
    input of type BYTES is taken for pictures, such as the rule Images leaves them: JPEG or PNG, as
    they are or in base64, of at most 2**24 pixels together.
    """

    name: str = ""
    shape: tuple[int, ...] | None = None
    scale: float = 1.0
    channels_last: bool = False

    def __call__(self, asked: Inference) -> Array:
        """Rows (B, ...) of float32; raises DataError where there are none of that shape."""
        values = self._values(asked)
        if self.channels_last and values.ndim > 3:
            values = np.moveaxis(values, -1, 1)
        if self.shape is not None and values.shape[1:] != self.shape:
            try:
                values = values.reshape(len(values), *self.shape)
            except ValueError:
                raise DataError(
                    f"rows have shape {values.shape[1:]}, and {self.shape} is looked at"
                ) from None
        values = values.astype(np.float32, copy=False)
        return values if self.scale == 1 else values / np.float32(self.scale)

    def of_pictures(self, asked: Inference) -> bool:
        """Whether there are pictures to decode, which takes longer than an event loop may wait."""
        return any(named.datatype == "BYTES" for named in self._named(asked))

    def _values(self, asked: Inference) -> Array:
        for named in self._named(asked):
            return named.values if named.datatype != "BYTES" else _pictures(named)
        raise DataError(f"there is no input {self.name!r}")

    def _named(self, asked: Inference) -> list[Named]:
        """The input that is looked at, or none."""
        return [named for named in asked.inputs if self.name in ("", named.name)][:1]


def _pictures(named: Named) -> Array:
    from PIL import Image

    found: list[Array] = []
    pixels = 0
    for part in named.values.ravel():
        content = part if part[:1] in _RAW else base64.b64decode(part, validate=True)
        # Other formats bring other decoders, some of them programs of their own.
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            pixels += image.width * image.height
            if pixels > _PIXELS:
                raise DataError(f"pictures of more than {_PIXELS} pixels in all are not looked at")
            found.append(np.asarray(image))
    if len({one.shape for one in found}) > 1:
        raise DataError("pictures of several sizes are looked at one by one")
    return np.stack(found)
