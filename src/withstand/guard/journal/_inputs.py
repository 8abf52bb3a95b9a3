"""Inputs on their way to the vault, and the records that name them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from ...evidence.log import Tensor, Vault, pack
from ..wire import Inference, Named

_log = logging.getLogger("withstand.guard")
_GROUP = 64
_GROUP_BYTES = 8 * 2**20


class _Waiting(NamedTuple):
    kind: str
    content: dict[str, Any]
    flagged: bool
    asked: Inference
    size: int


class InputWriter:
    """A thread that encrypts inputs, and then hands over the records that name them.

    An input is on the disk before `record` is handed the record that names it. At most `most`
    inputs and `most_bytes` bytes wait; from half of that on those that are not flagged are turned
    away. shown: what is kept of the tensors.
    """

    def __init__(
        self,
        vault: Vault | None,
        *,
        record: Callable[[str, dict[str, Any], bool], bool],
        shown: Callable[[list[Tensor]], list[Tensor]],
        most: int,
        most_bytes: int,
    ) -> None:
        self._record, self._vault, self._shown = record, vault, shown
        self._most, self._most_bytes = most, most_bytes
        self._queue: deque[_Waiting] = deque()
        self._bytes = 0
        self._taken = 0
        self._closing = False
        self._signal = threading.Condition()
        self.kept = self.dropped = self.refused = self.failed = 0
        self._thread = threading.Thread(target=self._run, name="inputs", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Inputs that are not on the disk yet."""
        return len(self._queue) + self._taken

    def put(self, kind: str, content: dict[str, Any], asked: Inference, *, flagged: bool) -> bool:
        """Hand over an input and its record, and do not wait; False where there is no room."""
        size = sum(
            sum(map(len, one.values.ravel())) if one.datatype == "BYTES" else one.values.nbytes
            for one in asked.inputs
        )
        part = 1 if flagged else 2
        with self._signal:
            full = self.waiting >= self._most // part
            if self._closing or full or self._bytes + size > self._most_bytes // part:
                self.refused += flagged
                self.dropped += not flagged
                return False
            self._queue.append(_Waiting(kind, content, flagged, asked, size))
            self._bytes += size
            if len(self._queue) == 1:
                self._signal.notify()
        return True

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all inputs are on the disk; False if it took too long."""
        with self._signal:
            return self._signal.wait_for(lambda: not self.waiting, timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Write what waits, and end."""
        with self._signal:
            self._closing = True
            self._signal.notify_all()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._signal:
                self._signal.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                group = self._group()
            try:
                self._write(group)
            finally:
                with self._signal:
                    self._taken = 0
                    self._bytes -= sum(one.size for one in group)
                    self._signal.notify_all()

    def _group(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        size = 0
        while self._queue and len(group) < _GROUP and size < _GROUP_BYTES:
            group.append(self._queue.popleft())
            size += group[-1].size
        self._taken = len(group)
        return group

    def _write(self, group: list[_Waiting]) -> None:
        assert self._vault is not None
        packed = [self._packed(one.asked) for one in group]
        references: list[str] = []
        try:
            references = self._vault.put([one for one in packed if one is not None])
        except Exception as error:
            # The record must not share the fate of its input, whatever that was.
            _log.warning("%d inputs could not be kept: %s", len(group), error)
        self.kept += len(references)
        self.failed += len(group) - len(references)
        found = iter(references)
        for one, content in zip(group, packed, strict=True):
            reference = None if content is None else next(found, None)
            told = {"input_lost": "vault"} if reference is None else {"input": reference}
            self._record(one.kind, one.content | told, one.flagged)

    def _packed(self, asked: Inference) -> bytes | None:
        try:
            return pack(self._shown([_tensor(named) for named in asked.inputs]))
        except Exception as error:
            # One that is beyond us must not take those of others with it.
            _log.warning("an input could not be kept: %r", error)
            return None


def _tensor(named: Named) -> Tensor:
    columns = tuple(named.parameters.get("columns", ()))
    return Tensor(named.name, named.datatype, named.values, columns)
