"""Ids of the public threat catalogues, so that a finding can be filed where others look for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Technique:
    """An entry of a public catalogue of attacks."""

    catalogue: str
    id: str
    name: str


_EVADE = (
    Technique(catalogue="MITRE ATLAS", id="AML.T0015", name="Evade ML Model"),
    Technique(catalogue="OWASP ML Top 10", id="ML01:2023", name="Input Manipulation Attack"),
)
_BY_ACCESS = {
    "gradients": Technique(
        catalogue="MITRE ATLAS", id="AML.T0043.000", name="White-Box Optimization"
    ),
    "scores": Technique(catalogue="MITRE ATLAS", id="AML.T0043.001", name="Black-Box Optimization"),
    "labels": Technique(catalogue="MITRE ATLAS", id="AML.T0043.001", name="Black-Box Optimization"),
    "none": Technique(catalogue="MITRE ATLAS", id="AML.T0043.002", name="Black-Box Transfer"),
}
_NIST = {
    "gradients": ("NISTAML.022", "Evasion"),
    "scores": ("NISTAML.025", "Black-box evasion"),
    "labels": ("NISTAML.025", "Black-box evasion"),
    "none": ("NISTAML.025", "Black-box evasion"),
}


def techniques(access: str) -> tuple[Technique, ...]:
    """The catalogue entries of an evasion attack with this access."""
    number, name = _NIST[access]
    nist = Technique(catalogue="NIST AI 100-2", id=number, name=name)
    return (*_EVADE, _BY_ACCESS[access], nist)
