"""Whether a report is of the threat that limits are meant for."""

from __future__ import annotations

from typing import Any

from .._errors import DataError
from ..threat import ACCESS, Access, Threat


def check_threat(
    told: dict[str, Any], threat: Threat, given: Access | None = None, *, again: str = "evaluate"
) -> None:
    """Raise DataError for a report of another threat, or of an attacker who saw less.

    given: the most that the model gives away; again: the command that writes such a report.
    """
    access = max(threat.access, given or threat.access, key=ACCESS.index)
    wanted = {**threat.describe(), "access": access}
    for key in ("region", "goal", "queries", "access"):
        same = told[key] == wanted[key]
        if key == "access":
            same = ACCESS.index(told[key]) <= ACCESS.index(wanted[key])
        if not same:
            raise DataError(
                f"the report's {key} is {told[key]!r}, the configuration's {wanted[key]!r}; "
                f"run `withstand {again}` again"
            )
