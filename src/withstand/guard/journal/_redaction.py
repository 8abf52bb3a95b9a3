"""What is taken out of records and inputs before they are kept."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson

from ..._errors import ConfigError
from ...evidence.log import Tensor

Way = Literal["drop", "hash", "truncate"]
_INPUT = "inputs."


@dataclass(frozen=True, kw_only=True)
class Redaction:
    """What becomes of one field of a record, such as `key`, or of one input, as `inputs.NAME`.

    drop: it is left out. hash: an HMAC-SHA256 (hex) takes its place, so that equal ones are still
    told. truncate: its first `keep` characters, entries or numbers stay. NAME may be a column of a
    data frame, which is dropped whatever `how` says: a number has no safe remainder. Raises
    ConfigError.
    """

    field: str
    how: Way
    keep: int = 8

    def __post_init__(self) -> None:
        if self.how not in ("drop", "hash", "truncate"):
            raise ConfigError(
                f"redaction of {self.field} is {self.how!r}; it is drop, hash or truncate"
            )
        if self.field in ("", _INPUT, "id", "decision", "input"):
            raise ConfigError(
                f"redaction of {self.field or 'nothing'}; id, decision and input make a record "
                "what it is: give another field, or inputs.NAME"
            )
        if self.keep < 0:
            raise ConfigError(f"redaction of {self.field} keeps {self.keep}; give 0 or more")


class Redactor:
    """Applies redactions; secret: of the digests that take the place of what is hashed."""

    def __init__(self, redactions: Sequence[Redaction], secret: bytes) -> None:
        self._secret = secret
        self._fields = [one for one in redactions if not one.field.startswith(_INPUT)]
        self._inputs = {
            one.field.removeprefix(_INPUT): one
            for one in redactions
            if one.field.startswith(_INPUT)
        }

    def record(self, content: dict[str, Any]) -> dict[str, Any]:
        """A record's content as it is kept; the one that is given stays as it is."""
        if not self._fields:
            return content
        content = dict(content)
        for one in self._fields:
            if one.field not in content:
                continue
            value = content.pop(one.field)
            if one.how == "hash":
                content[one.field] = self._digest(orjson.dumps(value))
            elif one.how == "truncate" and isinstance(value, str | list | tuple):
                content[one.field] = value[: one.keep]
        return content

    def inputs(self, tensors: list[Tensor]) -> list[Tensor]:
        """Inputs as they are kept."""
        if not self._inputs:
            return tensors
        return [kept for one in tensors if (kept := self._input(one)) is not None]

    def _input(self, tensor: Tensor) -> Tensor | None:
        left = [place for place, name in enumerate(tensor.columns) if name not in self._inputs]
        if len(left) < len(tensor.columns):
            columns = tuple(tensor.columns[place] for place in left)
            tensor = tensor._replace(columns=columns, values=tensor.values[:, left])
        rule = self._inputs.get(tensor.name)
        if rule is None:
            return tensor
        if rule.how == "drop":
            return None
        if rule.how == "truncate":
            # The first of each row: columns past them have no names any more.
            columns = tensor.columns[: rule.keep]
            return tensor._replace(values=_first(tensor, rule.keep), columns=columns)
        if tensor.datatype == "BYTES":
            parts = [self._digest(part).encode() for part in tensor.values.ravel()]
        else:
            parts = [self._digest(row.tobytes()).encode() for row in np.atleast_1d(tensor.values)]
        values = np.empty(len(parts), object)
        values[:] = parts
        shape = tensor.values.shape if tensor.datatype == "BYTES" else (len(parts),)
        return Tensor(tensor.name, "BYTES", values.reshape(shape))

    def _digest(self, content: bytes) -> str:
        return hmac.new(self._secret, content, hashlib.sha256).hexdigest()


def _first(tensor: Tensor, keep: int) -> np.ndarray[Any, Any]:
    values = tensor.values
    if tensor.datatype == "BYTES":
        found = np.empty(values.size, object)
        found[:] = [part[:keep] for part in values.ravel()]
        return found.reshape(values.shape)
    rows = np.atleast_1d(values)
    return rows.reshape(len(rows), -1)[:, :keep]
