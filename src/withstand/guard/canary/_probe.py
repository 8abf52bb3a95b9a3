"""Probes: the same inputs asked of both arms, so that the two can be compared one by one."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ..._errors import DataError, OperationError
from .._message import Answer, UpstreamError
from ..answers import read_answer
from ._tally import CANARY, CONTROL

Array = NDArray[Any]

_AT_ONCE = 50
_AGAIN = 5
_LONGEST = 5.0
_BUSY = (429, 503)


@dataclass(frozen=True, kw_only=True, eq=False)
class Probes:
    """Clean inputs (N, ...), what was made of them to fool (N, ...), and true classes (N,)."""

    clean: Array
    adversarial: Array
    labels: Array

    def __post_init__(self) -> None:
        n = len(self.labels)
        if not n or len(self.clean) != n or self.adversarial.shape != self.clean.shape:
            raise DataError(
                f"there are {len(self.clean)} clean inputs, {len(self.adversarial)} adversarial "
                f"ones and {n} labels; give as many of each, of the same shape"
            )

    def batches(self) -> Iterator[tuple[str, slice]]:
        """Some at a time, with a digest of them: whoever was told of one takes it only once."""
        for begin in range(0, len(self.labels), _AT_ONCE):
            part = slice(begin, begin + _AT_ONCE)
            digest = hashlib.sha256()
            for values in (self.clean[part], self.adversarial[part], self.labels[part]):
                digest.update(np.ascontiguousarray(values).tobytes())
            yield digest.hexdigest()[:32], part


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What became of some probes, as pairs: in both arms, the canary alone, the control, neither.

    wrong: about clean inputs. fooled: of those that both arms were right about. refused: inputs
    that the guard did not let through, which say nothing of either arm.
    """

    source: str
    wrong: tuple[int, int, int, int]
    fooled: tuple[int, int, int, int]
    refused: int

    def outcomes(self, model: str) -> Iterator[dict[str, str]]:
        """What `POST /canary/outcomes` is told."""
        for sli, counts in (("wrong", self.wrong), ("fooled", self.fooled)):
            if sum(counts):
                yield {
                    "model": model, "sli": sli, "arm": "pairs", "source": f"{self.source}:{sli}",
                    "tried": str(sum(counts)), "both": str(counts[0]), "canary": str(counts[1]),
                    "control": str(counts[2]),
                }  # fmt: skip


class Prober:
    """Asks a guard at host and port about a model, as a client with passes for both arms.

    passes: the headers of each arm, the API key included. name, datatype: of the model's input.
    """

    def __init__(
        self, host: str, port: int, model: str, passes: dict[str, dict[str, str]], *,
        name: str = "x", datatype: str = "FP32", sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._connection = HTTPConnection(host, port, timeout=60)
        self._path, self._passes = f"/v2/models/{model}/infer", passes
        self._name, self._datatype, self._sleep = name, datatype, sleep

    def run(self, probes: Probes) -> Iterator[Batch]:
        """Some probes after the other; raises OperationError where an arm cannot be asked."""
        with closing(self._connection):
            for source, part in probes.batches():
                yield self._batch(source, probes, part)

    def _batch(self, source: str, probes: Probes, part: slice) -> Batch:
        wrong, fooled, refused = [0] * 4, [0] * 4, 0
        for clean, changed, label in zip(
            probes.clean[part], probes.adversarial[part], probes.labels[part], strict=True
        ):
            found = self._mistakes(clean, label)
            if found is None:
                refused += 1
                continue
            wrong[_place(found)] += 1
            if any(found):
                continue
            found = self._mistakes(changed, label)
            if found is None:
                refused += 1
                continue
            fooled[_place(found)] += 1
        return Batch(
            source=source, wrong=tuple(wrong), fooled=tuple(fooled), refused=refused  # type: ignore[arg-type]
        )  # fmt: skip

    def _mistakes(self, x: Array, label: Any) -> tuple[bool, bool] | None:
        """Whether the canary and the control arm are wrong; None where one was not let ask."""
        found = []
        for arm in (CANARY, CONTROL):
            answer = self._ask(arm, x)
            if answer is None:
                return None
            found.append(answer != label)
        return found[0], found[1]

    def _ask(self, arm: str, x: Array) -> Any:
        tensor = {
            "name": self._name, "datatype": self._datatype, "shape": [1, *x.shape],
            "data": x.ravel().tolist(),
        }  # fmt: skip
        body = orjson.dumps({"inputs": [tensor]})
        for _ in range(_AGAIN):
            try:
                self._connection.request("POST", self._path, body, self._passes[arm])
                reply = self._connection.getresponse()
                told = [
                    (name.lower().encode(), value.encode()) for name, value in reply.getheaders()
                ]
                answer = Answer(reply.status, told, reply.read())
            except (OSError, HTTPException):
                raise OperationError("no guard answers; start it, and probe again") from None
            if answer.status not in _BUSY:
                break
            wait = dict(told).get(b"retry-after", b"1").decode("latin-1")
            self._sleep(min(float(wait) if wait.isdecimal() else 1.0, _LONGEST))
        if answer.status == 403:
            return None
        if answer.status != 200:
            raise OperationError(f"the {arm} arm answered a probe with {_reason(answer)}")
        if dict(told).get(b"x-withstand-arm") != arm.encode():
            raise OperationError(
                "the guard did not take the pass; use its own configuration and a valid key"
            )
        try:
            labels = read_answer(answer, "v2").labels
        except UpstreamError:
            labels = None
        if labels is None or len(labels) != 1:
            raise OperationError(f"the {arm} arm names no class; probes are for classifiers")
        return int(labels[0])


def _place(found: tuple[bool, bool]) -> int:
    return 2 * (not found[0]) + (not found[1])


def _reason(answer: Answer) -> str:
    try:
        return f"status {answer.status}: {str(orjson.loads(answer.body)['error'])[:200]}"
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"status {answer.status}"
