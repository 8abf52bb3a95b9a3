"""Images in inputs of type BYTES: decoded once, and passed on as a plain PNG of what was seen."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._errors import ConfigError
from ..wire import Inference, RequestError
from ._each import each

_FULL = 8
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")


@dataclass(frozen=True, kw_only=True)
class Images:
    """Each element is an image of a declared format, and goes on as a PNG of 8 bits, L or RGB.

    name: of the input, "" for all of type BYTES. pixels: the most of one, and an
    eighth of the most of all in a request, looked at before decoding.
    background: grey level behind what is transparent. encoded: elements are texts in base64. An
    image is turned as its EXIF says; metadata, profiles and whatever follows it are left out; 16
    bits become 8. Animated, truncated and other files are refused: RequestError 400, or 413 for too
    many pixels. Costs what decoding and encoding do: 7 ms for a JPEG of 224x224.
    """

    name: str = ""
    formats: tuple[str, ...] = ("JPEG", "PNG")
    pixels: int = 4_000_000
    background: int = 255
    encoded: bool = False

    def __post_init__(self) -> None:
        strange = [one for one in self.formats if one not in FORMATS]
        if strange or not self.formats:
            raise ConfigError(
                f"image formats are {', '.join(self.formats) or 'none'}; give some of "
                f"{', '.join(FORMATS)}"
            )
        if self.pixels < 1 or not 0 <= self.background <= 255:
            raise ConfigError(
                f"pixels is {self.pixels} and background {self.background}; give at least 1, and 0 "
                "to 255"
            )

    def __call__(self, asked: Inference) -> Inference:
        """The request with each image in its canonical form; raises RequestError."""
        room = _Room(self.pixels)
        return each(asked, self.name, lambda part, name: self._one(part, name, room))

    def _one(self, part: bytes, name: str, room: _Room) -> bytes:
        if not self.encoded:
            return self._canonical(part, name, room)
        try:
            content = base64.b64decode(part, validate=True)
        except binascii.Error:
            raise RequestError(400, "image", f"input {name!r} must be base64") from None
        return base64.b64encode(self._canonical(content, name, room))

    def _canonical(self, content: bytes, name: str, room: _Room) -> bytes:
        from PIL import Image

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(io.BytesIO(content), formats=self.formats) as image:
                    room.take(image.width * image.height, name)
                    if getattr(image, "is_animated", False):
                        raise RequestError(400, "image", f"input {name!r} holds a moving image")
                    return _written(_plain(_upright(image), self.background))
        except RequestError:
            raise
        except Image.DecompressionBombError:
            raise _too_large(name, self.pixels) from None
        except Exception:
            # Whatever a decoder stumbles over, it is no image that others would read in one way.
            raise RequestError(
                400, "image", f"input {name!r} must be images: {', '.join(self.formats)}"
            ) from None


class _Room:
    """The pixels that the pictures of a request may still have."""

    def __init__(self, each: int) -> None:
        self._each, self._left = each, _FULL * each

    def take(self, pixels: int, name: str) -> None:
        """Count a picture; raises RequestError where it is too large, or all are."""
        if pixels > self._each:
            raise _too_large(name, self._each)
        self._left -= pixels
        if self._left < 0:
            raise RequestError(
                413, "too_large", f"the images have over {_FULL * self._each} pixels in all"
            )


def _upright(image: Any) -> Any:
    from PIL import ImageOps

    image.load()
    return ImageOps.exif_transpose(image)


def _plain(image: Any, background: int) -> Any:
    """The image in mode L or RGB, without transparency."""
    from PIL import Image

    if image.mode.startswith("I"):
        # Pillow clips 16 bits where others scale them.
        values = np.asarray(image).astype(np.int64).clip(0, 65_535) >> 8
        return Image.fromarray(values.astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no range")
    grey = image.mode in ("1", "L", "LA", "La")
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        behind = Image.new("RGBA", image.size, (background,) * 3 + (255,))
        image = Image.alpha_composite(behind, image)
    return image.convert("L" if grey else "RGB")


def _written(image: Any) -> bytes:
    from PIL import Image

    # What is known beside the pixels would be written too.
    bare, out = Image.fromarray(np.asarray(image)), io.BytesIO()
    bare.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _too_large(name: str, pixels: int) -> RequestError:
    return RequestError(413, "too_large", f"input {name!r} holds an image of over {pixels} pixels")
