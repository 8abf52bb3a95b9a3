"""What could keep a detector from working on this model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..._errors import DetectorError
from ...evaluate import Finding


@dataclass(frozen=True, kw_only=True)
class Power:
    """What could keep a detector from working, and what it flags of inputs that it should.

    forced: it is kept although a finding is red.
    """

    findings: tuple[Finding, ...]
    forced: bool = False

    @property
    def red(self) -> tuple[Finding, ...]:
        """The findings for which it is refused."""
        return tuple(finding for finding in self.findings if finding.verdict == "red")

    def demand(self, force: bool = False) -> Power:
        """This report if nothing in it is red, or it is forced; else raises DetectorError."""
        if self.red and not force:
            worst = self.red[0]
            raise DetectorError(
                f"{worst.meaning}; {worst.fix}, or force it if you know better than this check"
            )
        return replace(self, forced=bool(self.red))

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {"forced": self.forced, "findings": [asdict(finding) for finding in self.findings]}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Power:
        """From what `to_dict` gave."""
        findings = tuple(Finding(**finding) for finding in told["findings"])
        return cls(findings=findings, forced=told["forced"])
