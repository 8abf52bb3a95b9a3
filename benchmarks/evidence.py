"""What evidence costs: durable records, notes on a request's thread, inputs, reading it again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from measure import Rows, timed

from withstand.evidence.log import Index, Log, Query, Vault, verify
from withstand.guard import EvidenceJournal
from withstand.guard.wire import Inference, Named

RECORDS, NOTES, INPUTS = 100_000, 5_000, 1_000


def evidence() -> Rows:
    """Evidence on this disk: records of 0.7 kB as a guard makes them, inputs of 28x28 floats.

    Durable: on the disk by fdatasync, in groups of 256, counted up to the last. A note is what a
    request waits for: CPU time of its thread, the median and the mean of 5,000 at 5,000 a second.
    CPU: of the process, microseconds each.
    """
    with _folder() as folder:
        rows = [_row("durable records", RECORDS, timed(partial(_records, folder, RECORDS)))]
        rows.append(_row("verified", RECORDS, timed(partial(_sound, folder))))
        index = Index(folder)
        rows.append(_row("indexed", RECORDS, timed(index.update)))
        query = Query(tenant="acme", key="k" * 60 + "0007")
        found = timed(partial(index.find, query, 20))
        rows.append(_row("newest 20 of one key, by index", len(found.found), found))
    for inputs in ("flagged", "all"):
        with _folder() as folder:
            rows.append(_notes(folder, inputs))
    with _folder() as folder:
        vault = Vault(folder, bytes(32))
        sealed = timed(partial(_inputs, vault, INPUTS))
        vault.close()
        rows.append(_row("inputs sealed, on the disk", INPUTS, sealed))
    return rows


def content(number: int, decision: str = "pass") -> dict[str, Any]:
    """A decision as the guard writes it down."""
    return {
        "id": f"abcdef012345-{number}", "tenant": "acme", "key": f"{'k' * 60}{number % 1000:04}",
        "model": "digits", "version": "1", "weights": "b" * 64, "policy": "c" * 16,
        "mode": "enforce", "decision": decision, "status": 200, "done": (), "ms": [0.321, 0.123],
        "fingerprint": f"{number:064x}", "tensors": [["x", "FP32", (1, 1, 28, 28)]], "trace": [],
        "signals": [["queries", 0.1234567, 0.9, False, ""], ["maha", 12.34, 20.5, False, ""]],
    }  # fmt: skip


def _records(folder: Path, count: int) -> None:
    with Log(folder) as log:
        for number in range(count):
            told = content(number)
            while not log.append(told):
                log.flush()
        log.flush()


def _sound(folder: Path) -> None:
    assert not verify(folder).faults


def _notes(folder: Path, inputs: Any) -> dict[str, Any]:
    x = np.random.default_rng(0).random((1, 1, 28, 28), np.float32)
    named = Named(name="x", datatype="FP32", values=x, parameters={})
    asked = Inference(id="", inputs=(named,), parameters={})
    journal = EvidenceJournal(
        Log(folder), Vault(folder / "vault", bytes(32)), inputs=inputs, most=2 * NOTES
    )
    told = [content(number) for number in range(NOTES)]
    spent = np.empty(NOTES)
    cpu, begun = time.process_time(), time.perf_counter()
    for number, one in enumerate(told):
        while time.perf_counter() < begun + number / 5_000:
            time.sleep(0)
        before = time.thread_time()
        journal.note(one, flagged=False, asked=asked)
        spent[number] = time.thread_time() - before
    journal.flush(120)
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    assert journal.counts.written > NOTES
    journal.close()
    what = "notes" if inputs == "flagged" else f"notes, {journal.counts.inputs_kept:,} inputs kept"
    # Waiting for the next moment is not the journal's: only the notes themselves are told.
    row = _told(what, NOTES, wall, None)
    middle, mean = 1e6 * float(np.median(spent)), 1e6 * float(spent.mean())
    return row | {"CPU us, request's thread": f"{middle:.1f}, mean {mean:.1f}"}


def _inputs(vault: Vault, count: int) -> None:
    given = [np.random.default_rng(n).bytes(28 * 28 * 4) for n in range(count)]
    for begin in range(0, count, 64):
        vault.put(given[begin : begin + 64])


def _row(what: str, count: int, spent: Any) -> dict[str, Any]:
    return _told(what, count, spent.wall, spent.cpu)


def _told(what: str, count: int, wall: float, cpu: float | None) -> dict[str, Any]:
    return {
        "what": what,
        "count": count,
        "a second": f"{count / wall:,.0f}",
        "CPU us": "-" if cpu is None else round(1e6 * cpu / count, 1),
        "CPU us, request's thread": "-",
    }


@contextmanager
def _folder() -> Iterator[Path]:
    # Not the system's temporary folder, which may be memory.
    folder = Path(mkdtemp(dir=Path.cwd(), prefix=".evidence-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
