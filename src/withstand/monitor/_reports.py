"""Figures that are in files: the coverage of the tests, and what a defence has cost."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._errors import OperationError, one_line
from ..config import MonitorConfig
from .store import Observation


def coverage(config: MonitorConfig, folder: Path, now: float) -> Iterator[Observation]:
    """The share of tests that are about robustness, each state of the file once.

    Nothing where there is no file; raises OperationError for one that is none of its kind.
    """
    path = folder / config.coverage
    found = _read(path)
    if found is None:
        return
    told, source = found
    tests, robustness = _whole(path, told, "tests"), _whole(path, told, "robustness")
    if not 0 <= robustness <= tests:
        raise _wrong(path, f"{robustness} robustness tests of {tests}")
    value = robustness / tests if tests else None
    yield Observation(sli="M10", wall=now, source=source, value=value, labels={"n": str(tests)})


def degradation(config: MonitorConfig, folder: Path, now: float) -> Iterator[Observation]:
    """What a defence has cost by the reports before and after it, each state of them once.

    Nothing where one is not there; raises OperationError for a file that is no report.
    """
    if config.degradation is None:
        return
    paths = folder / config.degradation.before, folder / config.degradation.after
    first, second = (_read(path) for path in paths)
    if first is None or second is None:
        return
    (before, one_source), (after, other_source) = first, second
    source = f"{one_source}+{other_source}"
    for of in ("clean_accuracy", "robust_accuracy"):
        one, two = _figure(paths[0], before, of), _figure(paths[1], after, of)
        # Of two reports nothing is known of how they go together: the widest interval there is.
        ends = {"low": one["low"] - two["high"], "high": one["high"] - two["low"]}
        labels = {name: repr(end) for name, end in ends.items()}
        labels |= {"n": str(int(min(one["n"], two["n"]))), "of": of}
        yield Observation(
            sli="M6", wall=now, source=f"{of}:{source}", value=one["value"] - two["value"],
            labels=labels,
        )  # fmt: skip


def _read(path: Path) -> tuple[dict[str, Any], str] | None:
    """What a file says, and which state of it that is; None where there is no file."""
    try:
        # Of one opened file: another one may take its place in between.
        with path.open("rb") as file:
            content, changed = file.read(), os.fstat(file.fileno()).st_ctime_ns
        found = json.loads(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise _wrong(path, one_line(error)) from None
    if not isinstance(found, dict):
        raise _wrong(path, "no JSON object")
    # The time too: a file that is as it was before is news if it was something else in between.
    # Not that of its content, which a copy that is moved back keeps.
    digest = hashlib.sha256(content).hexdigest()[:16]
    return found, f"{path.name}:{digest}:{changed}"


def _whole(path: Path, told: dict[str, Any], name: str) -> int:
    value = told.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(path, f"{name} is no count")
    return value


def _figure(path: Path, told: dict[str, Any], name: str) -> dict[str, float]:
    found = told.get(name)
    try:
        figure = {key: float(found[key]) for key in ("value", "low", "high", "n")}  # type: ignore[index]
    except (TypeError, KeyError, ValueError, OverflowError):
        raise _wrong(path, f"{name} has no value, low, high and n") from None
    if not all(math.isfinite(one) for one in figure.values()):
        raise _wrong(path, f"{name} has a figure that is not finite")
    return figure


def _wrong(path: Path, why: str) -> OperationError:
    return OperationError(f"{path} cannot be read ({why}); write it anew, or take it away")
