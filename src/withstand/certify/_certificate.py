"""Certificates as values and as a file."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .._errors import DataError, OutputError, one_line
from ..stats import Interval, wilson

Array = NDArray[Any]

SCHEMA = "urn:withstand:certificates:1"
Method = Literal["smoothing", "bounds", "trees"]
Outcome = Literal["certified", "not certified", "abstained", "wrong"]


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What is proven of one input.

    input: its `content_digest`. radius: within it the answer stays, in the threat's norm and units
    of raw input; 0 where nothing is proven. outcome: certified where the answer is the label and
    the radius at least the threat's; abstained where votes leave even the answer unsure, or trees
    are undecided in time. method: what proved it, or found the witness. draws, votes, first: of
    smoothing, the draws that judge the answer, how many gave each answer, and the votes that had
    chosen it. margin: of bounds and trees, the least margin proven. witness: of trees, the row that
    fools the model, flat.
    """

    input: str
    label: int
    answer: int
    outcome: Outcome
    radius: float
    method: str
    draws: int | None = None
    votes: dict[str, int] | None = None
    first: dict[str, int] | None = None
    margin: float | None = None
    witness: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """The certificates of a data set's inputs, in their order, and what they are about.

    model: the certified one, as plain values with its weights' digest. With method smoothing the
    certificates are of its smoothed classifier, never of the model itself. threat: as plain values;
    a radius is in units of raw input. settings: what was asked. engine: versions, type of numbers,
    device, with trees the forest's digest. forwards: of single inputs. left_out: relations of the
    attacker's table that proofs do without, so that they hold with or without them.
    """

    method: Method
    model: dict[str, Any]
    threat: dict[str, Any]
    units: str
    data: dict[str, Any]
    settings: dict[str, Any]
    engine: dict[str, Any]
    forwards: int
    certificates: tuple[Certificate, ...]
    left_out: tuple[str, ...] = ()

    @property
    def certified(self) -> NDArray[np.bool_]:
        """Which inputs are proven robust, (N,)."""
        return np.asarray([c.outcome == "certified" for c in self.certificates], bool)

    @property
    def alpha(self) -> float:
        """The probability that a certificate is wrong; 0 with bounds and trees."""
        return float(self.settings.get("alpha", 0.0))

    @property
    def certified_accuracy(self) -> Interval:
        """The share proven robust, a lower bound of the robust accuracy.

        Wilson's 95 % interval; its low end is less by alpha, the expected share of wrong ones.
        """
        return proven_share(int(self.certified.sum()), len(self.certificates), self.alpha)

    def at_least(self, radius: float) -> Interval:
        """The share that is right and proven within a radius of the threat's norm."""
        proven = [c.radius >= radius and c.answer == c.label for c in self.certificates]
        return proven_share(sum(proven), len(proven), self.alpha)

    @property
    def digest(self) -> str:
        """sha256 (hex) over all of the content: a file with another one was changed."""
        told = json.dumps(self._content(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(told.encode()).hexdigest()

    def _content(self) -> dict[str, Any]:
        told = asdict(replace(self, certificates=()))
        if not self.left_out:
            del told["left_out"]
        return {
            "schema": SCHEMA,
            "certified_accuracy": self.certified_accuracy.to_dict(),
            **told,
            "certificates": [
                {name: value for name, value in asdict(c).items() if value is not None}
                for c in self.certificates
            ],
        }

    def to_json(self) -> str:
        """All of it as JSON text, in the form of the published schema."""
        content = {"digest": self.digest, **self._content()}
        return json.dumps(content, indent=1, allow_nan=False) + "\n"

    def save(self, path: str | Path) -> Path:
        """Write the file, which is either whole or not there; raises OutputError."""
        path = Path(path)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(self.to_json(), encoding="utf-8")
            part.replace(path)
        except OSError as error:
            raise OutputError(
                f"{path} cannot be written: {error.strerror}; free space there or give another "
                "place"
            ) from None
        finally:
            with suppress(OSError):
                part.unlink()
        return path


def proven_share(proven: int, n: int, alpha: float) -> Interval:
    """The share of n inputs that is proven, each at a probability of alpha to be wrong."""
    share = wilson(proven, n)
    return replace(share, low=max(share.low - alpha, 0.0)) if n else share


def load_certificates(path: str | Path) -> Certificates:
    """The certificates in a file; raises DataError for what is none, or was changed since."""
    path = Path(path)
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["schema"] != SCHEMA:
            raise ValueError(f"schema {told['schema']!r}, not {SCHEMA}")
        names = {field.name for field in fields(Certificates)}
        rows = tuple(_certificate(row) for row in told["certificates"])
        values = {name: value for name, value in told.items() if name in names}
        values |= {"certificates": rows, "left_out": tuple(told.get("left_out", ()))}
        found = Certificates(**values)
        digest = found.digest
    except FileNotFoundError:
        raise DataError(f"{path} is not there; `withstand certify` writes one") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} holds no certificates ({one_line(error, 80)}); give the file that `withstand "
            "certify` wrote"
        ) from None
    if digest != told.get("digest") or told["certified_accuracy"] != (
        found.certified_accuracy.to_dict()
    ):
        raise DataError(
            f"{path} was changed after it was written: its digest is {digest[:12]}, not "
            f"{str(told.get('digest'))[:12]}; certify again"
        )
    return found


def _certificate(row: dict[str, Any]) -> Certificate:
    witness = row.get("witness")
    return Certificate(**{**row, "witness": None if witness is None else tuple(witness)})
