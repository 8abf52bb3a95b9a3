"""What the last release left behind: its report, and the examples that fooled it."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import DataError, one_line
from ..evaluate import read_report
from ..evidence import content_digest

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The last release: its report as plain values, and its examples by their originals' digest.

    access: what their attacker saw, None where it is not known.
    """

    report: dict[str, Any] | None = None
    examples: dict[str, list[Array]] = field(default_factory=dict)
    access: str | None = None

    def of(self, x: Array) -> list[list[Array]]:
        """The examples of each row of x (N, ...)."""
        return [self.examples.get(content_digest(row), []) for row in x]


def read_baseline(folder: str | Path) -> Baseline:
    """The folder of a report, or of an earlier gate; raises DataError where there is neither."""
    folder = Path(folder)
    report = read_report(folder) if (folder / "report.json").exists() else None
    told = report
    if told is None and (folder / "gate.json").exists():
        told = _json(folder / "gate.json")
    arrays = folder / "adversarial.npz"
    if told is None and not arrays.exists():
        raise DataError(
            f"baseline {folder} holds neither report.json nor adversarial.npz; give the folder of "
            "the last release's report, or leave gate.baseline out"
        )
    access = None if told is None else told.get("threat", {}).get("access")
    return Baseline(
        report=report, examples=_examples(arrays) if arrays.exists() else {}, access=access
    )


def _examples(path: Path) -> dict[str, list[Array]]:
    try:
        with np.load(path) as stored:
            x, x_adv, fooled = stored["x"], stored["x_adv"], stored["fooled"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} cannot be read ({one_line(error)}); restore it, or delete it to start without "
            "its examples"
        ) from None
    found: dict[str, list[Array]] = {}
    for row in np.flatnonzero(fooled):
        found.setdefault(content_digest(x[row]), []).append(x_adv[row])
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); run `withstand evaluate` first, or give "
            "the folder of its report"
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({one_line(error)}); write it again") from None
    return found if isinstance(found, dict) else {}
