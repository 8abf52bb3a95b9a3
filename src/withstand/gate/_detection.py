"""What a detector flags, as `withstand detect evaluate` found it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .._errors import DataError, one_line
from ..config import GateConfig
from ..stats import Interval
from ..threat import Access, Threat
from ._in_report import figure
from ._judge import TRUST
from ._measured import Extra
from ._same import check_threat

_SCHEMA = "urn:withstand:detection:1"
_AGAIN = "detect evaluate"


def read_detection(
    folder: str | Path, asked: GateConfig, threat: Threat, given: Access | None = None
) -> Extra:
    """The detector's rates by a report's folder, or why there is none; nothing if not asked for.

    detection_rate: flagged in the worst case of the successful attacks that know of the detector,
    at the threat's radius: an upper bound. false_positive_rate: flagged of benign test inputs.
    given: the most that the model gives away. Raises DataError for what is no such report, and for
    one of another threat, or of an attacker who saw less.
    """
    wanted = [n for n in ("detection_rate", "false_positive_rate") if getattr(asked, n) is not None]
    path = Path(folder) / "detection.json"
    if not wanted or not path.exists():
        return {}
    told = _read(path)
    check_threat(told["threat"], threat, given, again=_AGAIN)
    least = "amber" if asked.trust is None else asked.trust.min
    trust, verdict = str(told["trust"]["verdict"]), told["verdict"]
    found: dict[str, Interval | str] = {
        "detection_rate": figure(verdict["tpr"]),
        "false_positive_rate": figure(told["benign"]["flagged"]),
    }
    if verdict["level"] == "not shown":
        found["detection_rate"] = str(verdict["words"])
    if TRUST.index(trust) < TRUST.index(least):
        doubts = [f["check"] for f in told["trust"]["findings"] if f["verdict"] == trust]
        found = dict.fromkeys(
            found, f"trust in the detector's figures is {trust}, see its findings: {doubts}"
        )
    return {name: found[name] for name in wanted}


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_bytes())
        if told["schema"] != _SCHEMA:
            raise ValueError(f"its schema is {told['schema']!r}")
        told["threat"]["region"], told["trust"]["findings"], told["verdict"]["level"]
        figure(told["verdict"]["tpr"]), figure(told["benign"]["flagged"])
        if told["trust"]["verdict"] not in TRUST:
            raise ValueError(f"its trust is {told['trust']['verdict']!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({one_line(error)}); write it anew with `withstand {_AGAIN}`"
        ) from None
    return dict(told)
