"""A fitted detector that looks at requests."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import DataError, DetectorError, one_line
from .._reading import Reading
from .._sensor import Call, Failure, Sensor, Signal
from ..wire import Inference
from ._worker import Waiting, Worker, settle

if TYPE_CHECKING:
    from ...detect import Detector

Array = NDArray[Any]

_log = logging.getLogger("withstand.guard")
_STUCK = 3


class DetectorSensor(Sensor):
    """Asks a calibrated `withstand.detect` detector, with a model of its own, under a deadline.

    source: gives the detector, such as `partial(load, folder, model)`; it is asked again by
    `reload`, and where the detector hangs. reading: the detector's input in a request; with a shape
    the detector is tried at once. deadline: seconds that a request waits. rows, gather: requests
    are scored together, up to so many rows, for which the first one waits so many seconds. queue:
    rows that may wait. patience: seconds after which work under way counts as hung.

    The score is the largest suspicion of the request's rows, and above 0 a flag. Where there is
    none, `failed` says why: timeout, busy (too much waits), nan, error, or stuck (it hung three
    times, and the threads have not come back). A thread has no limit of memory, and a detector that
    brings the interpreter down brings the guard down with it.
    """

    def __init__(
        self, source: Callable[[], Detector], *, name: str = "detector",
        reading: Reading | None = None, deadline: float = 0.05, rows: int = 64,
        gather: float = 0.001, queue: int = 512, patience: float | None = None,
        action: str = "tag", on_failure: Failure = "open",
    ) -> None:  # fmt: skip
        self.name, self.action, self.on_failure = name, action, on_failure
        self.reading = reading or Reading()
        self.deadline = deadline
        self.restarts = 0
        self._source = source
        self._patience = max(1.0, 20 * deadline) if patience is None else patience
        self._limits = {"most": rows, "gather": gather, "queue": queue}
        self._lock = threading.Lock()
        self._last: Array | None = None
        if self.reading.shape is not None:
            self._last = np.zeros((1, *self.reading.shape), np.float32)
        self._late = self._failed("timeout")
        self._stuck: list[Worker[Inference, Signal]] = []
        self.reload()
        self._worker = self._started(_one_thread)

    def look(self, call: Call) -> Signal | Awaitable[Signal]:
        """What the detector says, or why it says nothing, in time."""
        if self._worker.busy_for() > self._patience and not self._restarted():
            return self._failed("stuck")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Signal] = loop.create_future()
        size = max(len(named.values) for named in call.asked.inputs)
        until = time.monotonic() + self.deadline
        if not self._worker.put(Waiting(call.asked, size, until, loop, future)):
            return self._failed("busy")
        late = loop.call_later(self.deadline, settle, future, self._late)
        future.add_done_callback(lambda _: late.cancel())
        return future

    def reload(self) -> None:
        """Take the detector anew from its source; where that fails, the last good one stays.

        Raises what the source raises, and DataError or DetectorError for one that is not
        calibrated, or gives no finite score of an input that was seen. Takes as long as loading.
        """
        detector = self._source()
        if detector.threshold is None:
            raise DataError(
                f"detector {self.name} has no threshold; run withstand detect calibrate"
            )
        if self._last is not None:
            try:
                found = self._suspicion(detector, self._last)
            except Exception as error:
                raise DetectorError(
                    f"detector {self.name} failed on an input of shape {self._last.shape[1:]} with "
                    f"{type(error).__name__}: {one_line(error, 80)}; give the model that it was "
                    "fitted to"
                ) from None
            if np.isnan(found).any():
                raise DetectorError(
                    f"detector {self.name} gives no number for an input; fit it again"
                )
        self._detector, self.version = detector, _version(detector)

    def close(self) -> None:
        """End the thread, if it is not hung."""
        self._worker.close()
        self._worker.join(1.0)

    def _started(self, begin: Callable[[], None]) -> Worker[Inference, Signal]:
        return Worker(self._judge, begin=begin, **self._limits)  # type: ignore[arg-type]

    def _restarted(self) -> bool:
        """Whether there is a new thread in the place of one that hangs."""
        self._stuck = [worker for worker in self._stuck if worker.alive]
        if len(self._stuck) >= _STUCK:
            return False
        _log.error("detector %s hangs; it is started anew", self.name)
        self._worker.close()
        self._stuck.append(self._worker)
        self.restarts += 1
        # Who hangs may hold the old one for ever.
        self._lock = threading.Lock()
        self._worker = self._started(self._anew)
        return True

    def _anew(self) -> None:
        _one_thread()
        try:
            self.reload()
        except Exception as error:
            _log.error("detector %s stays the one that hung: %s", self.name, one_line(error))

    def _judge(self, asked: list[Inference]) -> list[Signal]:
        try:
            return self._scored(asked)
        except BaseException as error:
            return [self._failed("error", error)] * len(asked)

    def _scored(self, asked: list[Inference]) -> list[Signal]:
        """A signal for each request; those of one shape are scored together."""
        found: list[Signal | None] = [None] * len(asked)
        together: dict[tuple[int, ...], list[int]] = {}
        rows: dict[int, Array] = {}
        for i, one in enumerate(asked):
            try:
                rows[i] = self.reading(one)
                together.setdefault(rows[i].shape[1:], []).append(i)
            except BaseException as error:
                found[i] = self._failed("error", error)
        for places in together.values():
            signals = self._signals([rows[i] for i in places])
            for i, signal in zip(places, signals, strict=True):
                found[i] = signal
        return [one or self._failed("error") for one in found]

    def _signals(self, rows: list[Array]) -> list[Signal]:
        try:
            suspicion = self._suspicion(self._detector, np.concatenate(rows))
            ends = np.cumsum([len(one) for one in rows])[:-1]
            signals = [self._signal(part) for part in np.split(suspicion, ends)]
        except BaseException as error:
            if len(rows) == 1:
                return [self._failed("error", error)]
            # One request must not make a detector blind to those beside it.
            return [signal for one in rows for signal in self._signals([one])]
        self._last = rows[-1][:1].copy()
        return signals

    def _suspicion(self, detector: Detector, x: Array) -> Array:
        import torch

        # A network that two threads look into at once shows each what the other asked.
        with self._lock:
            found = detector.suspicion(torch.from_numpy(x))
        return np.asarray(found.detach().cpu().numpy(), np.float64)

    def _signal(self, suspicion: Array) -> Signal:
        flagged = bool((suspicion > 0).any())
        # A row without a score must not hide one that is flagged.
        if not flagged and np.isnan(suspicion).any():
            return self._failed("nan")
        score = float(np.nan_to_num(np.nanmax(suspicion)))
        return Signal(self.name, score, 0.0, flagged)

    def _failed(self, why: str, error: BaseException | None = None) -> Signal:
        if error is not None:
            _log.warning("detector %s failed: %s", self.name, one_line(repr(error)))
        return Signal(self.name, 0.0, 0.0, False, why)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _version(detector: Detector) -> str:
    """A digest of all that a detector's answer depends on beside the model."""
    found = hashlib.sha256(json.dumps(detector.to_dict(), sort_keys=True, default=str).encode())
    for name, value in sorted(detector.state.items()):
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
