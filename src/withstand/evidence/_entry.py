"""What a corpus knows of one input."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from .._errors import DataError, one_line
from .._version import __version__
from ..threat import Access

Array = NDArray[Any]
T = TypeVar("T")
Kind = Literal["adversarial", "flagged"]


def canonical(x: Array) -> Array:
    """An input as it is stored: its own type in little-endian bytes, row by row, no bit changed.

    Raises DataError for what is no array of numbers.
    """
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        raise DataError(f"an input of type {x.dtype} cannot be kept; convert it to numbers")
    return np.asarray(x, x.dtype.newbyteorder("<"), order="C")


def content_digest(x: Array) -> str:
    """sha256 (hex) over type, shape and bytes of one input: what an original is known by."""
    x = canonical(x)
    return hashlib.sha256(f"{x.dtype.str}{x.shape}".encode() + x.tobytes()).hexdigest()


def now() -> str:
    """The present time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def known(kind: type[T], content: dict[str, Any]) -> T:
    """What this version of withstand knows of a stored content: the format may gain fields."""
    names = {f.name for f in fields(cast(Any, kind))}
    return kind(**{name: value for name, value in content.items() if name in names})


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where entries come from: digests of model and data, the threat, the tool and the time.

    model and data are empty where they have no digest, as behind an endpoint; the model of what a
    guard flagged is then its name. imported: the digest of the exchange that brought them, empty
    for our own.
    """

    model: str = ""
    data: str = ""
    threat: dict[str, Any] = field(default_factory=dict)
    withstand: str = __version__
    time: str = field(default_factory=now)
    imported: str = ""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One input of a corpus, without its values, which `Corpus.read` gives.

    original: `content_digest` of the input that was changed, None where it is not known, as with
    flagged inputs. label, answer: the true label and the model's answer, as plain values. attack,
    access: what made it, and the least access that this needs. distance: from the original, in
    the threat's norm. answer_8bit, survives_8bit: the answer after rounding to 8 bits, and whether
    that still fools; None where the input is no picture. lineage: of a flagged input, the record of
    evidence that it comes from. verdict: attack or benign, by whoever looked at it; a remark tells
    it, and the label of a flagged input. digest, version, shard and row are set by the corpus.
    """

    original: str | None
    label: Any
    answer: Any
    attack: str
    origin: Origin
    kind: Kind = "adversarial"
    access: Access = "none"
    distance: float | None = None
    answer_8bit: Any = None
    survives_8bit: bool | None = None
    lineage: dict[str, Any] | None = None
    verdict: str = ""
    digest: str = ""
    version: int = 0
    shard: str = ""
    row: int = 0

    @property
    def identity(self) -> bytes:
        """What makes two entries the same: kind, content, original and label, not who found it.

        What was imported is never the same as our own, which would be distrusted with it.
        """
        told = [self.kind, self.digest, self.original, self.label]
        told += [self.origin.imported] if self.origin.imported else []
        return hashlib.sha256(json.dumps(told).encode()).digest()

    def line(self) -> str:
        """What is written for it, less its place and origin; raises DataError for other values."""
        try:
            return json.dumps({name: getattr(self, name) for name in RECORDED}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"an entry made by {self.attack} cannot be kept ({one_line(error)}); give labels, "
                "answers and distances as finite plain numbers"
            ) from None


_ELSEWHERE = ("origin", "version", "shard", "row", "verdict")
RECORDED = tuple(f.name for f in fields(Entry) if f.name not in _ELSEWHERE)
