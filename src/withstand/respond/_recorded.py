"""The recorded inputs of an incident, as the models take them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .._errors import EvidenceError
from ..config import ReplayConfig
from ..evidence.log import Record, Tensor, Vault, fingerprinted, unpack

Array = NDArray[np.float32]
Parity = Literal["same", "differs", "not recorded"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Recorded:
    """One row of a recorded input: its values as the models take them, and its record.

    answer: the class that the model gave it, None where that was not recorded. parity: whether the
    input still is what the guard took the fingerprint of.
    """

    record: Record
    row: int
    values: Array
    answer: int | None
    parity: Parity

    @property
    def fingerprint(self) -> str:
        """The keyed digest of the whole input."""
        return str(self.record.content.get("fingerprint", ""))

    @property
    def sensors(self) -> tuple[str, ...]:
        """The sensors that flagged it."""
        signals = self.record.content.get("signals", ())
        return tuple(one[0] for one in signals if isinstance(one, list) and one[3])


@dataclass(kw_only=True)
class Found:
    """The inputs of an incident, and how many requests have none, by the reason."""

    inputs: list[Recorded] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=dict)

    def miss(self, why: str) -> None:
        """Count a request without an input."""
        self.missing[why] = self.missing.get(why, 0) + 1


def recorded(
    records: Sequence[Record], vault: Vault, told: ReplayConfig, secret: bytes | None = None
) -> Found:
    """The inputs of some records, oldest first; at most `told.most`, evenly spread over them.

    secret: the guard's secret `fingerprint`, with which it can be told whether an input was changed
    since.
    """
    found = Found()
    named = []
    for record in records:
        if isinstance(record.content.get("input"), str):
            named.append(record)
        else:
            found.miss(str(record.content.get("input_lost", "not kept")))
    if len(named) > told.most:
        chosen = np.unique(np.linspace(0, len(named) - 1, told.most).astype(int))
        found.missing["beyond respond.replay.most"] = len(named) - len(chosen)
        named = [named[number] for number in chosen]
    for record in named:
        reference = record.content["input"]
        if vault.erased(reference):
            found.miss("erased")
            continue
        try:
            tensors = unpack(vault.get(reference))
        except EvidenceError:
            found.miss("damaged")
            continue
        rows = _rows(tensors, told)
        if rows is None:
            found.miss("not numbers of the configured shape")
            continue
        parity = _parity(tensors, record, secret)
        answered = record.content.get("answered") or []
        for row, values in enumerate(rows):
            best = answered[row] if row < len(answered) else []
            answer = int(best[0][0]) if best else None
            found.inputs.append(
                Recorded(record=record, row=row, values=values, answer=answer, parity=parity)
            )
    return found


def _rows(tensors: list[Tensor], told: ReplayConfig) -> Array | None:
    for tensor in tensors:
        if told.input in ("", tensor.name):
            break
    else:
        return None
    values: NDArray[Any] = tensor.values
    if values.dtype.kind not in "biuf" or not values.ndim:
        return None
    if told.channels_last and values.ndim > 3:
        values = np.moveaxis(values, -1, 1)
    if told.shape is not None:
        try:
            values = values.reshape(len(values), *told.shape)
        except ValueError:
            return None
    return values.astype(np.float32) / np.float32(told.scale)


def _parity(tensors: list[Tensor], record: Record, secret: bytes | None) -> Parity:
    """Whether an input has the fingerprint that the guard took of it, after its last check."""
    kept = record.content.get("fingerprint")
    if secret is None or not kept:
        return "not recorded"
    mac = hmac.new(secret, b"".join(fingerprinted(tensors)), hashlib.sha256)
    trace = record.content.get("trace") or []
    last = trace[-1][1] if trace else kept
    return "same" if mac.hexdigest() == kept == last else "differs"
